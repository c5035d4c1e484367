"""The row contract at real shapes: one bit pattern for a token, whatever bucket, chunk or slot computed it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llmos.drivers import cpu
from llmos.drivers.weights import find, open_weights
from llmos.kernel.engine.batch import Batch
from llmos.kernel.engine.runner import ModelRunner
from llmos.kernel.model.load import load_model

pytestmark = pytest.mark.skipif(not cpu.available(), reason="promised on our CPU kernels, which are not built here")

TEXT = (Path(__file__).parents[2] / "kernel/engine/engine.py").read_text()


@pytest.fixture(scope="module", params=["smollm2-135m", "qwen2.5-coder-0.5b"])
def loaded(request: pytest.FixtureRequest, weights_path: Callable[[str], Path]) -> tuple[ModelRunner, list[int]]:
    weights = open_weights(find(str(weights_path(request.param))))
    runner = ModelRunner(load_model(weights, window=1024), pages=128, window=1024)
    return runner, weights.tokenizer().encode(TEXT)[: runner.buckets[-1]]


def run(runner: ModelRunner, tokens: list[int], chunks: list[int], slot: int, first_page: int) -> tuple[np.ndarray, ...]:
    """Last logits, and the KV of all tokens in every layer, after computing `tokens` in `chunks`."""
    count = -(-len(tokens) // runner.page)
    tables = np.zeros((runner.processes, runner.window // runner.page), np.int32)
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


def test_every_bucket_and_chunking_gives_the_bits_of_the_widest(loaded: tuple[ModelRunner, list[int]]) -> None:
    runner, tokens = loaded
    widest = len(tokens)
    logits, kv = run(runner, tokens, [widest], slot=0, first_page=1)
    chunkings = {f"bucket {b}": [b] * (widest // b) for b in runner.buckets[:-1]}
    chunkings["one by one at the end"] = [widest - 12, *[1] * 12]
    chunkings["ragged"] = [17, 63, 5, 100, widest - 185]
    for name, chunks in chunkings.items():
        again, kv_again = run(runner, tokens, chunks, slot=5, first_page=60)
        np.testing.assert_array_equal(kv, kv_again, err_msg=f"KV, {name}")
        np.testing.assert_array_equal(logits, again, err_msg=f"logits, {name}")
