"""Computing KV that can stand anywhere: keys before their rotation.

What: runs tokens through the decoder over pools of its own, and keeps each layer's keys twice: rotated, for the tokens
    behind to attend to, and as they were before.
Invariant: what comes out is what the engine's own steps would have computed for the same tokens at the same places, bit
    for bit, but for the rotation: the same operations write both, the second time with tables of no rotation. What
    the pools hold of a beginning is not computed again.
Interface: `Capture(model, bank, page, window, budget)`: `advance(tokens, budget, adapter)`, `holds(tokens)`,
    `read(start, end)`. The engine thread's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from llmos.drivers import cpu
from llmos.kernel.engine.runner import block_of, compute
from llmos.kernel.model.attention import AttentionBatch, AttentionSpec
from llmos.kernel.model.load import Model
from llmos.kernel.model.lora import Bank
from llmos.memory.chunks import KV

if TYPE_CHECKING:
    from llmos.drivers.weights.adapter import Adapter
    from llmos.kernel.engine.bank import AdapterBank


class _Twice:
    """A device's operations on pairs of pools; the second of each is written without rotation."""

    def __init__(self, ops: Any) -> None:
        self._ops = ops

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ops, name)

    def attention(
        self,
        qkv_TC: Array,
        pools: tuple[Array, Array],
        batch: AttentionBatch,
        spec: AttentionSpec,
        cos: Array,
        sin: Array,
        q_norm: Array | None = None,
        k_norm: Array | None = None,
    ) -> tuple[Array, tuple[Array, Array]]:
        run = partial(self._ops.attention, q_norm=q_norm, k_norm=k_norm)
        out, rotated = run(qkv_TC, pools[0], batch, spec, cos, sin)
        _, plain = run(qkv_TC, pools[1], batch, spec, jnp.ones_like(cos), jnp.zeros_like(sin))
        return out, (rotated, plain)


class Capture:
    """One sequence of tokens at a time."""

    def __init__(
        self, model: Model, bank: AdapterBank | None = None, *, page: int, window: int, budget: int
    ) -> None:
        """`bank` has the adapters; `window`: tokens that one sequence may have; `budget`: tokens that one call computes
        at most."""
        decoder = nnx.merge(model.graph, model.state)
        for layer in decoder.attention:
            layer.ops = _Twice(layer.ops)
        graph, _ = nnx.split(decoder)
        arrays, structure = jax.tree.flatten(model.state)
        block = block_of(model, budget)

        def forward(arrays: tuple[Array, ...], *rest: Any) -> Any:
            return compute(graph, jax.tree.unflatten(structure, arrays), *rest, block=block)[1]

        self._forward, self._arrays = jax.jit(forward, donate_argnums=1), tuple(arrays)
        pages = -(-window // page) + 1
        make = cpu.empty if model.backend == "cpu" else jnp.zeros
        shape = (pages, page, *model.slot_shape)
        self._pools = tuple(
            (make(shape, model.pool_type), make(shape, model.pool_type)) for _ in range(model.config.layers)
        )
        self._tables_BP = np.zeros((2, pages - 1), np.int32)  # of the one sequence, and of padding
        self._tables_BP[0] = np.arange(1, pages)
        self._budget, self._bank = budget, bank
        self._held: list[int] = []  # the tokens in the pools
        self._version = ""  # of the adapter that computed them

    def advance(self, tokens: Sequence[int], budget: int, adapter: Adapter | None = None) -> int:
        """Compute at most `budget` more of `tokens`; how many were computed. 0: all are there."""
        same, version = 0, "" if adapter is None else adapter.version
        if version != self._version:
            self._held, self._version = [], version
        for a, b in zip(self._held, tokens, strict=False):
            if a != b:
                break
            same += 1
        del self._held[same:]
        new = list(tokens[same : same + min(budget, self._budget)])
        if new:
            ids_XT = np.zeros((3 if adapter is None else 4, self._budget), np.int32)
            ids_XT[0, : len(new)] = new
            ids_XT[1, : len(new)] = np.arange(same, same + len(new))
            ids_XT[2, len(new) :] = 1
            tail = np.asarray([len(new), 0, 0], np.int32)  # and no logits
            bank: Bank = ()
            if adapter is not None:
                assert self._bank is not None
                ids_XT[3] = self._bank.slots([adapter])[0]
                bank = self._bank.factors
            self._pools = self._forward(self._arrays, self._pools, ids_XT, self._tables_BP, tail, bank)
            self._held += new
        return len(new)

    def holds(self, tokens: Sequence[int]) -> bool:
        """Whether all of `tokens` are computed."""
        return self._held[: len(tokens)] == list(tokens)

    def read(self, start: int, end: int) -> KV:
        """Unrotated KV [L, T, K, 2, H] of tokens `start` to `end` of those computed last."""
        page = self._pools[0][0].shape[1]
        first, last = start // page, -(-end // page)
        layers = [np.asarray(plain[1 + first : 1 + last]) for _, plain in self._pools]
        kv: KV = np.stack(
            [x.reshape(-1, *x.shape[2:])[start - first * page :][: end - start] for x in layers]
        )
        return kv
