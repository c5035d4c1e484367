"""Where a model looks is what its attention does, and asking changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from llmos.drivers import cpu
from llmos.kernel.engine.engine import Engine
from llmos.kernel.engine.gaze import LOOKING, Gaze, attention
from llmos.kernel.engine.runner import ModelRunner
from llmos.kernel.engine.sequence import Finished, Request
from llmos.kernel.model.attention import AttentionBatch, AttentionSpec
from llmos.kernel.model.load import Backend, Model
from tests.kernel.tiny import CONFIG, tiny_adapter, tiny_model, tiny_runner

needs_kernels = pytest.mark.skipif(not cpu.available(), reason="the CPU kernels are not built here")
BACKENDS = ["xla", pytest.param("cpu", marks=needs_kernels)]
TOKENS = np.random.default_rng(3).integers(0, 256, 16).tolist()


class OneHot:
    """Operations whose values are which token they are of: what attention gives then are its weights."""

    def __init__(self, ops: Any) -> None:
        self._ops = ops

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ops, name)

    def attention(self, qkv_TC: Any, pool: Any, batch: Any, spec: Any, *rest: Any, **norms: Any) -> Any:
        T, K, H = qkv_TC.shape[0], spec.kv_heads, spec.head_dim
        v = jnp.tile(jnp.eye(T, H, dtype=jnp.float32), K)
        out, pool = self._ops.attention(
            jnp.concatenate([qkv_TC[:, : -K * H], v], 1), pool, batch, spec, *rest, **norms
        )
        self.weights_TNH = np.asarray(out).reshape(T, spec.heads, H)
        return out, pool


def by_the_device(model: Model, layer: int) -> np.ndarray:
    """Weights [T, T] of a layer, the mean of its heads, from the device's own attention."""
    decoder = nnx.merge(model.graph, model.state)
    decoder.attention[layer].ops = ops = OneHot(decoder.attention[layer].ops)
    T = len(TOKENS)
    batch = AttentionBatch(
        jnp.arange(T, dtype=jnp.int32),
        jnp.zeros(T, jnp.int32),
        jnp.asarray([[1], [0]], jnp.int32),
        jnp.int32(T),
    )
    pools = tuple(jnp.zeros((2, 16, *model.slot_shape), model.pool_type) for _ in range(layer + 1))
    decoder.hidden(jnp.asarray(TOKENS, jnp.int32), batch, pools)
    return ops.weights_TNH.mean(1)


def window(model: Model, tokens: list[int], **more: Any) -> tuple[ModelRunner, list[int], Finished]:
    """What an engine says behind `tokens`, and the last item of its stream; nobody steps any more."""
    runner = tiny_runner(model=model)
    engine = Engine(runner)
    stream = engine.submit(Request(tokens=tuple(tokens), max_tokens=8, draft=0, **more))
    said = [item.id for item in stream]
    engine.close()
    assert stream.finished is not None
    return runner, said, stream.finished


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sliding", [False, True])
def test_shares_are_the_attention_of_the_layer(backend: Backend, sliding: bool) -> None:
    config = replace(CONFIG, sliding_window=5, attention_softcap=2.0) if sliding else CONFIG
    model = tiny_model(config, backend=backend)
    runner, _, _ = window(model, TOKENS)
    weights = by_the_device(model, 1)[8:12]
    expected = weights.mean(0) - weights.min(0)  # what all look at alike is where attention rests
    expected[0] = 0
    found = Gaze(model, page=16, window=256).shares(runner, TOKENS, range(8, 12), [1])
    assert found.sum() == pytest.approx(1, abs=1e-5) and (found[12:] == 0).all()
    assert found == pytest.approx(expected / expected.sum(), abs=5e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_looking_changes_nothing(backend: Backend) -> None:
    model = tiny_model(backend=backend)
    runner, said, _ = window(model, TOKENS * 6)
    before = runner.read_pages(range(1, 8))
    Gaze(model, page=16, window=256).shares(runner, TOKENS * 6, range(96), range(1, 8))
    assert runner.read_pages(range(1, 8)).tobytes() == before.tobytes()
    assert window(model, TOKENS * 6, attend=96)[1] == said


def test_who_asks_is_told_at_the_end() -> None:
    model = tiny_model()
    assert window(model, TOKENS)[2].attention is None
    _, said, last = window(model, TOKENS, attend=len(TOKENS))
    assert last.attention is not None and len(last.attention) == len(TOKENS) + len(said) - 1
    assert last.attention[0] == 0 and last.attention.sum() == pytest.approx(1, abs=1e-5)
    adapted = window(model, TOKENS, attend=len(TOKENS), adapter=tiny_adapter(strength=2.0))[2].attention
    assert adapted is not None and not np.allclose(
        adapted[: len(TOKENS)], last.attention[: len(TOKENS)], atol=1e-3
    )
    assert (
        window(model, TOKENS, attend=len(TOKENS) + 8)[2].attention is None
    )  # nothing was written from there on


def test_few_tokens_look_however_many_were_written() -> None:
    at = np.arange(3, dtype=np.int32)
    q, k = np.zeros((3, 4, 16), np.float32), np.zeros((3, 2, 16), np.float32)
    spread = attention(q, k, at, AttentionSpec.of(CONFIG, 0))
    assert spread == pytest.approx(
        np.tril(np.ones((3, 3))) / np.asarray([[1], [2], [3]])
    )  # like keys, like shares
    model = tiny_model()
    runner, _, _ = window(model, TOKENS * 6)
    gaze = Gaze(model, page=16, window=256)
    seen: list[int] = []
    asked, gaze._asked = gaze._asked, lambda *args: (seen.append(len(args[2])), asked(*args))[1]  # type: ignore
    gaze.shares(runner, TOKENS * 6, range(2, 90), range(1, 8))
    gaze.shares(runner, TOKENS * 6, range(95, 96), range(1, 8))
    assert seen == [LOOKING, 1]
