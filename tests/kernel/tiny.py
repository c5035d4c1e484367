"""A tiny random decoder over bytes: the kernel's logic is tested on it, no download needed."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from llmos.drivers import cpu
from llmos.drivers.weights.adapter import MATRICES, Adapter, LowRank
from llmos.kernel.engine.runner import ModelRunner
from llmos.kernel.model import xla_ops
from llmos.kernel.model.config import ModelConfig
from llmos.kernel.model.decoder import Decoder
from llmos.kernel.model.load import Backend, Mode, Model, default_backend, operations
from llmos.kernel.model.lora import shapes
from llmos.kernel.model.rope import rope_tables

CONFIG = ModelConfig(
    family="llama", vocab=256, layers=2, dim=64, heads=4, kv_heads=2, head_dim=16, ffn=128,
    norm_eps=1e-5, rope_theta=1e4, context=1024,
)  # fmt: skip


def tiny_model(
    config: ModelConfig = CONFIG,
    *,
    seed: int = 0,
    backend: Backend | None = None,
    mode: Mode = "native",
    merged: Adapter | None = None,
) -> Model:
    """A random model; "native" on the CPU kernels means 8-bit blocks, elsewhere bf16. `merged`: an adapter that its
    matrices already hold."""
    backend = backend or default_backend()
    rng = np.random.default_rng(seed)

    def matrix(n: int, k: int, name: str = "", layer: int = 0) -> Any:
        values = rng.normal(0, 1.5 / np.sqrt(k), (n, k)).astype(np.float32)
        if merged is not None and (change := merged.layers[layer].get(name)) is not None:
            values += np.float32(merged.scale) * (change.b_NR @ change.a_RK)
        if backend == "cpu":
            return cpu.pack(values.view(np.uint8), "F32", (n, k), format="q8" if mode == "native" else mode)
        return xla_ops.Dense(jnp.asarray(values, jnp.float32 if mode == "f32" else jnp.bfloat16))

    def vector(n: int, mean: float = 1.0) -> Any:
        return jnp.asarray(rng.normal(mean, 0.1, n).astype(np.float32))

    c = config
    q, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
    layers = [
        {
            "attn_norm": vector(c.dim), "q": matrix(q, c.dim, "q", i), "k": matrix(kv, c.dim, "k", i),
            "v": matrix(kv, c.dim, "v", i), "o": matrix(c.dim, q, "o", i), "qkv_bias": vector(q + 2 * kv, 0.0),
            "mlp_norm": vector(c.dim), "gate": matrix(c.ffn, c.dim, "gate", i), "up": matrix(c.ffn, c.dim, "up", i),
            "down": matrix(c.dim, c.ffn, "down", i),
        }
        for i in range(c.layers)
    ]  # fmt: skip
    parameters = {
        "embed": matrix(c.vocab, c.dim), "head": matrix(c.vocab, c.dim), "final_norm": vector(c.dim), "layers": layers,
        "ropes": [tuple(map(jnp.asarray, rope_tables(c.rope_theta, None, None, c.head_dim, c.context)))],
        "rope_of_layer": [0] * c.layers,
    }  # fmt: skip
    graph, state = nnx.split(Decoder(config, parameters, operations(backend)))
    return Model(config, graph, state, f"tiny-{seed}-{mode}-{backend}", backend, mode)


def tiny_adapter(
    seed: int = 0,
    *,
    config: ModelConfig = CONFIG,
    rank: int = 4,
    names: tuple[str, ...] = MATRICES,
    strength: float = 0.5,
    **more: Any,
) -> Adapter:
    """A random adapter of `tiny_model`, which it changes about as much as `strength` times its weights."""
    rng, size = np.random.default_rng(1000 + seed), shapes(config)

    def change(n: int, k: int) -> LowRank:
        a = rng.normal(0, 1 / np.sqrt(k), (rank, k)).astype(np.float32)
        return LowRank(a, rng.normal(0, strength / np.sqrt(rank), (n, rank)).astype(np.float32))

    layers = tuple({name: change(*size[name]) for name in names} for _ in range(config.layers))
    return Adapter(**{"rank": rank, "alpha": float(rank), "base": "tiny", "layers": layers, **more})


def tiny_runner(**changes: Any) -> ModelRunner:
    """A runner small enough to exhaust: 63 usable pages of 8 tokens, windows of 256."""
    model = changes.pop("model", None) or tiny_model()
    return ModelRunner(model, **{"pages": 64, "page": 16, "window": 256, "budget": 64} | changes)
