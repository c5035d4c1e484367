"""Windows that are put together of pieces: the same tokens wherever the pieces come from, and nobody else's pages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from llmos.abi.errors import EngineError
from llmos.abi.labels import UNTRUSTED, USER
from llmos.drivers import cpu
from llmos.kernel import recompute
from llmos.kernel.engine.blend import Blender
from llmos.kernel.engine.engine import Engine
from llmos.kernel.engine.sampling import Randomness, Sample
from llmos.kernel.engine.sequence import Emitted, Request
from llmos.memory.pages import PageStore
from tests.kernel.tiny import tiny_model, tiny_runner

MODEL = tiny_model()
RNG = np.random.default_rng(5)
FRONT = RNG.integers(0, 256, 21).tolist()
PASSAGES = [RNG.integers(0, 256, n).tolist() for n in (37, 70, 16, 55)]
QUESTION = RNG.integers(0, 256, 19).tolist()
needs_kernels = pytest.mark.skipif(
    not cpu.available(), reason="XLA may fuse a product of the rotation into a sum"
)

Said = list[tuple[int, float | None]]


def window(order: tuple[int, ...] = (0, 1, 2, 3), last: tuple[int, ...] = (), **more: object) -> Request:
    """The passages of `order` as pieces, those of `last` computed behind them."""
    pieces = [FRONT, *(PASSAGES[i] for i in order)]
    tokens = [t for piece in (*pieces, *(PASSAGES[i] for i in last), QUESTION) for t in piece]
    ends = tuple(int(n) for n in np.cumsum([len(piece) for piece in pieces]))
    return Request(**{"tokens": tuple(tokens), "max_tokens": 12, "pieces": ends} | more)  # type: ignore[arg-type]


def exact(request: Request) -> Request:
    return Request(tokens=request.tokens, max_tokens=request.max_tokens, labels=request.labels)


@contextmanager
def engine(
    store: PageStore | None = None, *, swaps: bool = False, **changes: int
) -> Iterator[tuple[Engine, Blender]]:
    runner = tiny_runner(model=MODEL, **changes)
    mine = store or PageStore(None, ram=16 << 20, disk=0)
    blender = Blender(MODEL, runner, mine)
    made = Engine(runner, store=mine if swaps else None, blender=blender)
    try:
        yield made, blender
    finally:
        made.close()
        if store is None:
            mine.close()


def said(made: Engine, request: Request) -> Said:
    return [(e.id, e.logprob) for e in made.submit(request) if isinstance(e, Emitted)]


def test_stored_pieces_give_the_same_as_computed_ones() -> None:
    with engine() as (made, blender):
        cold = said(made, window())
        computed = blender.computed
        assert computed == len(FRONT) + sum(map(len, PASSAGES))  # the front once: it stays in the pools
        other = said(made, window((2, 0, 3, 1)))
        assert blender.computed == computed and other != cold
    with engine() as (fresh, _):
        assert said(fresh, window((2, 0, 3, 1))) == other
    with engine(budget=16) as (slow, _):
        assert said(slow, window()) == cold


@needs_kernels
def test_what_sees_all_that_stands_before_it_is_exact() -> None:
    for request in (window(()), window((1,)), window((), (0, 1)), window((3,), (0, 2))):
        with engine() as (made, _):
            blended = said(made, request)
            stream = made.submit(request)
            assert [(e.id, e.logprob) for e in stream] == blended
            assert stream.finished and stream.finished.cached_tokens >= request.pieces[-1] // 16 * 16
        with engine() as (made, _):
            assert said(made, exact(request)) == blended


@needs_kernels
@pytest.mark.parametrize("budget", [16, 64])
def test_pieces_of_which_all_is_computed_again_are_exact(
    budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = window((2, 0, 3), (1,))
    with engine() as (made, _):
        expected, as_shipped = said(made, exact(request)), said(made, request)
    monkeypatch.setattr(recompute, "BORDER", len(request.tokens))
    with engine(budget=budget) as (made, _):
        assert said(made, request) == expected != as_shipped


def test_blended_pages_are_nobody_elses() -> None:
    request = window()
    with engine() as (made, _):
        alone = said(made, exact(request))
    with engine() as (made, _):
        blended = said(made, request)
        assert said(made, exact(request)) == alone != blended
        assert said(made, request) == blended
    with engine(swaps=True, pages=24) as (made, _):
        for _ in range(2):
            assert said(made, request) == blended
            assert said(made, exact(request)) == alone
            made.submit(Request(tokens=(7,) * 250, max_tokens=6)).cancel()


def test_labels_keep_pieces_apart() -> None:
    mine = window(labels=((len(FRONT), USER), (len(window().tokens), USER)))
    theirs = window(labels=((len(FRONT), USER), (len(window().tokens), UNTRUSTED)))
    with engine() as (made, blender):
        a = said(made, mine)
        computed = blender.computed
        assert said(made, theirs) == a
        assert blender.computed > computed


def test_pieces_come_back_from_disk_and_damaged_ones_are_computed_again(tmp_path: Path) -> None:
    store = PageStore(tmp_path, ram=16 << 20, disk=16 << 20)
    with engine(store) as (made, _):
        expected = said(made, window())
    store.flush(10)
    store.close()

    store = PageStore(tmp_path, ram=16 << 20, disk=16 << 20)
    with engine(store) as (made, blender):
        assert said(made, window()) == expected and blender.computed == 0
    store.close()

    store = PageStore(tmp_path, ram=16 << 20, disk=16 << 20)
    victim = max(tmp_path.glob("??/*"), key=lambda path: path.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-7])
    with engine(store) as (made, blender):
        stream = made.submit(window())
        assert [(e.id, e.logprob) for e in stream] == expected
        assert blender.computed == len(FRONT) + 70  # the damaged passage, and what stands before it
        assert stream.finished is not None and stream.finished.lost == 1
    store.close()


def test_many_at_once_with_neighbours_and_seeds() -> None:
    seeded = dict(strategy=Sample(temperature=0.9), randomness=Randomness(3))
    requests = [
        window((0, 1, 2, 3)),
        window((3, 1), (2,), **seeded),
        exact(window()),
        window((2, 0)),
        window((1,), (0,)),
    ]
    expected = []
    for request in requests:
        with engine() as (made, _):
            expected.append(said(made, request))
    for changes in ({}, {"budget": 16}, {"pages": 30}):
        with engine(**changes) as (made, _):
            streams = [made.submit(request) for request in requests]
            got = [[(e.id, e.logprob) for e in stream] for stream in streams]
        assert got == expected


def test_a_cancelled_page_in_leaves_nothing_behind() -> None:
    with engine(budget=16) as (made, _):
        first = made.submit(window())
        first.cancel()
        assert said(made, window((1, 2))) and made.pool.leaked == 0


@pytest.mark.parametrize("ends", [(21, 21), (30, 10), (0, 20), (21, 218)])
def test_pieces_must_follow_each_other_and_leave_a_question(ends: tuple[int, ...]) -> None:
    request = window()
    assert len(request.tokens) == 218
    with engine() as (made, _), pytest.raises(EngineError, match="pieces"):
        made.submit(Request(tokens=request.tokens, max_tokens=1, pieces=ends))


def test_an_engine_without_a_store_says_so() -> None:
    made = Engine(tiny_runner(model=MODEL))
    with pytest.raises(EngineError, match="no store"):
        made.submit(window())
    made.close()
