"""Who leaves first, against a slow model of the same rule."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from llmos.memory.shelf import Shelf


def key(n: int) -> bytes:
    return bytes([n])


def test_what_was_used_again_stays() -> None:
    shelf = Shelf(3)
    assert [shelf.add(key(n), 1) for n in range(3)] == [[], [], []]
    shelf.touch(key(0))
    assert shelf.add(key(3), 1) == [key(1)]
    assert shelf.add(key(4), 1) == [key(2)]
    assert key(0) in shelf and shelf.held == 3 and len(shelf) == 3


def test_old_fame_fades() -> None:
    shelf = Shelf(2)
    for _ in range(5):
        shelf.add(key(0), 1)
    for n in range(1, 20):
        shelf.add(key(n), 1)
    assert key(0) not in shelf


def test_what_is_larger_than_the_shelf_leaves_itself() -> None:
    shelf = Shelf(2)
    shelf.add(key(0), 1)
    assert key(9) in shelf.add(key(9), 5)
    assert Shelf(0).add(key(1), 1) == [key(1)]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["add", "touch", "remove"]), st.integers(0, 12)), max_size=200))
def test_the_heap_and_a_sorted_list_agree(operations: list[tuple[str, int]]) -> None:
    shelf, limit = Shelf(7), 7
    model: dict[bytes, tuple[int, int, float, int]] = {}  # size, uses, worth, tick
    clock, ticks = 0.0, 0

    def touch(k: bytes, size: int) -> None:
        nonlocal ticks
        ticks += 1
        uses = model[k][1] + 1 if k in model else 1
        model[k] = (size, uses, clock + uses, ticks)

    for what, n in operations:
        k, size = key(n), 1 + n % 3
        if what == "add":
            new = k not in model
            touch(k, size)
            gone = []
            while new and sum(item[0] for item in model.values()) > limit:
                least = min(model, key=lambda k: model[k][2:])
                clock = model.pop(least)[2]
                gone.append(least)
            assert shelf.add(k, size) == gone
        elif k in model and what == "touch":
            touch(k, model[k][0])
            shelf.touch(k)
        elif k in model:
            del model[k]
            shelf.remove(k)
        assert list(shelf) == sorted(model, key=lambda k: model[k][2:])
        assert shelf.held == sum(item[0] for item in model.values()) <= limit
