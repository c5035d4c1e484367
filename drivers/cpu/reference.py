"""What each kernel computes, in plain jnp and numpy.

What: the twins of ops.py: same names, same arguments, no speed.
Invariant: they define the semantics (activations rounded to 8 bits per block of 32 where the weight is quantised, K
    rounded to the pool's type before and after rotation, the order of the sampler's filters); the kernels are bound to
    them by tests within f32 rounding. Unlike the kernels they compute every row, whatever `rows` says.
Interface: unpack (the dense f32 matrix of a Packed), quantise, linear, attention, rms_norm, embed; sample is numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from llmos.drivers.cpu.packed import Packed

if TYPE_CHECKING:
    from numpy.typing import NDArray

BITS = {"q4": 4, "q4m": 4, "q5": 5, "q5m": 5, "q6": 6, "q8": 8}
OFFSET = {"q4": 8, "q5": 16, "q6": 32}


def unpack(weight: Packed) -> NDArray[np.float32]:
    """The dense matrix f32 [N, K] that a packed buffer stands for, read from the layout in formats.h."""
    n, k = weight.shape
    raw = np.asarray(weight.data)
    unit = raw[24:28].view(np.float32)[0]
    tiles, blocks = -(-n // 8), -(-k // 32)
    body = raw[64:].reshape(tiles, blocks, -1)
    if weight.format in ("f32", "bf16"):
        if weight.format == "f32":
            values = body.view(np.float32)
        else:
            values = (body.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        dense = values.reshape(tiles, blocks * 32, 8).transpose(0, 2, 1).reshape(tiles * 8, blocks * 32)
        return np.ascontiguousarray(dense[:n, :k])
    bits = BITS[weight.format]
    code_bytes = 32 * bits
    vectors = body[..., :code_bytes].reshape(tiles, blocks, bits, 8, 4)
    if bits == 8:
        codes = vectors.astype(np.int8).astype(np.int32)
    else:
        nibbles = vectors[:, :, :4]
        codes = np.concatenate([nibbles & 15, nibbles >> 4], axis=2).astype(np.int32)
        for j in range(8):
            if bits == 5:
                codes[:, :, j] |= ((vectors[:, :, 4].astype(np.int32) >> j) & 1) << 4
            if bits == 6:
                codes[:, :, j] |= ((vectors[:, :, 4 + j // 4].astype(np.int32) >> (2 * (j % 4))) & 3) << 4
    codes = codes.transpose(0, 3, 1, 2, 4).reshape(tiles * 8, blocks * 32)  # [rows, k-groups x 4]
    codes = codes - OFFSET.get(weight.format, 0)
    halves = body[..., code_bytes:].copy().view(np.float16).astype(np.float32).reshape(tiles, blocks, -1, 8)

    def spread(x: NDArray[np.float32]) -> NDArray[np.float32]:  # [tiles, blocks, groups, 8] -> [rows, k]
        groups = x.transpose(0, 3, 1, 2).reshape(tiles * 8, -1)
        return np.repeat(groups, blocks * 32 // groups.shape[1], axis=1)

    groups = 2 if bits == 6 else 1
    dense = spread(halves[:, :, :groups]) * codes.astype(np.float32)
    if halves.shape[2] > groups:
        dense = dense + spread(halves[:, :, groups:])
    return np.ascontiguousarray((dense * unit)[:n, :k], dtype=np.float32)


def quantise(x: jax.Array) -> jax.Array:
    """x f32 [T, K] as the kernels see it beside quantised weights: 8 bits per block of 32 inputs."""
    blocks = x.reshape(x.shape[0], -1, 32)
    top = jnp.max(jnp.abs(blocks), axis=-1, keepdims=True)
    inverse = jnp.where(top >= 1e-30, 127.0 / jnp.maximum(top, 1e-30), 0.0)
    codes = jnp.round(blocks * inverse)
    return (codes * jnp.where(top >= 1e-30, top / 127.0, 0.0)).reshape(x.shape)


def rms_norm(
    x: jax.Array, weight: jax.Array, rows: jax.Array, *, eps: float = 1e-6, residual: jax.Array | None = None
) -> jax.Array:
    """See ops.rms_norm."""
    y = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps) * weight
    return y if residual is None else residual + y


def _activate(kind: str, x: jax.Array) -> jax.Array:
    return jax.nn.silu(x) if kind == "silu" else jax.nn.gelu(x, approximate=True)


def linear(
    x: jax.Array,
    weights: Sequence[Packed],
    rows: jax.Array,
    *,
    norm: jax.Array | None = None,
    eps: float = 1e-6,
    bias: jax.Array | None = None,
    residual: jax.Array | None = None,
    activation: str | None = None,
) -> jax.Array:
    """See ops.linear."""
    if norm is not None:
        x = rms_norm(x, norm, rows, eps=eps)
    parts = []
    for w in weights:
        seen = x if w.format in ("f32", "bf16") else quantise(x)
        parts.append(jnp.matmul(seen, jnp.asarray(unpack(w)).T, precision="highest"))
    y = jnp.concatenate(parts, axis=-1)
    if bias is not None:
        y = y + bias
    if activation:
        gate, up = jnp.split(y, 2, axis=-1)
        y = _activate(activation, gate) * up
    return y if residual is None else residual + y


def embed(tokens: jax.Array, table: Packed, rows: jax.Array, *, scale: float = 1.0) -> jax.Array:
    """See ops.embed."""
    return jnp.asarray(unpack(table))[tokens] * scale


def _rotate(x: jax.Array, cos: jax.Array, sin: jax.Array, interleaved: bool) -> jax.Array:
    """x [T, N, H]; cos, sin [T, R / 2]: rotates the first R dimensions of each head."""
    half = cos.shape[-1]
    c, s = cos[:, None], sin[:, None]
    turned, rest = x[..., : 2 * half], x[..., 2 * half :]
    if interleaved:
        u, v = turned[..., 0::2], turned[..., 1::2]
        both = jnp.stack([u * c - v * s, v * c + u * s], axis=-1).reshape(turned.shape)
    else:
        u, v = turned[..., :half], turned[..., half:]
        both = jnp.concatenate([u * c - v * s, v * c + u * s], axis=-1)
    return jnp.concatenate([both, rest], axis=-1)


def attention(
    qkv: jax.Array,
    pool: jax.Array,
    positions: jax.Array,
    slots: jax.Array,
    page_table: jax.Array,
    rows: jax.Array,
    cos: jax.Array,
    sin: jax.Array,
    *,
    heads: int,
    kv_heads: int,
    scale: float,
    q_norm: jax.Array | None = None,
    k_norm: jax.Array | None = None,
    eps: float = 1e-6,
    window: int = 0,
    softcap: float = 0.0,
    interleaved: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """See ops.attention; rows past `rows` leave the pool as it is."""
    t, (pages, page, _, _, h) = qkv.shape[0], pool.shape
    real = jnp.arange(t) < rows
    x = qkv.reshape(t, heads + 2 * kv_heads, h)
    q, k, v = x[:, :heads], x[:, heads : heads + kv_heads], x[:, heads + kv_heads :]
    if q_norm is not None:
        q = rms_norm(q, q_norm, rows, eps=eps)
    if k_norm is not None:
        k = rms_norm(k, k_norm, rows, eps=eps)
    half = pool.dtype == jnp.uint16

    def rounded(a: jax.Array) -> jax.Array:
        return a.astype(jnp.bfloat16).astype(jnp.float32) if half else a

    c, s = cos[positions], sin[positions]
    q = _rotate(q, c, s, interleaved) * scale
    k = rounded(_rotate(rounded(k), c, s, interleaved))
    kv = jnp.stack([k, rounded(v)], axis=2)  # [T, K, 2, H]
    if half:
        kv = jax.lax.bitcast_convert_type(kv.astype(jnp.bfloat16), jnp.uint16)
    target = jnp.where(real, page_table[slots, positions // page], pages)  # past the end: dropped
    pool = pool.at[target, positions % page].set(kv, mode="drop")

    table = jnp.clip(page_table, 0, pages - 1)[slots]  # [T, P]
    seen = pool[table].reshape(t, -1, kv_heads, 2, h)  # [T, positions, K, 2, H]
    if half:
        seen = jax.lax.bitcast_convert_type(seen, jnp.bfloat16).astype(jnp.float32)
    at = jnp.arange(seen.shape[1])
    visible = at[None] <= positions[:, None]
    if window > 0:
        visible &= at[None] > positions[:, None] - window
    seen = jnp.where(visible[:, :, None, None, None], seen, 0.0)
    q = q.reshape(t, kv_heads, heads // kv_heads, h)
    scores = jnp.einsum("tkgh,tpkh->tkgp", q, seen[:, :, :, 0], precision="highest")
    if softcap > 0:
        scores = softcap * jnp.tanh(scores / softcap)
    scores = jnp.where(visible[:, None, None], scores, -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1)
    out = jnp.einsum("tkgp,tpkh->tkgh", weights, seen[:, :, :, 1], precision="highest")
    return out.reshape(t, heads * h), pool


def sample_row(
    logits: NDArray[np.float32],
    u: float,
    *,
    temperature: float,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    penalty: float = 1.0,
    recent: Sequence[int] = (),
    allowed: NDArray[np.bool_] | None = None,
) -> int:
    """The token that ops.sample draws for one row."""
    x = logits.astype(np.float32).copy()
    if allowed is not None:
        x[~allowed] = -np.inf
    for token in {t for t in recent if 0 <= t < len(x)}:
        if x[token] > -np.inf:
            x[token] = x[token] / np.float32(penalty) if x[token] > 0 else x[token] * np.float32(penalty)
    if not np.all(logits < np.inf) or np.max(x) == -np.inf:
        return -1
    if temperature <= 0:
        return int(np.argmax(x))
    p = np.exp((x - np.max(x)).astype(np.float32) / np.float32(temperature)).astype(np.float64)
    order = np.lexsort((np.arange(len(p)), -p))
    order = order[p[order] > 0]
    if top_k > 0:
        order = order[:top_k]
    if top_p < 1:
        mass = np.cumsum(p[order])
        order = order[: int(np.searchsorted(mass, top_p * mass[-1])) + 1]
    kept = np.sort(order[p[order] >= min(min_p, 1.0)])
    mass = np.cumsum(p[kept])
    return int(kept[min(int(np.searchsorted(mass, u * mass[-1], side="right")), len(kept) - 1)])
