"""Knowledge computed ahead of need: within its budget, the likeliest first, and found by those that read it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llmos.abi.errors import ConfigError
from llmos.abi.mount import Mount
from llmos.kernel.kernel import Kernel
from llmos.kernel.process import Process
from tests.memory.words_encoder import WordsEncoder

Make = Callable[..., Kernel]
GIB = 1 << 30


@pytest.fixture
def house(tmp_path: Path) -> Path:
    folder = tmp_path / "house"
    folder.mkdir()
    for room in ("attic", "cellar", "hall", "kitchen", "porch"):
        (folder / f"{room}.md").write_text(f"# The {room}\n\nThe door of the {room} is painted.\n")
    return folder


def spawned(make: Make, house: Path, **settings: object) -> Process:
    kernel = make(**settings)
    kernel.library.__dict__["encoder"] = WordsEncoder()
    return kernel.spawn([Mount(house)], fidelity="blend")


def computed(process: Process) -> int:
    assert process.kernel.blender is not None
    return process.kernel.blender.computed


def test_what_it_costs_is_told_first_and_is_what_is_taken(tiny_kernel: Make, house: Path) -> None:
    process = spawned(tiny_kernel, house)
    kernel = process.kernel
    before = kernel.pages.held[0]
    cost = kernel.fill(process.pid, GIB, look=True)
    assert (cost.passages, cost.of, cost.stored) == (5, 5, 0) and cost.seconds > 0
    assert kernel.pages.held[0] == before and computed(process) == 0
    told: list[tuple[int, int]] = []
    done = kernel.fill(process.pid, GIB, progress=lambda task, n, of, *_: told.append((n, of)))
    assert (done.passages, done.tokens, done.stopped) == (5, cost.tokens, False)
    assert cost.missing == cost.tokens and told[-1] == (5, 5)
    first = computed(process)
    assert 0.8 * cost.missing < first <= cost.missing  # passages that begin alike share their beginning
    assert kernel.pages.held[0] - before >= cost.bytes
    again = kernel.fill(process.pid, GIB)
    assert (again.stored, again.missing, again.tokens) == (5, 0, cost.tokens)
    assert computed(process) == first


def test_a_window_finds_it(tiny_kernel: Make, house: Path) -> None:
    process = spawned(tiny_kernel, house)
    process.kernel.fill(process.pid, GIB)
    before = computed(process)
    for question in ("Is the door of the hall painted?", "And the porch?"):
        process.ask(question, max_tokens=4).result
    assert computed(process) == before
    other = process.kernel.spawn([Mount(house)], fidelity="blend", instructions="Say no.")
    other.ask("Is the door of the hall painted?", max_tokens=4).result
    assert computed(process) > before  # it has another front


def test_it_outlives_its_kernel(tiny_kernel: Make, house: Path, tmp_path: Path) -> None:
    state = tmp_path / "kept"
    process = spawned(tiny_kernel, house, state=state)
    tokens = process.kernel.fill(process.pid, GIB).tokens
    process.kernel.close()
    later = spawned(tiny_kernel, house, state=state)
    cost = later.kernel.fill(later.pid, GIB, look=True)
    assert (cost.stored, cost.missing, cost.tokens) == (5, 0, tokens)
    changed = spawned(tiny_kernel, house, state=tmp_path / "other", seed=1)
    assert changed.kernel.fill(changed.pid, GIB, look=True).stored == 0


def test_the_likeliest_come_first_and_the_budget_holds(tiny_kernel: Make, house: Path) -> None:
    process = spawned(tiny_kernel, house)
    kernel = process.kernel
    whole = kernel.fill(process.pid, GIB, look=True)
    for _ in range(2):
        kernel.spawn().ask("the porch, the porch", max_tokens=2).result
    half = kernel.fill(process.pid, whole.bytes // 2)
    assert 0 < half.passages < 5 and half.bytes <= whole.bytes // 2
    before = computed(process)
    first = next(kernel.library.likely(process.mounts, ["the porch, the porch"], 1))
    assert first.source == "house/porch.md"
    rest = kernel.fill(process.pid, GIB)
    assert rest.stored == half.passages
    assert rest.missing == whole.tokens - half.tokens
    assert 0.8 * rest.missing < computed(process) - before <= rest.missing


def test_who_is_killed_stops_it_and_the_next_goes_on(tiny_kernel: Make, house: Path) -> None:
    process = spawned(tiny_kernel, house)
    kernel = process.kernel

    def stop(task: str, done: int, total: int, *_: object) -> None:
        if (task, done) == ("fill", 2):
            process.signal("KILL")
            deadline = time.monotonic() + 60
            while process.exit is None:
                assert time.monotonic() < deadline
                time.sleep(0.001)

    assert kernel.fill(process.pid, GIB, progress=stop).stopped
    later = kernel.spawn([Mount(house)], fidelity="blend")
    rest = kernel.fill(later.pid, GIB)
    assert rest.stored == 2 and not rest.stopped


def test_what_cannot_be_filled(tiny_kernel: Make, house: Path) -> None:
    process = spawned(tiny_kernel, house)
    kernel = process.kernel
    for pid, budget, why in (
        (process.pid, 10, "no passage"),
        (process.pid, 1 << 50, "more than the page store holds"),
        (kernel.spawn([Mount(house)]).pid, GIB, "as it stands"),
        (kernel.spawn(fidelity="blend").pid, GIB, "nothing mounted"),
    ):
        with pytest.raises(ConfigError, match=why):
            kernel.fill(pid, budget)
