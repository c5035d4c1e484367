"""The row contract at real shapes: one bit pattern for a token, whatever bucket, chunk or slot computed it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llmos.drivers import cpu
from llmos.drivers.weights import find, open_weights
from llmos.kernel.engine.batch import Batch, empty_tables
from llmos.kernel.engine.runner import BUCKETS, ModelRunner
from llmos.kernel.model.load import Mode, load_model

needs_kernels = pytest.mark.skipif(not cpu.available(), reason="the CPU kernels are not built here")

TEXT = (Path(__file__).parents[2] / "kernel/engine/engine.py").read_text()


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("smollm2-135m", "cpu"), marks=needs_kernels),
        pytest.param(("qwen2.5-coder-0.5b", "cpu"), marks=needs_kernels),
        pytest.param(("smollm2-135m", "xla"), marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
    ],
)
def loaded(
    request: pytest.FixtureRequest, weights_path: Callable[[str], Path]
) -> tuple[ModelRunner, list[int]]:
    name, backend = request.param
    weights = open_weights(find(str(weights_path(name))))
    mode: Mode = "f32" if backend == "xla" else "native"
    model = load_model(weights, window=1024, backend=backend, mode=mode)
    runner = ModelRunner(model, pages=128, window=1024)
    return runner, weights.tokenizer().encode(TEXT)[: runner.buckets[-1]]


def run(
    runner: ModelRunner, tokens: list[int], chunks: list[int], slot: int, first_page: int
) -> tuple[np.ndarray, ...]:
    """Last logits, and the KV of all tokens in every layer, after computing `tokens` in `chunks`."""
    count = -(-len(tokens) // runner.page)
    tables = empty_tables(runner)
    tables[slot, :count] = np.arange(first_page, first_page + count)
    at, logits = 0, None
    for n in chunks:
        logits = runner.forward(
            Batch(
                np.asarray(tokens[at : at + n], np.int32),
                np.arange(at, at + n, dtype=np.int32),
                np.full(n, slot, np.int32),
                tables,
                np.asarray([n - 1], np.int32),
            )
        )
        at += n
    assert at == len(tokens)
    kv = np.stack([np.asarray(pool[first_page : first_page + count]) for pool in runner.pools])
    return np.asarray(logits)[0], kv.reshape(kv.shape[0], -1, *kv.shape[3:])[:, : len(tokens)]


def test_every_bucket_and_chunking_gives_the_bits_of_the_widest(
    loaded: tuple[ModelRunner, list[int]],
) -> None:
    runner, tokens = loaded
    widest = len(tokens)
    logits, kv = run(runner, tokens, [widest], slot=0, first_page=1)
    chunkings = {f"bucket {b}": [b] * (widest // b) for b in BUCKETS[:-1]}
    chunkings["one by one at the end"] = [widest - 12, *[1] * 12]
    chunkings["ragged"] = [17, 63, 5, 100, widest - 185]
    for name, chunks in chunkings.items():
        again, kv_again = run(runner, tokens, chunks, slot=5, first_page=60)
        np.testing.assert_array_equal(kv, kv_again, err_msg=f"KV, {name}")
        np.testing.assert_array_equal(logits, again, err_msg=f"logits, {name}")
