"""Adapters in service: who runs with which, changed while it runs, taken back, and there again after a restart."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from llmos.abi.errors import (
    AdapterMismatch,
    CheckpointError,
    ConfigError,
    CorruptWeights,
    ModelNotFound,
    NoSuchProcess,
    ProcessError,
)
from llmos.drivers.weights.adapter import TENSORS, write_adapter
from llmos.kernel import adapters as module
from llmos.kernel.adapters import AdapterStore
from llmos.kernel.engine.batch import SampleBatch, Sampled
from llmos.kernel.kernel import Kernel
from llmos.kernel.process import Process
from llmos.kernel.turn import Turn
from tests.kernel.tiny import CONFIG, tiny_adapter

Make = Callable[..., Kernel]
WIDE = replace(CONFIG, vocab=260)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Three adapters of the tiny model."""
    return [write_adapter(tiny_adapter(n, config=WIDE), tmp_path / f"adapter-{n}") for n in range(3)]


def words(process: Process, question: str = "Tell me of swap.", temperature: float = 0.9) -> str:
    return process.ask(question, max_tokens=30, temperature=temperature, seed=7).answer


def held(process: Process, tokens: int) -> Turn:
    """A turn that stands still after so many tokens: its next word waits for the signal."""
    kernel, runner = process.kernel, process.kernel.engine._runner
    sample, said, reached, stopped = runner.sample, count(), threading.Event(), threading.Event()

    def watched(logits: object, rows: SampleBatch) -> Sampled:
        if next(said) == tokens:
            reached.set()
            assert stopped.wait(120)
        return sample(logits, rows)

    runner.sample = watched  # type: ignore[method-assign]
    turn = process.ask("Tell me of swap.", max_tokens=60, temperature=0.9, seed=7, detached=True)
    assert reached.wait(120)
    process.signal("STOP")
    kernel.loop.run(asyncio.sleep(0))
    stopped.set()
    runner.sample = sample  # type: ignore[method-assign]
    return turn


def test_a_process_runs_with_its_adapter(tiny_kernel: Make, files: list[Path]) -> None:
    kernel = tiny_kernel()
    plain, one, two = kernel.spawn(), kernel.spawn(adapter=files[0]), kernel.spawn(adapter=files[1])
    version = tiny_adapter(0, config=WIDE).version
    assert (plain.adapter, one.adapter) == ("", version)
    said = [words(p) for p in (plain, one, two)]
    assert len(set(said)) == 3
    assert [stat.adapter for stat in kernel.ps()] == [p.adapter for p in (plain, one, two)]
    (child,) = one.fork()
    assert child.adapter == version and words(child, "And?", 0) == words(one, "And?", 0)
    assert words(kernel.spawn(adapter=version[:12])) == said[1]  # by its version
    assert words(kernel.spawn()) == said[0]


def test_a_swap_while_a_turn_runs_waits_for_its_end(tiny_kernel: Make, files: list[Path]) -> None:
    kernel = tiny_kernel()
    expected = (
        kernel.spawn(adapter=files[0]).ask("Tell me of swap.", max_tokens=60, temperature=0.9, seed=7).answer
    )
    process = kernel.spawn(adapter=files[0])
    turn = held(process, 20)
    new = kernel.adapters.use(process.pid, files[1])
    assert process.adapter == new
    process.signal("CONT")
    assert turn.answer == expected
    after = words(process)
    process.forget()
    assert words(process) == words(kernel.spawn(adapter=files[1])) and after
    replayed = kernel.replay(process.pid)
    assert replayed.divergence is None and replayed.turns == 3 and not replayed.notes


def test_back_goes_to_what_stood_before(tiny_kernel: Make, files: list[Path]) -> None:
    kernel = tiny_kernel()
    process = kernel.spawn()
    said = [words(process)]
    for file in files:
        process.forget()
        kernel.adapters.use(process.pid, file)
        said.append(words(process))
    assert len(set(said)) == 4
    for expected in said[-2::-1]:
        process.forget()
        assert kernel.adapters.back(process.pid) == process.adapter
        assert words(process) == expected
    with pytest.raises(ProcessError, match="nothing to go back to"):
        kernel.adapters.back(process.pid)
    kernel.adapters.use(process.pid, files[0])
    assert kernel.adapters.use(process.pid, None) == "" == process.adapter
    with pytest.raises(NoSuchProcess):
        kernel.adapters.use(99, files[0])


def test_an_expert_is_given_another_with_all_its_processes(tiny_kernel: Make, files: list[Path]) -> None:
    kernel = tiny_kernel()
    first, other = kernel.spawn(expert="librarian", adapter=files[0]), kernel.spawn(expert="clerk")
    own = first.adapter
    new = kernel.adapters.use("librarian", files[1])
    later = kernel.spawn(expert="librarian", adapter=files[0])  # as its file says, which `use` has overruled
    assert first.adapter == later.adapter == new != own and other.adapter == ""
    newest = kernel.adapters.use("librarian", files[2])
    used = {stat.version: stat.used for stat in kernel.adapters.list()}
    assert used[newest] == ("librarian", str(first.pid), str(later.pid)) and used[new] == used[own] == ()
    assert kernel.adapters.back("librarian") == new == first.adapter == later.adapter
    assert kernel.adapters.back("librarian") == "" and first.adapter == own
    assert kernel.spawn(expert="librarian", adapter=files[0]).adapter == own
    assert kernel.spawn(expert="librarian").adapter == ""
    with pytest.raises(ConfigError, match="nothing to go back to"):
        kernel.adapters.back("librarian")


def test_a_restart_brings_them_back_whatever_became_of_the_files(
    tiny_kernel: Make, files: list[Path], tmp_path: Path
) -> None:
    state = tmp_path / "state"
    plain = tiny_kernel().spawn(adapter=files[0])
    expected = plain.ask("Tell me of swap.", max_tokens=60, temperature=0.9, seed=7).answer
    kernel = tiny_kernel(state=state)
    process = kernel.spawn(adapter=files[0], expert="librarian")
    kernel.adapters.use("librarian", files[1])
    version = kernel.adapters.back("librarian") or process.adapter
    before = process.adapters
    held(process, 10)
    for file in files:
        shutil.rmtree(file)
    kernel.journal.wait(kernel.appended)
    kernel = tiny_kernel(state=Path(shutil.copytree(state, tmp_path / "as if it had been killed")))
    again = kernel.process(process.pid)
    assert (again.adapters, again.adapter) == (before, version)
    turn = again.current
    assert turn is not None
    again.signal("CONT")
    assert turn.answer == expected
    assert again.stat().adapter == version
    assert kernel.replay(again.pid).divergence is None


def test_a_checkpoint_needs_its_adapter(tiny_kernel: Make, files: list[Path], tmp_path: Path) -> None:
    here = tiny_kernel()
    process = here.spawn(adapter=files[0])
    words(process)
    path = process.checkpoint(tmp_path / "file")
    resumed = here.resume(path)
    assert resumed.adapter == process.adapter
    turn = resumed.ask("And a fault?", max_tokens=20)
    assert turn.answer == process.ask("And a fault?", max_tokens=20).answer and turn.usage.cached_tokens > 0
    store = here.adapters.store.folder
    here.close()
    shutil.rmtree(store)
    with pytest.raises(CheckpointError, match="an adapter that is not here"):
        tiny_kernel().resume(path)
    there = tiny_kernel()
    there.adapters.load(files[0])
    assert there.resume(path).adapter == process.adapter


def test_what_does_not_fit_changes_nothing(tiny_kernel: Make, files: list[Path], tmp_path: Path) -> None:
    kernel = tiny_kernel()
    process = kernel.spawn(adapter=files[0], expert="librarian")
    version, said = process.adapter, words(process)
    wrong = write_adapter(tiny_adapter(5, config=replace(WIDE, ffn=256)), tmp_path / "wrong")
    damaged = shutil.copytree(files[1], tmp_path / "damaged")
    (damaged / TENSORS).write_bytes((damaged / TENSORS).read_bytes()[:-9])
    for path, error in (
        (wrong, AdapterMismatch),
        (damaged, CorruptWeights),
        (tmp_path / "gone", ModelNotFound),
    ):
        for target in (process.pid, "librarian"):
            with pytest.raises(error):
                kernel.adapters.use(target, path)
        with pytest.raises(error):
            kernel.spawn(adapter=path)
    assert process.adapter == version and [stat.version for stat in kernel.adapters.list()] == [version]
    process.forget()
    assert words(process) == said


def test_a_scripted_model_takes_none(scripted_kernel: Make, files: list[Path]) -> None:
    with pytest.raises(AdapterMismatch, match="scripted"):
        scripted_kernel(lambda window: "Yes.").spawn(adapter=files[0])


def test_why_and_the_next_word_are_of_the_adapter(tiny_kernel: Make, files: list[Path]) -> None:
    kernel = tiny_kernel()
    process, plain = kernel.spawn(adapter=files[0]), kernel.spawn()
    assert process.ask("Hm?", max_tokens=8).answer
    assert plain.ask("Hm?", max_tokens=8).answer
    assert kernel.next_distribution("", 3, process.pid) != kernel.next_distribution("", 3, plain.pid)
    (first,) = kernel.next_distribution("", 1, process.pid)
    looked = kernel.why(process.pid)
    assert looked.logprob <= 0 and first[1] <= 1  # greedy words are likely under their own adapter
    (child,) = process.fork()
    kernel.adapters.use(child.pid, None)
    assert child.ask("Hm?", max_tokens=8).answer
    assert kernel.why(process.pid).logprob == looked.logprob


def test_the_store_is_bounded_and_checks_what_it_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT", 3)
    store = AdapterStore(tmp_path / "adapters")
    made = [tiny_adapter(n, names=("q",), rank=1) for n in range(6)]
    store.keep(made[0])
    store.use("librarian", made[0].version)
    for adapter in made[1:]:
        store.keep(adapter, needed=[made[1].version])
    kept = set(store.kept())
    assert {made[n].version for n in (0, 1, 5)} <= kept and len(kept) <= 5
    assert store.find(made[5].version[:8]).version == made[5].version
    with pytest.raises(ModelNotFound, match="no adapter"):
        store.find("00000000")
    with pytest.raises(ModelNotFound, match="not on this machine"):
        store.get("0" * 64)
    shutil.rmtree(store.folder / made[5].version)
    write_adapter(made[4], store.folder / made[5].version)
    with pytest.raises(CorruptWeights, match="not what was kept"):
        store.get(made[5].version)
    (store.folder / "experts.json").write_text("{")
    with pytest.raises(CorruptWeights, match=r"experts\.json"):
        store.of("librarian")
