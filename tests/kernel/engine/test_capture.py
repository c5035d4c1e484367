"""Keys that were stored unrotated and turned later equal fresh ones bit for bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from llmos.drivers import cpu
from llmos.kernel.engine.batch import Batch, empty_tables
from llmos.kernel.engine.capture import Capture
from llmos.kernel.engine.runner import ModelRunner
from llmos.kernel.model.load import Mode, Model
from llmos.kernel.model.rope import rope_tables, rotate_keys
from tests.kernel.tiny import CONFIG, tiny_model, tiny_runner

needs_kernels = pytest.mark.skipif(not cpu.available(), reason="the CPU kernels are not built here")
TOKENS = np.random.default_rng(1).integers(0, 256, 150).tolist()


def fresh(runner: ModelRunner, tokens: list[int], steps: tuple[int, ...] = (64, 64, 22)) -> np.ndarray:
    """KV [L, T, K, 2, H] as the engine's own steps leave it in the pool."""
    tables = empty_tables(runner)
    pages = -(-len(tokens) // runner.page)
    tables[0, :pages] = 1 + np.arange(pages)
    at = 0
    for count in steps:
        where = np.arange(at, min(at + count, len(tokens)), dtype=np.int32)
        ids = np.asarray(tokens, np.int32)[where]
        runner.forward(Batch(ids, where, np.zeros(len(where), np.int32), tables, np.zeros(0, np.int32)))
        at += count
    kv = runner.read_pages(range(1, 1 + pages)).swapaxes(0, 1)
    return kv.reshape(len(kv), -1, *kv.shape[3:])[:, : len(tokens)]


def turned(model: Model, kv: np.ndarray, at: int) -> np.ndarray:
    c = model.config
    cos, sin = rope_tables(c.rope_theta, None, None, c.head_dim, c.context)
    out = np.empty_like(kv)
    for layer in range(len(kv)):
        rotate_keys(kv[layer], cos[at : at + kv.shape[1]], sin[at : at + kv.shape[1]], out[layer])
    return out


@needs_kernels
@pytest.mark.parametrize("mode", ["native", "bf16", "f32"])
def test_stored_and_turned_keys_equal_fresh_ones(mode: Mode) -> None:
    model = tiny_model(backend="cpu", mode=mode)
    runner = tiny_runner(model=model)
    capture = Capture(model, page=16, window=256, budget=64)
    while capture.advance(TOKENS, 50):
        pass
    assert capture.holds(TOKENS)
    kv = capture.read(0, len(TOKENS))
    assert turned(model, kv, 0).tobytes() == fresh(runner, TOKENS).tobytes()
    assert capture.read(37, 90).tobytes() == kv[:, 37:90].tobytes()


def test_plain_xla_differs_by_its_own_rounding_at_most() -> None:
    model = tiny_model(backend="xla", mode="native")
    capture = Capture(model, page=16, window=256, budget=64)
    while capture.advance(TOKENS, 64):
        pass
    ours = turned(model, capture.read(0, len(TOKENS)), 0)
    theirs = fresh(tiny_runner(model=model), TOKENS)
    assert ours[:, :, :, 1].tobytes() == theirs[:, :, :, 1].tobytes()  # values
    differs = ours != theirs
    assert differs.mean() < 1e-3  # XLA may fuse a product into a sum, and so round once less
    assert np.abs(ours.astype(int) - theirs.astype(int))[differs].max(initial=0) <= 1


def test_a_common_beginning_is_computed_once() -> None:
    model = tiny_model()
    capture = Capture(model, page=16, window=256, budget=64)
    front, a, b = TOKENS[:20], TOKENS[20:50], TOKENS[50:90]
    assert capture.advance(front + a, 64) == 50
    assert capture.advance(front + b, 64) == 40  # the front is there
    alone = Capture(model, page=16, window=256, budget=64)
    alone.advance(front + b, 64)
    assert capture.read(20, 60).tobytes() == alone.read(20, 60).tobytes()
    assert capture.advance(front + b, 64) == 0


def test_what_stands_before_is_part_of_the_kv() -> None:
    model = tiny_model(replace(CONFIG, context=512))
    capture = Capture(model, page=16, window=256, budget=64)
    capture.advance(TOKENS[:60], 64)
    behind = capture.read(30, 60)
    capture.advance(TOKENS[30:60], 64)
    assert behind.tobytes() != capture.read(0, 30).tobytes()
