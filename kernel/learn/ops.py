"""The decoder's operations as training wants them: differentiable, over rows of packed sequences, without a pool.

What: the four operations of `kernel.model.decoder.Ops` on T = R * S tokens, R rows of S, each row holding several
    sequences one behind the other; and the forms that a weight takes while it is trained or stands still.
Invariant: a token sees the tokens of its own segment up to itself, those of a beginning that it shares, and no other. A
    frozen matrix in blocks is widened for one product at a time, inside the layer that uses it; under rematerialisation
    nothing wide outlives a layer.
Interface: `TrainingOps(length)`; the weights `Dense`, `Blocks`, `Adapted`; `blocks_of(values)`; `product`, `dot`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import NDArray

from llmos.drivers import processor
from llmos.kernel.model import xla_ops
from llmos.kernel.model.attention import AttentionBatch, AttentionSpec
from llmos.kernel.model.lora import Change
from llmos.kernel.model.xla_ops import Dense, rms_norm

QUERIES = 128  # of a row whose attention is computed together
BLOCK = 32  # numbers that share a scale, as in GGUF's Q8_0


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class Blocks:
    """A frozen matrix [N, K] as int8 [N, K / 32, 32] and one f16 scale a block: bit for bit what Q8_0 stores."""

    values: Array
    scales: Array

    @property
    def outputs(self) -> int:
        return int(self.values.shape[0])

    def wide(self) -> Array:
        """f32 [N, K], for one product."""
        scaled = self.values.astype(jnp.float32) * self.scales[..., None].astype(jnp.float32)
        return scaled.reshape(*self.values.shape[:-2], -1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class Adapted:
    """A matrix and the low-rank term beside it: W x + scale * B (A x) (Hu et al. 2021, arXiv 2106.09685)."""

    base: Any  # Dense or Blocks
    a_RK: Array
    b_NR: Array
    scale: float = field(metadata={"static": True})

    @property
    def outputs(self) -> int:
        return int(self.base.outputs)


def blocks_of(values_NK: NDArray[np.float32]) -> Blocks:
    """A matrix in int8 blocks, rounded as GGUF's Q8_0 rounds."""
    grouped = values_NK.reshape(len(values_NK), -1, BLOCK)
    scales = np.abs(grouped).max(-1) / np.float32(127)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(scales > 0, np.float32(1) / scales, np.float32(0))
    return Blocks(
        jnp.asarray(np.rint(grouped * inverse[..., None]).astype(np.int8)),
        jnp.asarray(scales.astype(np.float16)),
    )


class TrainingOps:
    """Operations over rows of `length` tokens; slots of the batch are segments, and -1 is padding."""

    def __init__(self, length: int, hosts_T: Array | None = None, shared_T: Array | None = None) -> None:
        """`hosts_T`, `shared_T`: as `packing.Batch` has them."""
        self.length, self._hosts_T, self._shared_T = length, hosts_T, shared_T

    def embed(self, tokens_T: Array, table: Any, rows: Array) -> Array:
        """Rows of the table, f32 [T, D]; of one in blocks only these rows are widened."""
        if isinstance(table, Blocks):
            return Blocks(table.values[tokens_T], table.scales[tokens_T]).wide()
        return xla_ops.embed(tokens_T, table, rows)

    def rms_norm(self, x_TD: Array, weight_D: Array, rows: Array, *, eps: float) -> Array:
        return rms_norm(x_TD, weight_D, rows, eps=eps)

    def linear(
        self,
        x_TK: Array,
        weights: tuple[Any, ...],
        rows: Array,
        *,
        norm: Array | None = None,
        eps: float = 0.0,
        bias: Array | None = None,
        residual: Array | None = None,
        activation: str | None = None,
        change: Change | None = None,
    ) -> Array:
        """As `xla_ops.linear`; what an adapter changes is in the weights themselves."""
        assert change is None
        if norm is not None:
            x_TK = rms_norm(x_TK, norm, rows, eps=eps)
        parts_TN = [product(x_TK, w) for w in weights]
        return xla_ops.joined(parts_TN, bias=bias, residual=residual, activation=activation)

    def attention(
        self,
        qkv_TC: Array,
        pool: Any,
        batch: AttentionBatch,
        spec: AttentionSpec,
        cos: Array,
        sin: Array,
        q_norm: Array | None = None,
        k_norm: Array | None = None,
    ) -> tuple[Array, Any]:
        """Causal attention within segments: f32 [T, N * H], and the pool, which there is none of."""
        N, K, H, S = spec.heads, spec.kv_heads, spec.head_dim, self.length
        T, G = qkv_TC.shape[0], N // K
        q_TNH, k_TKH, v_TKH = xla_ops.rotated(qkv_TC, jnp.float32, batch, spec, cos, sin, q_norm, k_norm)
        q_RSKGH = q_TNH.reshape(T // S, S, K, G, H) * jnp.float32(spec.scale)
        k_RSKH, v_RSKH = k_TKH.reshape(T // S, S, K, H), v_TKH.reshape(T // S, S, K, H)
        seen_RSS = seen(batch, S, spec.window, self._hosts_T, self._shared_T)
        near = spec.window if self._hosts_T is None else 0  # a shared beginning may stand far before
        parts = []
        for first in range(0, S, QUERIES):  # what no query of a block can see is not computed
            end, least = min(first + QUERIES, S), max(0, first - near + 1) if near else 0
            score = jnp.einsum("rtkgh,rskh->rkgts", q_RSKGH[:, first:end], k_RSKH[:, least:end])
            if spec.softcap:
                score = jnp.tanh(score / spec.softcap) * spec.softcap
            here = seen_RSS[:, None, None, first:end, least:end]
            score = jnp.where(here, score, jnp.float32(-1e30))
            parts.append(
                jnp.einsum("rkgts,rskh->rtkgh", jax.nn.softmax(score, axis=-1), v_RSKH[:, least:end])
            )
        return jnp.concatenate(parts, axis=1).reshape(T, N * H), pool


def seen(
    batch: AttentionBatch,
    length: int,
    window: int,
    hosts_T: Array | None = None,
    shared_T: Array | None = None,
) -> Array:
    """Which tokens each token sees, bool [R, S, S]. Padding sees itself, so that nothing is divided by 0."""
    segments_RS = batch.slots_T.reshape(-1, length)
    positions_RS = batch.positions_T.reshape(-1, length)
    order = jnp.arange(length)
    earlier_1SS = order[None, :, None] >= order[None, None, :]
    mask = segments_RS[:, :, None] == segments_RS[:, None, :]
    if hosts_T is not None and shared_T is not None:
        hosts_RS, shared_RS = hosts_T.reshape(-1, length), shared_T.reshape(-1, length)
        begins = positions_RS[:, None, :] < shared_RS[:, :, None]
        mask |= (hosts_RS[:, :, None] == segments_RS[:, None, :]) & begins
    mask &= earlier_1SS
    if window:
        mask &= positions_RS[:, None, :] > positions_RS[:, :, None] - window
    return mask


def product(x_TK: Array, weight: Any) -> Array:
    """x Wᵀ, f32 [T, N]."""
    if isinstance(weight, Adapted):
        low_TR = product(x_TK, Dense(weight.a_RK))
        return product(x_TK, weight.base) + product(low_TR, Dense(weight.b_NR)) * jnp.float32(weight.scale)
    if isinstance(weight, Blocks) or weight.data.dtype != jnp.float32:  # what is trained is f32
        return _frozen(x_TK, weight)
    return dot(x_TK, weight.data, ((1,), (1,)))


@jax.custom_vjp
def _frozen(x_TK: Array, weight: Any) -> Array:
    """The product with a matrix that stands still: its gradient is one too, and not of mixed types."""
    return dot(x_TK, values_of(weight), ((1,), (1,)))


def _frozen_forward(x_TK: Array, weight: Any) -> tuple[Array, Any]:
    return _frozen(x_TK, weight), weight


def _frozen_backward(weight: Any, slope_TN: Array) -> tuple[Array, None]:
    return dot(slope_TN, values_of(weight), ((1,), (0,))), None


_frozen.defvjp(_frozen_forward, _frozen_backward)


def values_of(weight: Any) -> Array:
    """A weight's numbers [N, K] for a product; of one in blocks widened to `product_type`."""
    values: Array = weight.wide().astype(product_type()) if isinstance(weight, Blocks) else weight.data
    return values


def dot(a: Array, b: Array, over: tuple[tuple[int], tuple[int]]) -> Array:
    """A product with f32 sums; of a matrix that is no f32 in `product_type`."""
    wide = jnp.float32 if b.dtype == jnp.float32 else product_type()
    return lax.dot_general(
        a.astype(wide), b.astype(wide), (over, ((), ())), preferred_element_type=jnp.float32
    )


@functools.cache
def product_type() -> Any:
    """What a matrix that stands still is multiplied in: bf16 on accelerators and on processors with products of bf16
    (two to three times as fast there), else f32."""
    fast = jax.default_backend() != "cpu" or "avx512_bf16" in processor.flags()
    return jnp.bfloat16 if fast else jnp.float32


__all__ = ["Adapted", "Blocks", "Dense", "TrainingOps", "blocks_of", "dot", "product", "seen", "values_of"]
