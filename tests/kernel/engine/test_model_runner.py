"""The engine on a tiny random model and byte tokens: reuse, chunks, neighbours and preemption change nothing."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import numpy as np
import pytest

from llmos.drivers import cpu
from llmos.kernel.engine.batch import Batch, empty_tables
from llmos.kernel.engine.engine import Engine
from llmos.kernel.engine.runner import ModelRunner
from llmos.kernel.engine.sampling import Greedy, Randomness, Sample, Strategy
from llmos.kernel.engine.sequence import BlockingStream, Request
from llmos.kernel.model.load import Backend
from tests.kernel.tiny import tiny_model, tiny_runner

PROMPT = tuple(b"The page table maps a window's segments to pages of the pool.")
STRATEGIES = [Greedy(), Sample(temperature=0.9, top_k=50, top_p=0.95), Sample(temperature=1.3, min_p=0.02)]
needs_kernels = pytest.mark.skipif(not cpu.available(), reason="the CPU kernels are not built here")
BACKENDS = ["xla", pytest.param("cpu", marks=needs_kernels)]


@pytest.fixture(scope="module", params=BACKENDS)
def runner(request: pytest.FixtureRequest) -> ModelRunner:
    return tiny_runner(model=tiny_model(backend=request.param))


@pytest.fixture
def engine(runner: ModelRunner) -> Iterator[Engine]:
    engine = Engine(runner)
    yield engine
    engine.close()
    assert engine.pool.leaked == 0


def request(
    tokens: tuple[int, ...], strategy: Strategy, count: int = 24, seed: int = 5, top: int = 0
) -> Request:
    return Request(tokens=tokens, max_tokens=count, strategy=strategy, randomness=Randomness(seed), top=top)


def read(stream: BlockingStream) -> list[int]:
    return [item.id for item in stream]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_same_alone_and_among_31_others(runner: ModelRunner, strategy: Strategy) -> None:
    def run(neighbours: int) -> list[int]:
        engine = Engine(runner)
        others = [engine.submit(request(PROMPT[i : i + 20], Greedy(), 20)) for i in range(neighbours)]
        mine = read(engine.submit(request(PROMPT, strategy)))
        for other in others:
            other.cancel()
            read(other)
        engine.close()
        return mine

    assert run(0) == run(31)


@pytest.mark.parametrize("chunks", [[60], [1] * 60, [16, 44], [7, 30, 23], [59, 1]])
def test_logits_are_bit_equal_whatever_the_chunks(runner: ModelRunner, chunks: list[int]) -> None:
    tokens = np.asarray(PROMPT[:60], np.int32)

    def logits(chunks: list[int], slot: int) -> np.ndarray:
        tables = empty_tables(runner)
        tables[slot, :8] = np.arange(1, 9)
        at, last = 0, None
        for n in chunks:
            where = np.arange(at, at + n, dtype=np.int32)
            rows = np.asarray([n - 1], np.int32)
            last = runner.forward(Batch(tokens[at : at + n], where, np.full(n, slot, np.int32), tables, rows))
            at += n
        return np.asarray(last)[0]

    np.testing.assert_array_equal(logits(chunks, slot=3), logits([20] * 3, slot=0))


@pytest.mark.parametrize("backend", BACKENDS)
def test_reused_prefixes_and_preemption_are_token_identical(backend: Backend) -> None:
    model = tiny_model(backend=backend)
    roomy = Engine(tiny_runner(model=model))
    prompts = [PROMPT[:20] + (i, i + 1) for i in range(10)]
    expected = [read(roomy.submit(request(p, STRATEGIES[1], 60))) for p in prompts]
    again = [roomy.submit(request(p, STRATEGIES[1], 60)) for p in prompts]
    assert [read(s) for s in again] == expected
    assert all(s.finished is not None and s.finished.cached_tokens == 16 for s in again)
    roomy.close()
    cramped = Engine(tiny_runner(model=model, pages=20))
    streams = [cramped.submit(request(p, STRATEGIES[1], 60)) for p in prompts]
    assert [read(s) for s in streams] == expected
    assert cramped.counters.preemptions > 0
    cramped.close()


def test_nothing_is_compiled_after_warm_up() -> None:
    runner = tiny_runner()
    runner.warm_up()
    compiled = runner.compilations
    assert compiled == len(runner.buckets)
    engine = Engine(runner)
    for count in (1, 2, 15, 16, 17, 60):
        read(engine.submit(request(PROMPT[:count], Greedy(), 3)))
    streams = [engine.submit(request(PROMPT[i : i + 9], Greedy(), 9)) for i in range(32)]
    for stream in streams:
        read(stream)
    engine.close()
    assert runner.compilations == compiled


def test_top_alternatives_are_sorted_log_probabilities(engine: Engine) -> None:
    (item,) = engine.submit(request(PROMPT, Greedy(), 1, top=5))
    logprobs = [p for _, p in item.top]
    assert len(item.top) == 5 and logprobs == sorted(logprobs, reverse=True)
    assert item.top[0] == (item.id, pytest.approx(item.logprob))
    assert sum(np.exp(logprobs)) <= 1 + 1e-5


def test_step_time_does_not_grow_with_the_pool() -> None:
    """A pool that is copied in each step would cost milliseconds a hundred megabytes."""

    def step_s(pages: int) -> float:
        runner = tiny_runner(pages=pages)
        batch = Batch(
            np.asarray([1], np.int32),
            np.asarray([0], np.int32),
            np.asarray([0], np.int32),
            np.ones_like(empty_tables(runner)),
            np.asarray([0], np.int32),
        )
        times = []
        for _ in range(40):
            from time import perf_counter

            start = perf_counter()
            jax.block_until_ready(runner.forward(batch))
            times.append(perf_counter() - start)
        return float(np.min(times))

    small, large = step_s(64), step_s(64 * 1024)  # 256 KiB and 256 MiB a layer
    assert large < small * 3 + 2e-3


@needs_kernels
@pytest.mark.parametrize("mode", ["native", "bf16", "f32"])
def test_kernels_and_plain_xla_agree(mode: str) -> None:
    def first_logits(backend: Backend) -> np.ndarray:
        runner = tiny_runner(model=tiny_model(backend=backend, mode=mode))  # type: ignore[arg-type]
        tables = empty_tables(runner)
        tables[0] = np.arange(1, 17)
        n = len(PROMPT)
        batch = Batch(
            np.asarray(PROMPT, np.int32), np.arange(n, dtype=np.int32), np.zeros(n, np.int32), tables,
            np.asarray([n - 1], np.int32),
        )  # fmt: skip
        return np.asarray(runner.forward(batch))[0]

    ours, plain = first_logits("cpu"), first_logits("xla")
    tolerance = {"f32": 1e-4, "bf16": 0.1, "native": 0.3}[mode]
    np.testing.assert_allclose(ours, plain, atol=tolerance)
    assert np.corrcoef(ours, plain)[0, 1] > 0.995
