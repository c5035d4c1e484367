"""A process in a file goes on elsewhere with the same words; what is damaged or of other weights is refused."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count, islice
from pathlib import Path

import pytest

from llmos.abi.errors import CheckpointError, ConfigError
from llmos.abi.events import Result, Token
from llmos.abi.labels import UNTRUSTED
from llmos.kernel.engine.batch import SampleBatch, Sampled
from llmos.kernel.journal.state import ProcessState
from llmos.kernel.kernel import Kernel
from llmos.kernel.process import Process
from llmos.kernel.turn import Turn
from llmos.memory.pagefile import seal, unseal
from llmos.testing import call

Make = Callable[..., Kernel]
ASKED = {"max_tokens": 90, "temperature": 0.9, "seed": 7}


def standing(process: Process) -> ProcessState:
    """How the journal says that it stands, without what differs between two processes."""
    kernel = process.kernel
    kernel.journal.wait(kernel.appended)
    state = kernel.journal.unfinished().processes[process.pid]
    mailbox = tuple(replace(mail, number=0, sender=0) for mail in state.mailbox)
    spawned = replace(state.spawned, parent=0, forked=False)
    return replace(state, pid=0, parent=0, spawned=spawned, mailbox=mailbox)


def stopped_midway(process: Process, tokens: int) -> Turn:
    """A turn under way that has said `tokens` tokens, and is held there: its next word waits for the signal."""
    kernel, runner = process.kernel, process.kernel.engine._runner
    sample, said, signalled = runner.sample, count(), threading.Event()

    def held(logits: object, rows: SampleBatch) -> Sampled:
        if next(said) == tokens:
            assert signalled.wait(60)
        return sample(logits, rows)

    runner.sample = held  # type: ignore[method-assign]
    turn = process.ask("Tell me of swap and of checkpoints.", **ASKED, detached=True)  # type: ignore[arg-type]
    list(islice((e for e in turn if isinstance(e, Token)), tokens))
    process.signal("STOP")
    kernel.loop.run(asyncio.sleep(0))
    signalled.set()
    runner.sample = sample  # type: ignore[method-assign]
    return turn


def test_a_conversation_goes_on_elsewhere(tiny_kernel: Make, tmp_path: Path) -> None:
    here = tiny_kernel()
    process = here.spawn(instructions="You are terse.", expert="scribe", seed=3, quotas={"tokens": 900})
    process.ask("What is a page?", max_tokens=60, temperature=1.0).result
    path = process.checkpoint(tmp_path / "file.llmos")
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    there = tiny_kernel()
    resumed = there.resume(path)
    assert standing(resumed) == standing(process)
    assert resumed.expert == "scribe" and resumed.conversation == process.conversation
    asked = {"question": "And what is a fault?", "max_tokens": 40, "temperature": 1.0}
    expected, got = process.ask(**asked), resumed.ask(**asked)
    assert got.answer == expected.answer
    assert got.usage.faults > 0 and got.usage.cached_tokens == expected.usage.cached_tokens > 0


@pytest.mark.parametrize("tokens", [1, 20, 50])
def test_a_turn_goes_on_where_it_was(tiny_kernel: Make, tmp_path: Path, tokens: int) -> None:
    """Seeded; saved while it runs, resumed in a kernel that has never seen it, and again after a restart of that."""
    expected = tiny_kernel().spawn().ask("Tell me of swap and of checkpoints.", **ASKED).answer  # type: ignore[arg-type]
    process = tiny_kernel().spawn()
    stopped_midway(process, tokens)
    path = process.checkpoint(tmp_path / "file")
    state = tmp_path / "there"
    there = tiny_kernel(state=state)
    resumed = there.resume(path)
    assert resumed.state == "stopped" and resumed.current is not None
    pid = resumed.pid
    if tokens == 20:
        there.close()
        there = tiny_kernel(state=state)
        resumed = there.process(pid)
    turn = resumed.current
    assert turn is not None
    resumed.signal("CONT")
    assert turn.answer == expected
    assert turn.usage.faults > 0


@pytest.mark.parametrize("tokens", range(1, 9))
def test_a_turn_outlives_the_close_of_its_kernel(tiny_kernel: Make, tmp_path: Path, tokens: int) -> None:
    """Not stopped first: its words come while the engine ends, and it goes on at the next boot all the same."""
    asked = {"question": "Tell me of swap and of checkpoints.", **ASKED, "max_tokens": 300, "detached": True}
    expected = tiny_kernel().spawn().ask(**asked).answer
    kernel = tiny_kernel(state=tmp_path / "state")
    process = kernel.spawn()
    list(islice((e for e in process.ask(**asked) if isinstance(e, Token)), tokens))
    kernel.close()
    turn = tiny_kernel(state=tmp_path / "state").process(process.pid).current
    assert turn is not None
    assert turn.answer == expected


def test_pages_come_from_wherever_they_are(tiny_kernel: Make, tmp_path: Path) -> None:
    """Of a window that was swapped to disk meanwhile, and into a kernel that has no host memory for it."""
    here = tiny_kernel(ram=0)
    process = here.spawn()
    process.ask("What is a page? " * 10, max_tokens=20).result
    here.engine.run(lambda: here.engine.pool.release(here.engine.pool.allocate(here.engine.pool.free)))
    here.pages.flush(10)
    assert here.pages.held[0] == 0 and here.pages.held[1] > 0
    resumed = tiny_kernel(ram=0).resume(process.checkpoint(tmp_path / "file"))
    assert resumed.ask("Go on.", max_tokens=10).usage.faults > 10


def test_a_fork_has_its_parents_pages(tiny_kernel: Make, tmp_path: Path) -> None:
    process = tiny_kernel().spawn()
    process.ask("What is a page? " * 10, max_tokens=20).result
    (fork,) = process.fork()
    resumed = tiny_kernel().resume(fork.checkpoint(tmp_path / "file"))
    assert resumed.path == fork.path
    asked = {"question": "Go on.", "max_tokens": 20, "temperature": 1.0}
    turn = resumed.ask(**asked)
    assert turn.answer == fork.ask(**asked).answer
    assert turn.usage.faults > 10


def test_other_weights_are_refused(tiny_kernel: Make, tmp_path: Path) -> None:
    path = tiny_kernel().spawn().checkpoint(tmp_path / "file")
    other = tiny_kernel(seed=1)
    with pytest.raises(CheckpointError, match="other weights"):
        other.resume(path)
    assert other.ps() == []


def test_a_turn_that_needs_a_larger_window_is_refused(tiny_kernel: Make, tmp_path: Path) -> None:
    process = tiny_kernel().spawn()
    stopped_midway(process, 24)
    path = process.checkpoint(tmp_path / "file")
    with pytest.raises(CheckpointError, match="does not fit"):
        tiny_kernel(window=64).resume(path)


@pytest.mark.parametrize(
    "harm",
    [
        lambda blob: blob[: len(blob) // 2],
        lambda blob: b"",
        lambda blob: blob[:-1] + bytes([blob[-1] ^ 1]),
        lambda blob: blob[:200] + bytes([blob[200] ^ 1]) + blob[201:],
        lambda blob: seal({}, "{}"),
        lambda blob: seal({}, "not JSON"),
        lambda blob: seal(unseal(blob)[0], unseal(blob)[1].replace('"process":', '"pro":')),
        lambda blob: seal({k: t[:, :-1] for k, t in unseal(blob)[0].items()}, unseal(blob)[1]),
        lambda blob: seal({**unseal(blob)[0], "keys": unseal(blob)[0]["keys"][:-1]}, unseal(blob)[1]),
    ],
)
def test_damaged_files_are_refused(tiny_kernel: Make, tmp_path: Path, harm: Callable[[bytes], bytes]) -> None:
    kernel = tiny_kernel()
    process = kernel.spawn()
    process.ask("What is a page?", max_tokens=30).result
    path = process.checkpoint(tmp_path / "file")
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(CheckpointError):
        kernel.resume(path)
    assert len(kernel.ps()) == 1


def test_pages_of_other_tokens_are_not_believed(tiny_kernel: Make, tmp_path: Path) -> None:
    """Whoever makes a file can say anything about its own window, and nothing about others' pages."""
    kernel = tiny_kernel()
    process = kernel.spawn()
    process.ask("What is a page?", max_tokens=30).result
    path = process.checkpoint(tmp_path / "file")
    tensors, about = unseal(path.read_bytes())
    keys = tensors["keys"].copy()
    keys[0] ^= 255
    path.write_bytes(seal({**tensors, "keys": keys}, about))
    fresh = tiny_kernel()
    fresh.resume(path)
    assert keys[0].tobytes() not in fresh.pages and keys[1].tobytes() in fresh.pages


def test_a_file_that_cannot_be_written_or_read(tiny_kernel: Make, tmp_path: Path) -> None:
    kernel = tiny_kernel()
    process = kernel.spawn()
    with pytest.raises(CheckpointError, match="cannot be written"):
        process.checkpoint("/dev/null/file")
    with pytest.raises(CheckpointError, match="cannot be read"):
        kernel.resume(tmp_path / "nowhere")
    process.close()
    with pytest.raises(CheckpointError, match="has ended"):
        process.checkpoint(tmp_path / "file")
    assert [p.name for p in tmp_path.iterdir()] == ["machine"]


def test_mail_signals_and_questions_come_along(scripted_kernel: Make, tmp_path: Path) -> None:
    def echo(window: str) -> str:
        return f"You said {window.rpartition('user')[2].partition('<')[0].strip()}."

    here = scripted_kernel(echo)
    process, other = here.spawn(), here.spawn()
    process.ask("one").result
    other.send(process.pid, {"page": 3}, label=UNTRUSTED)
    process.signal("STOP")
    turns = [process.ask(q, detached=True, queue=True) for q in ("two", "three")]
    there = scripted_kernel(echo)
    resumed = there.resume(process.checkpoint(tmp_path / "file"))
    assert standing(resumed) == standing(process)
    letter = resumed.receive(timeout=5)
    assert (letter.content, letter.label) == ({"page": 3}, UNTRUSTED)
    resumed.signal("CONT")
    there.loop.run(resumed.asettled())
    assert [e.answer for e in resumed.conversation] == ["You said one.", "You said two.", "You said three."]
    assert [e.turn for e in resumed.conversation] == [1, turns[0].number, turns[1].number]


def test_a_call_under_way_is_made_again_where_it_may_be(scripted_kernel: Make, tmp_path: Path) -> None:
    def script(window: str) -> str:
        return "I slept." if "awake" in window else call("shop.sleep", seconds=0.1)

    apps = {"shop": {"app": "tests.kernel.shop:Shop"}}
    here, there = scripted_kernel(script, apps=apps), scripted_kernel(script, apps=apps)
    process = here.spawn(grants=["shop.sleep"])
    turn = process.ask("Sleep.", detached=True)
    end = time.monotonic() + 20
    while (stands := standing(process).turn) is None or not stands.calls:
        assert time.monotonic() < end
    resumed = there.resume(process.checkpoint(tmp_path / "file"))
    again = resumed.current
    assert again is not None and again.number == turn.number
    assert [e.ok for e in again if isinstance(e, Result)] == [True]
    assert again.answer == turn.answer == "I slept."


def test_grants_that_are_not_here_are_refused(scripted_kernel: Make, tmp_path: Path) -> None:
    apps = {"shop": {"app": "tests.kernel.shop:Shop"}}
    process = scripted_kernel(str, apps=apps).spawn(grants=["shop.price"])
    path = process.checkpoint(tmp_path / "file")
    with pytest.raises(ConfigError):
        scripted_kernel(str).resume(path)
    assert scripted_kernel(str, apps=apps).resume(path).grants == process.grants
