"""The decoder's operations in plain JAX: reference of the CPU kernels, and the path on every other device.

What: embed, linear, rms_norm, attention, each the meaning of its fast twin in `llmos.drivers.cpu`.
Invariant: activations are f32 [T, ...]; rows past the valid count may hold anything and are never read.
    Keys are rounded to the pool's type before and after rotation, so a stored and then rotated key equals a
    fresh one bit for bit.
Interface: the four functions, `Dense` weights; `cpu_ops` offers the same names.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from llmos.kernel.model.attention import AttentionBatch, AttentionSpec
from llmos.kernel.model.lora import Change


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class Dense:
    """A weight matrix [N, K] in bf16 or f32. Products take activations rounded to the same type and
    accumulate in f32."""

    data: Array

    @property
    def outputs(self) -> int:
        return int(self.data.shape[0])


def embed(tokens_T: Array, table: Dense, rows: Array) -> Array:
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
    change: Change | None = None,
) -> Array:
    """norm(x) @ concat(weights)ᵀ + bias, then the gate, then the residual: f32 [T, N].

    With `activation` the outputs are two halves, gate and up: act(gate) * up, [T, N / 2]. `change` is what adapters add
    to the products.
    """
    if norm is not None:
        x_TK = rms_norm(x_TK, norm, rows, eps=eps)
    parts_TN = [
        lax.dot_general(
            x_TK.astype(w.data.dtype),
            w.data,
            (((1,), (1,)), ((), ())),
            precision=lax.Precision.HIGHEST,
            preferred_element_type=jnp.float32,
        )
        for w in weights
    ]
    if change is not None:
        parts_TN = [
            jnp.where(changed_T[:, None], y + more, y)
            for y, (changed_T, more) in zip(parts_TN, low_rank(x_TK, change), strict=True)
        ]
    return joined(parts_TN, bias=bias, residual=residual, activation=activation)


def joined(
    parts_TN: list[Array], *, bias: Array | None, residual: Array | None, activation: str | None
) -> Array:
    """What follows the products: the bias, then the gate, then the residual; `linear` says the shapes."""
    # Parts are joined last: on a mesh each is split by itself, and gate and up need no joining at all.
    if bias is not None:
        ends = list(accumulate(y.shape[-1] for y in parts_TN[:-1]))
        parts_TN = [
            y + jnp.broadcast_to(b, y.shape) for y, b in zip(parts_TN, jnp.split(bias, ends), strict=True)
        ]
    if activation is not None:
        gate, up = parts_TN if len(parts_TN) == 2 else jnp.split(parts_TN[0], 2, axis=-1)
        act = jax.nn.silu(gate) if activation == "silu" else jax.nn.gelu(gate, approximate=True)
        parts_TN = [act * up]
    y_TN = jnp.concatenate(parts_TN, axis=-1) if len(parts_TN) > 1 else parts_TN[0]
    return y_TN if residual is None else residual + y_TN


def low_rank(x_TK: Array, change: Change) -> list[tuple[Array, Array]]:
    """For each matrix of a product, which tokens' adapters change it [T], and by how much f32 [T, N]; x is normed."""
    f, slots_T = change.factors, change.slots_T
    used = jnp.arange(f.a_SMRK.shape[2], dtype=jnp.int32)[None, None, :] < f.ranks_SM[:, :, None]  # [S, M, R]
    parts = []
    for m, b_SRN in enumerate(f.b_SRN):
        a_TRK, b_TRN = from_pool(f.a_SMRK[slots_T, m]), from_pool(b_SRN[slots_T])
        u_TR = jnp.einsum("tk,trk->tr", x_TK, a_TRK, precision=lax.Precision.HIGHEST)
        u_TR = jnp.where(used[slots_T, m], u_TR, 0.0)
        more_TN = jnp.einsum("tr,trn->tn", u_TR, b_TRN, precision=lax.Precision.HIGHEST)
        parts.append((f.ranks_SM[slots_T, m] > 0, more_TN))
    return parts


def _rotate(x_TKH: Array, cos_TH: Array, sin_TH: Array) -> Array:
    a, b = jnp.split(x_TKH, 2, axis=-1)
    cos, sin = cos_TH[:, None, :], sin_TH[:, None, :]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def to_pool(x: Array, pool_type: Any) -> Array:
    """Round to the pool's type; on CPU bf16 is stored as its bits (XLA:CPU copies a donated bf16 pool)."""
    if pool_type == jnp.uint16:
        return lax.bitcast_convert_type(x.astype(jnp.bfloat16), jnp.uint16)
    return x.astype(pool_type)


def from_pool(x: Array) -> Array:
    """What the pool holds, as f32."""
    if x.dtype == jnp.uint16:
        return lax.bitcast_convert_type(x, jnp.bfloat16).astype(jnp.float32)
    return x.astype(jnp.float32)


def rotated(
    qkv_TC: Array,
    pool_type: Any,
    batch: AttentionBatch,
    spec: AttentionSpec,
    cos: Array,
    sin: Array,
    q_norm: Array | None,
    k_norm: Array | None,
) -> tuple[Array, Array, Array]:
    """Queries [T, N, H], keys and values [T, K, H], f32: normed a head, rotated to their positions."""
    N, K, H = spec.heads, spec.kv_heads, spec.head_dim
    T = qkv_TC.shape[0]
    q, k, v = jnp.split(qkv_TC, [N * H, (N + K) * H], axis=-1)
    q_TNH, k_TKH, v_TKH = q.reshape(T, N, H), k.reshape(T, K, H), v.reshape(T, K, H)
    if q_norm is not None and k_norm is not None:
        q_TNH = rms_norm(q_TNH, q_norm, batch.rows, eps=spec.norm_eps)
        k_TKH = rms_norm(k_TKH, k_norm, batch.rows, eps=spec.norm_eps)
    cos_TH, sin_TH = cos[batch.positions_T], sin[batch.positions_T]
    stored = from_pool(to_pool(k_TKH, pool_type))
    return _rotate(q_TNH, cos_TH, sin_TH), _rotate(stored, cos_TH, sin_TH), v_TKH


def store(k_TKH: Array, v_TKH: Array, pool: Array, batch: AttentionBatch) -> Array:
    """The pool with the step's keys and values in their pages."""
    S = pool.shape[1]
    table_TP = batch.tables_BP[batch.slots_T]
    page_T = jnp.take_along_axis(table_TP, (batch.positions_T // S)[:, None], axis=1)[:, 0]
    kv_TK2H = jnp.stack([to_pool(k_TKH, pool.dtype), to_pool(v_TKH, pool.dtype)], axis=2)
    return pool.at[page_T, batch.positions_T % S].set(kv_TK2H)


def attention(
    qkv_TC: Array,
    pool: Array,
    batch: AttentionBatch,
    spec: AttentionSpec,
    cos: Array,
    sin: Array,
    q_norm: Array | None = None,
    k_norm: Array | None = None,
    *,
    pages: int = 1,
) -> tuple[Array, Array]:
    """Rotate, write keys and values to the pool, attend: ([T, N * H] f32, the pool).

    Args:
        qkv_TC: f32 [T, (N + 2K) * H], before rotation.
        pool: uint16 (bf16 bits), bf16 or f32 [pages, S, K, 2, H].
        cos, sin: f32 [positions, H / 2].
        q_norm, k_norm: f32 [H], an RMS norm a head before rotation.
        pages: how many are read at once; part of the result's rounding.

    Softmax is accumulated block by block (online softmax, Milakov & Gimelshein 2018, arXiv 1805.02867), so the
    work and the result depend on a token's own pages only.
    """
    N, K, H, S = spec.heads, spec.kv_heads, spec.head_dim, pool.shape[1]
    T, G, block = qkv_TC.shape[0], N // K, pages * S
    q_TNH, k_TKH, v_TKH = rotated(qkv_TC, pool.dtype, batch, spec, cos, sin, q_norm, k_norm)
    pool = store(k_TKH, v_TKH, pool, batch)

    q_TKGH = q_TNH.reshape(T, K, G, H) * jnp.float32(spec.scale)
    valid_T = jnp.arange(T) < batch.rows
    last_block = jnp.max(jnp.where(valid_T, batch.positions_T, 0)) // block
    tables_BP = jnp.pad(batch.tables_BP, ((0, 0), (0, -batch.tables_BP.shape[1] % pages)))
    table_TP = tables_BP[batch.slots_T]

    def block_step(i: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        best_TKG, total_TKG, out_TKGH = carry
        kv = from_pool(pool[lax.dynamic_slice_in_dim(table_TP, i * pages, pages, axis=1)])
        kv = kv.reshape(T, block, K, 2, H)
        score = jnp.einsum("tkgh,tskh->tkgs", q_TKGH, kv[:, :, :, 0], precision=lax.Precision.HIGHEST)
        if spec.softcap:
            score = jnp.tanh(score / spec.softcap) * spec.softcap
        position_TS = (i * block + jnp.arange(block, dtype=jnp.int32))[None, :]
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
    _, total_TKG, out_TKGH = lax.fori_loop(0, last_block + 1, block_step, start)
    return (out_TKGH / total_TKG[..., None]).reshape(T, N * H), pool
