"""The window never holds more than its budget, and never cuts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.abi.errors import WindowOverflow
from llmos.abi.labels import STORE, UNTRUSTED, USER, Integrity, Label
from llmos.memory.window import Segment, SegmentKind, Window

KINDS: list[SegmentKind] = ["system", "user", "assistant", "syscall", "result", "knowledge"]


def segment(kind: SegmentKind, size: int, **more: object) -> Segment:
    return Segment(kind, tuple(range(size)), **more)  # type: ignore[arg-type]


def test_segments_keep_their_order() -> None:
    window = Window(100)
    question, fact = Segment("user", (1, 2)), Segment("knowledge", (3,))
    system = Segment("system", (7, 8, 9))
    window.add(question)
    window.add(fact, system)
    assert window.segments == (question, fact, system)
    assert window.tokens == [1, 2, 3, 7, 8, 9]
    assert [window.offset(s) for s in window] == [0, 2, 3]
    assert (window.used, window.free, window.fits(94), window.fits(95)) == (6, 94, True, False)


def test_overflow_says_what_how_much_and_what_to_do_and_changes_nothing() -> None:
    window = Window(10)
    window.add(segment("system", 4), segment("knowledge", 5))
    with pytest.raises(WindowOverflow) as caught:
        window.add(segment("user", 1), segment("knowledge", 3))
    assert str(caught.value) == (
        "4 tokens of user and knowledge do not fit the window. 9 of its 10 tokens are used, 5 of them by the "
        "largest, a knowledge segment; 1 are free. retrieve fewer passages, or give the process a larger window."
    )
    assert (window.used, len(window)) == (9, 2)


def test_taint_is_the_join_of_what_was_read() -> None:
    window = Window(100)
    assert window.taint == USER
    window.add(segment("user", 1), segment("knowledge", 1, label=STORE))
    assert window.taint == STORE
    shared = segment("knowledge", 1, label=Label(Integrity.UNTRUSTED, frozenset({"me"})))
    window.add(shared)
    assert window.taint == Label(Integrity.UNTRUSTED, frozenset({"me"}))
    window.remove(shared)
    window.add(segment("result", 1, label=UNTRUSTED))
    assert window.taint == UNTRUSTED


def test_pinned_and_foreign_segments_do_not_leave() -> None:
    window = Window(10)
    pinned = segment("system", 2, pin=True)
    window.add(pinned)
    with pytest.raises(ValueError, match="never leaves"):
        window.remove(pinned)
    with pytest.raises(ValueError, match="no such"):
        window.remove(segment("user", 2))
    with pytest.raises(ValueError, match="once"):
        window.add(pinned)
    assert window.used == 2


@given(st.integers(1, 60), st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 30), st.booleans())))
def test_the_budget_holds_whatever_is_done(budget: int, steps: list[tuple[SegmentKind, int, bool]]) -> None:
    window = Window(budget)
    held: list[Segment] = []
    for kind, size, leaves in steps:
        new = segment(kind, size)
        try:
            window.add(new)
            held.append(new)
        except WindowOverflow:
            assert window.used + size > budget
        if leaves and held:
            window.remove(held.pop(len(held) // 2))
        assert window.used == sum(map(len, held)) == len(window.tokens) <= budget
        assert set(window.segments) == set(held)
