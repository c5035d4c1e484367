"""Pool bytes go to the host and come back bit for bit, and the pool is never copied."""

from __future__ import annotations

from time import perf_counter

import numpy as np
import pytest

from llmos.drivers import cpu
from llmos.kernel.engine.batch import Batch, empty_tables
from llmos.kernel.engine.runner import ModelRunner
from llmos.kernel.engine.transfer import CHUNK, Transfer
from llmos.kernel.model.load import Backend
from tests.kernel.tiny import tiny_model, tiny_runner

needs_kernels = pytest.mark.skipif(not cpu.available(), reason="the CPU kernels are not built here")
KINDS = [
    ("xla", "native", True),
    ("xla", "native", False),
    pytest.param("cpu", "native", True, marks=needs_kernels),
    pytest.param("cpu", "f32", False, marks=needs_kernels),
]


def runner(backend: Backend, mode: str, in_place: bool, pages: int = 128) -> ModelRunner:
    """`in_place` False takes the way of accelerators: programs that gather and scatter."""
    made = tiny_runner(model=tiny_model(backend=backend, mode=mode), pages=pages)  # type: ignore[arg-type]
    made._transfer._in_place = in_place
    return made


def step(runner: ModelRunner, first_page: int = 1) -> np.ndarray:
    """Logits after 40 tokens in three pages from `first_page` on."""
    tables = empty_tables(runner)
    tables[0, :3] = first_page + np.arange(3)
    where = np.arange(40, dtype=np.int32)
    batch = Batch(where % 250, where, np.zeros(40, np.int32), tables, np.asarray([39], np.int32))
    return np.asarray(runner.forward(batch))[0]


@pytest.mark.parametrize(("backend", "mode", "in_place"), KINDS)
def test_a_round_trip_is_bit_identical(backend: Backend, mode: str, in_place: bool) -> None:
    made = runner(backend, mode, in_place)
    step(made)
    whole = made.read_pages(range(128))
    assert whole[1:3].view(np.uint8).any()
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, (CHUNK + 5, made._transfer.page_bytes), np.uint8)
    written = data.view(whole.dtype).reshape(len(data), *whole.shape[1:])
    order = rng.permutation(np.arange(1, 128))[: CHUNK + 5].tolist()
    made.write_pages(order, written)
    assert made.read_pages(order).tobytes() == data.tobytes()
    rest = sorted(set(range(1, 128)) - set(order))
    assert made.read_pages(rest).tobytes() == whole[rest].tobytes()


@pytest.mark.parametrize(("backend", "mode", "in_place"), KINDS)
def test_kv_that_was_moved_gives_the_same_logits(backend: Backend, mode: str, in_place: bool) -> None:
    made, fresh = runner(backend, mode, in_place), runner(backend, mode, in_place)
    expected = step(made)
    fresh.write_pages([50, 7, 9], made.read_pages([1, 2, 3]))
    tables = empty_tables(fresh)
    tables[4, :3] = [50, 7, 9]
    last = np.asarray([39], np.int32)
    batch = Batch(last % 250, last, np.asarray([4], np.int32), tables, np.asarray([0], np.int32))
    np.testing.assert_array_equal(np.asarray(fresh.forward(batch))[0], expected)


def test_pages_of_another_shape_are_refused() -> None:
    made = tiny_runner()
    with pytest.raises(ValueError, match="is not 2 pages"):
        made.write_pages([1, 2], made.read_pages([1]))


@needs_kernels
def test_poisoned_pages_are_nan_and_harm_no_others() -> None:
    made = tiny_runner(model=tiny_model(backend="cpu"))
    expected = step(made)
    made.poison(range(1, 64))
    assert np.isnan((made.read_pages([5]).astype(np.uint32) << 16).view(np.float32)).all()
    np.testing.assert_array_equal(step(made), expected)


@pytest.mark.parametrize(("backend", "mode", "in_place"), KINDS)
def test_time_does_not_grow_with_the_pool(backend: Backend, mode: str, in_place: bool) -> None:
    """Neither that of a transfer nor that of the step after it: a copied pool would take 100 ms and more."""

    def best(pages: int) -> float:
        made, times = runner(backend, mode, in_place, pages), []
        for _ in range(8):
            start = perf_counter()
            made.write_pages([3, 4], made.read_pages([1, 2]))
            step(made)
            times.append(perf_counter() - start)
        return min(times)

    small, large = best(64), best(64 * 1024)  # 256 KiB and 256 MiB a layer
    assert large < small * 3 + 5e-3


def test_a_page_lies_in_one_piece() -> None:
    made = tiny_runner()
    page = made.read_pages([1, 2])[1]
    assert page.flags.c_contiguous and page.nbytes == made._transfer.page_bytes
    assert page.nbytes == ModelRunner.page_bytes(tiny_model(), 16)
    assert Transfer(made.pools).shape == page.shape
