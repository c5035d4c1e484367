"""The decoder's operations in plain JAX: reference of the CPU kernels, and the path on every other device.

What: embed, linear, rms_norm, attention, each the meaning of its fast twin in `llmos.drivers.cpu`.
Invariant: activations are f32 [T, ...]; rows past the valid count may hold anything and are never read.
    Keys are rounded to the pool's type before and after rotation, so a stored and then rotated key equals a
    fresh one bit for bit.
Interface: the four functions, `Dense` weights; `cpu_ops` offers the same names.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array, lax

from llmos.kernel.model.attention import AttentionBatch, AttentionSpec


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class Dense:
    """A weight matrix [N, K] in bf16 or f32. Products take activations rounded to the same type and
    accumulate in f32."""

    data: Array

    @property
    def outputs(self) -> int:
        return int(self.data.shape[0])


def embed(table: Dense, tokens_T: Array, rows: Array) -> Array:
    """Rows `tokens_T` of the table as f32 [T, D]."""
    return table.data[tokens_T].astype(jnp.float32)


def rms_norm(x_TD: Array, weight_D: Array, rows: Array, *, eps: float) -> Array:
    """x / rms(x) * weight over the last axis."""
    mean = jnp.mean(x_TD * x_TD, axis=-1, keepdims=True)
    return x_TD * lax.rsqrt(mean + eps) * jnp.broadcast_to(weight_D, x_TD.shape)


def linear(
    x_TK: Array,
    weights: tuple[Dense, ...],
    rows: Array,
    *,
    norm: Array | None = None,
    eps: float = 0.0,
    bias: Array | None = None,
    residual: Array | None = None,
    activation: str | None = None,
) -> Array:
    """norm(x) @ concat(weights)ᵀ + bias, then the gate, then the residual: f32 [T, N].

    With `activation` the outputs are two halves, gate and up: act(gate) * up, [T, N / 2].
    """
    if norm is not None:
        x_TK = rms_norm(x_TK, norm, rows, eps=eps)
    parts = [
        lax.dot_general(
            x_TK.astype(w.data.dtype),
            w.data,
            (((1,), (1,)), ((), ())),
            precision=lax.Precision.HIGHEST,
            preferred_element_type=jnp.float32,
        )
        for w in weights
    ]
    y_TN = jnp.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
    if bias is not None:
        y_TN = y_TN + jnp.broadcast_to(bias, y_TN.shape)
    if activation is not None:
        gate, up = jnp.split(y_TN, 2, axis=-1)
        act = jax.nn.silu(gate) if activation == "silu" else jax.nn.gelu(gate, approximate=True)
        y_TN = act * up
    return y_TN if residual is None else residual + y_TN


def _rotate(x_TKH: Array, cos_TH: Array, sin_TH: Array) -> Array:
    a, b = jnp.split(x_TKH, 2, axis=-1)
    cos, sin = cos_TH[:, None, :], sin_TH[:, None, :]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def _to_pool(x: Array, pool: Array) -> Array:
    """Round to the pool's type; bf16 is stored as its bits (XLA:CPU copies a donated bf16 pool)."""
    if pool.dtype == jnp.uint16:
        return lax.bitcast_convert_type(x.astype(jnp.bfloat16), jnp.uint16)
    return x.astype(pool.dtype)


def _from_pool(x: Array) -> Array:
    if x.dtype == jnp.uint16:
        return lax.bitcast_convert_type(x, jnp.bfloat16).astype(jnp.float32)
    return x.astype(jnp.float32)


def attention(
    qkv_TC: Array,
    pool: Array,
    batch: AttentionBatch,
    spec: AttentionSpec,
    cos: Array,
    sin: Array,
    q_norm: Array | None = None,
    k_norm: Array | None = None,
) -> tuple[Array, Array]:
    """Rotate, write keys and values to the pool, attend: ([T, N * H] f32, the pool).

    Args:
        qkv_TC: f32 [T, (N + 2K) * H], before rotation.
        pool: uint16 (bf16 bits) or f32 [pages, S, K, 2, H].
        cos, sin: f32 [positions, H / 2].
        q_norm, k_norm: f32 [H], an RMS norm a head before rotation.

    Softmax is accumulated page by page (online softmax, Milakov & Gimelshein 2018, arXiv 1805.02867), so the
    work and the result depend on a token's own pages only.
    """
    N, K, H, S = spec.heads, spec.kv_heads, spec.head_dim, pool.shape[1]
    T, G = qkv_TC.shape[0], N // K
    q, k, v = jnp.split(qkv_TC, [N * H, (N + K) * H], axis=-1)
    q_TNH, k_TKH, v_TKH = q.reshape(T, N, H), k.reshape(T, K, H), v.reshape(T, K, H)
    if q_norm is not None and k_norm is not None:
        q_TNH = rms_norm(q_TNH, q_norm, batch.rows, eps=spec.norm_eps)
        k_TKH = rms_norm(k_TKH, k_norm, batch.rows, eps=spec.norm_eps)
    cos_TH, sin_TH = cos[batch.positions_T], sin[batch.positions_T]
    q_TNH = _rotate(q_TNH, cos_TH, sin_TH)
    k_TKH = _rotate(_from_pool(_to_pool(k_TKH, pool)), cos_TH, sin_TH)

    table_TP = batch.tables_BP[batch.slots_T]
    page_T = jnp.take_along_axis(table_TP, (batch.positions_T // S)[:, None], axis=1)[:, 0]
    kv_TK2H = jnp.stack([_to_pool(k_TKH, pool), _to_pool(v_TKH, pool)], axis=2)
    pool = pool.at[page_T, batch.positions_T % S].set(kv_TK2H)

    q_TKGH = q_TNH.reshape(T, K, G, H) * jnp.float32(spec.scale)
    valid_T = jnp.arange(T) < batch.rows
    last_page = jnp.max(jnp.where(valid_T, batch.positions_T, 0)) // S

    def page_step(p: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        best_TKG, total_TKG, out_TKGH = carry
        kv = _from_pool(pool[lax.dynamic_index_in_dim(table_TP, p, axis=1, keepdims=False)])
        score = jnp.einsum(
            "tkgh,tskh->tkgs", q_TKGH, kv[:, :, :, 0], precision=lax.Precision.HIGHEST
        )
        if spec.softcap:
            score = jnp.tanh(score / spec.softcap) * spec.softcap
        position_TS = (p * S + jnp.arange(S, dtype=jnp.int32))[None, :]
        here = batch.positions_T[:, None]
        seen_TS = position_TS <= here
        if spec.window:
            seen_TS &= position_TS > here - spec.window
        score = jnp.where(seen_TS[:, None, None, :], score, -jnp.inf)
        new = jnp.maximum(best_TKG, score.max(-1))
        safe = jnp.where(jnp.isfinite(new), new, 0.0)
        weight = jnp.exp(score - safe[..., None])
        decay = jnp.exp(best_TKG - safe)
        out = out_TKGH * decay[..., None] + jnp.einsum(
            "tkgs,tskh->tkgh", weight, kv[:, :, :, 1], precision=lax.Precision.HIGHEST
        )
        return new, total_TKG * decay + weight.sum(-1), out

    start = (
        jnp.full((T, K, G), -jnp.inf, jnp.float32),
        jnp.zeros((T, K, G), jnp.float32),
        jnp.zeros((T, K, G, H), jnp.float32),
    )
    _, total_TKG, out_TKGH = lax.fori_loop(0, last_page + 1, page_step, start)
    return (out_TKGH / total_TKG[..., None]).reshape(T, N * H), pool
