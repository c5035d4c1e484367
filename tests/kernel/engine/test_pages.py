"""Page bookkeeping against a model of it: random operations, then nothing leaked."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmos.abi.errors import PoolExhausted
from llmos.kernel.engine.pages import PagePool, page_hash


def test_allocation_is_all_or_nothing() -> None:
    pool = PagePool(5, 4, "id")
    held = pool.allocate(3)
    with pytest.raises(PoolExhausted):
        pool.allocate(2)
    assert pool.free == 1 and 0 not in held
    pool.release(held)
    assert pool.leaked == 0


def test_published_pages_are_found_until_evicted_oldest_first() -> None:
    pool = PagePool(4, 4, "id")
    pages = pool.allocate(3)
    hashes = [page_hash(pool.root, [i]) for i in range(3)]
    for page, h in zip(pages, hashes, strict=True):
        pool.publish(page, h)
    pool.release(pages)
    assert pool.match(hashes) == pages
    pool.release(pages)
    pool.allocate(1)
    assert pool.match(hashes) == pages[:2]  # the deepest page of a prefix goes first


def test_identity_and_parent_enter_the_hash() -> None:
    assert PagePool(4, 4, "a").root != PagePool(4, 4, "b").root
    assert page_hash(b"x", [1, 2]) != page_hash(b"y", [1, 2])
    assert page_hash(b"x", [1, 2]) != page_hash(b"x", [2, 1])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=60))
def test_no_sequence_of_operations_leaks(operations: list[tuple[int, int]]) -> None:
    pool, held = PagePool(9, 4, "id"), list[list[int]]()
    for kind, n in operations:
        if kind == 0 and n <= pool.free:
            held.append(pool.allocate(n))
        elif kind == 1 and held:
            pool.release(held.pop(n % len(held)))
        elif kind == 2 and held:
            for i, page in enumerate(held[n % len(held)]):
                pool.publish(page, page_hash(pool.root, [n, i]))
        elif kind == 3:
            held.append(pool.match(page_hash(pool.root, [n, i]) for i in range(4)))
        assert pool.leaked == len({p for pages in held for p in pages})
    for pages in held:
        pool.release(pages)
    assert pool.leaked == 0
