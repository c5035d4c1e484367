"""Processes whose windows do not fit the pool together: swapped, told so, and none the wiser."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from llmos.kernel.kernel import Kernel

Make = Callable[..., Kernel]
QUESTION = "What is the difference between a page that is evicted and one that is swapped? " * 3


def test_swapped_processes_say_so_and_say_the_same(tiny_kernel: Make) -> None:
    """Four windows of about 25 pages in a pool of 40."""
    asked = {"question": QUESTION, "max_tokens": 120, "temperature": 0.9, "detached": True}
    roomy = tiny_kernel()
    expected = [roomy.spawn(seed=i).ask(**asked).answer for i in range(4)]
    kernel = tiny_kernel(pages=41)
    turns = [kernel.spawn(seed=i).ask(**asked) for i in range(4)]
    states = set[str]()
    while any(p.current is not None for p in kernel.table):
        states |= {line.state for line in kernel.ps()}
    assert [turn.answer for turn in turns] == expected
    assert "swapped" in states
    faults = [turn.usage.faults for turn in turns]
    assert sum(faults) == kernel.top().faults > 0 and kernel.top().preemptions > 0
    assert kernel.engine.pool.leaked == 0


def test_a_prefix_is_there_after_a_restart(tiny_kernel: Make, tmp_path: Path) -> None:
    state = tmp_path / "state"
    answers, usages = [], []
    for _ in range(2):
        kernel = tiny_kernel(state=state)
        turn = kernel.spawn().ask(QUESTION, max_tokens=30, temperature=0.9)
        answers.append(turn.answer)
        usages.append(turn.usage)
        kernel.close()
        kernel.close()  # idempotent
    assert answers[0] == answers[1]
    assert (usages[0].cached_tokens, usages[0].faults) == (0, 0)
    assert usages[1].faults * 16 == usages[1].cached_tokens > len(QUESTION)
    assert oct((state / "pages").stat().st_mode & 0o777) == "0o700"


def test_a_damaged_page_is_said_in_the_ledger(tiny_kernel: Make, tmp_path: Path) -> None:
    state = tmp_path / "state"
    kernel = tiny_kernel(state=state)
    answer = kernel.spawn().ask(QUESTION, max_tokens=30).answer
    kernel.close()
    files = list((state / "pages").glob("??/*"))
    for path in files:
        os.truncate(path, 100)
    kernel = tiny_kernel(state=state)
    turn = kernel.spawn().ask(QUESTION, max_tokens=30)
    assert turn.answer == answer
    assert turn.usage.lost == kernel.top().lost == 1, "the chain ends at the first"
    assert turn.usage.faults == 0


@pytest.mark.parametrize("state", [None, "state"])
def test_private_kernels_leave_no_pages_behind(tiny_kernel: Make, tmp_path: Path, state: str | None) -> None:
    kernel = tiny_kernel(state=None if state is None else tmp_path / state, ram=0)
    kernel.spawn().ask(QUESTION, max_tokens=30).result
    kernel.engine.run(
        lambda: kernel.engine.pool.release(kernel.engine.pool.allocate(kernel.engine.pool.free))
    )
    kernel.pages.flush(10)
    assert kernel.pages.held[1] > 0
    folder = kernel.state
    kernel.close()
    assert folder.exists() == (state is not None)


def test_without_room_for_swap_pages_are_computed_again(tiny_kernel: Make) -> None:
    kernel = tiny_kernel(pages=41, ram=0, swap=0)
    asked = {"question": QUESTION, "max_tokens": 60, "detached": True}
    turns = [kernel.spawn(seed=i).ask(**asked) for i in range(3)]
    assert len({turn.answer for turn in turns}) == 1
    assert kernel.top().faults == 0 and kernel.pages.held == (0, 0)
