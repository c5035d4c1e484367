"""What each kernel computes, in plain numpy.

What: the twins of ops.py: same names, same arguments, sums in f64, no speed.
Invariant: they define the semantics (activations rounded to 8 bits per block of 32 where the weight is quantised, K
    rounded to the pool's type before and after rotation, the order of the sampler's filters); the kernels are bound to
    them by tests within f32 rounding. Unlike the kernels they compute every row, whatever `rows` says.
Interface: unpack (the dense f32 matrix of a Packed), quantise, linear, low_rank, attention, rms_norm, embed,
    sample_row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from llmos.drivers.cpu.ops import centred
from llmos.drivers.cpu.packed import Packed

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float32]

BITS = {"q4": 4, "q4m": 4, "q4k": 4, "q5": 5, "q5m": 5, "q5k": 5, "q6": 6, "q8": 8}
SUPER = {"q4k": 2, "q5k": 2, "q6": 1}  # f16 numbers a row that eight blocks share
OFFSET = {"q4": 8, "q5": 16, "q6": 32}


def unpack(weight: Packed) -> Floats:
    """The dense matrix f32 [N, K] that a packed buffer stands for, read from the layout in formats.h."""
    n, k = weight.shape
    raw = np.asarray(weight.data)
    tiles, blocks = -(-n // 8), -(-k // 32)
    body = raw[64:].reshape(tiles, -1)
    if weight.format in ("f32", "bf16"):
        if weight.format == "f32":
            values = body.view(np.float32)
        else:
            values = (body.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        dense = values.reshape(tiles, blocks * 32, 8).transpose(0, 2, 1).reshape(tiles * 8, blocks * 32)
        return np.ascontiguousarray(dense[:n, :k])
    bits = BITS[weight.format]
    vectors, scales, minima = _parts(body, weight.format, tiles, blocks)
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

    def spread(x: Floats) -> Floats:  # [tiles, blocks, groups, 8] -> [rows, k]
        groups = x.transpose(0, 3, 1, 2).reshape(tiles * 8, -1)
        return np.repeat(groups, blocks * 32 // groups.shape[1], axis=1)

    dense = spread(scales) * codes.astype(np.float32)
    if minima is not None:
        dense = dense + spread(minima)
    return np.ascontiguousarray(dense[:n, :k], dtype=np.float32)


def _parts(
    body: NDArray[np.uint8], format: str, tiles: int, blocks: int
) -> tuple[NDArray[np.uint8], Floats, Floats | None]:
    """Codes [tiles, blocks, bits, 8, 4]; scales [tiles, blocks, groups, 8]; minima likewise, or None."""
    bits = BITS[format]
    tops = SUPER.get(format, 0)
    if not tops:
        parts = body.reshape(tiles, blocks, -1)
        halves = (
            parts[..., 32 * bits :].copy().view(np.float16).astype(np.float32).reshape(tiles, blocks, -1, 8)
        )
        vectors = parts[..., : 32 * bits].reshape(tiles, blocks, bits, 8, 4)
        return vectors, halves[:, :, :1], halves[:, :, 1:] if halves.shape[2] > 1 else None
    parts = body.reshape(tiles, blocks // 8, -1)
    codes, small, top = np.split(parts, [256 * bits, 256 * bits + 128], axis=-1)
    vectors = codes.reshape(tiles, blocks, bits, 8, 4)
    bytes_ = small.reshape(tiles, blocks, 2, 8)
    shared = top.copy().view(np.float16).astype(np.float32).reshape(tiles, blocks // 8, tops, 8)
    shared = np.repeat(shared, 8, axis=1)
    if tops == 1:
        return vectors, shared * bytes_.astype(np.int8).astype(np.float32), None
    scaled = shared * bytes_.astype(np.float32)
    return vectors, scaled[:, :, :1], scaled[:, :, 1:]


def quantise(x: ArrayLike, about_middle: bool = False) -> Floats:
    """x f32 [T, K] as the kernels see it beside quantised weights: 8 bits per block of 32 inputs, about zero or
    about the middle of the block's range."""
    x = np.asarray(x, np.float32)
    blocks = x.reshape(x.shape[0], -1, 32)
    half = np.float32(0.5 if about_middle else 0.0)
    centre = half * blocks.max(axis=-1, keepdims=True) + half * blocks.min(axis=-1, keepdims=True)
    blocks = blocks - centre
    top = np.max(np.abs(blocks), axis=-1, keepdims=True)
    live = top >= np.float32(1e-30)
    inverse = np.where(live, np.float32(127) / np.where(live, top, np.float32(1)), np.float32(0))
    codes = np.rint(blocks * inverse)
    return (centre + codes * np.where(live, top / np.float32(127), np.float32(0))).reshape(x.shape)


def _normalise(x: Floats, weight: Floats, eps: float) -> Floats:
    wide = x.astype(np.float64)
    return (wide / np.sqrt(np.mean(wide * wide, axis=-1, keepdims=True) + eps) * weight).astype(np.float32)


def rms_norm(
    x: ArrayLike, weight: ArrayLike, rows: ArrayLike, *, eps: float = 1e-6, residual: ArrayLike | None = None
) -> Floats:
    """See ops.rms_norm."""
    y = _normalise(np.asarray(x), np.asarray(weight), eps)
    return y if residual is None else np.asarray(residual) + y


def _activate(kind: str, x: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):
        if kind == "silu":
            return x / (1 + np.exp(-x))
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def linear(
    x: ArrayLike,
    weights: Sequence[Packed],
    rows: ArrayLike,
    *,
    norm: ArrayLike | None = None,
    eps: float = 1e-6,
    bias: ArrayLike | None = None,
    residual: ArrayLike | None = None,
    activation: str | None = None,
    delta: ArrayLike | None = None,
) -> Floats:
    """See ops.linear."""
    seen = np.asarray(x, np.float32)
    if norm is not None:
        seen = _normalise(seen, np.asarray(norm), eps)
    parts = []
    for w in weights:
        middle = centred(norm is not None, len(weights), activation)
        inputs = seen if w.format in ("f32", "bf16") else quantise(seen, middle)
        parts.append(inputs.astype(np.float64) @ unpack(w).T.astype(np.float64))
    y = np.concatenate(parts, axis=-1)
    if delta is not None:
        y = y + np.asarray(delta)
    if bias is not None:
        y = y + np.asarray(bias)
    if activation:
        gate, up = np.split(y, 2, axis=-1)
        y = _activate(activation, gate) * up
    if residual is not None:
        y = np.asarray(residual) + y
    return y.astype(np.float32)


def low_rank(
    x: ArrayLike,
    rows: ArrayLike,
    slots: ArrayLike,
    ranks: ArrayLike,
    a: ArrayLike,
    b: Sequence[ArrayLike],
    *,
    norm: ArrayLike | None = None,
    eps: float = 1e-6,
) -> Floats:
    """See ops.low_rank."""
    seen = np.asarray(x, np.float32)
    if norm is not None:
        seen = _normalise(seen, np.asarray(norm), eps)

    def wide(values: ArrayLike) -> NDArray[np.float64]:
        held = np.asarray(values)
        return (from_bf16(held) if held.dtype == np.uint16 else held).astype(np.float64)

    down, up, table = wide(a), [wide(matrix) for matrix in b], np.asarray(ranks)
    y = []
    for row, s in zip(seen.astype(np.float64), np.asarray(slots), strict=True):
        used = [int(table[s, i]) for i in range(len(up))]
        y.append(np.concatenate([(row @ down[s, i, :r].T) @ up[i][s, :r] for i, r in enumerate(used)]))
    return np.asarray(y, np.float32)


def embed(tokens: ArrayLike, table: Packed, rows: ArrayLike, *, scale: float = 1.0) -> Floats:
    """See ops.embed."""
    return np.asarray(unpack(table)[np.asarray(tokens)] * np.float32(scale), np.float32)


def _rotate(x: Floats, cos: Floats, sin: Floats, interleaved: bool) -> Floats:
    """x [T, N, H]; cos, sin [T, R / 2]: rotates the first R dimensions of each head."""
    half = cos.shape[-1]
    c, s = cos[:, None], sin[:, None]
    first = slice(0, 2 * half, 2) if interleaved else slice(0, half)
    second = slice(1, 2 * half, 2) if interleaved else slice(half, 2 * half)
    u, v, y = x[..., first], x[..., second], x.copy()
    y[..., first], y[..., second] = u * c - v * s, v * c + u * s
    return y


def to_bf16(x: Floats) -> NDArray[np.uint16]:
    """The bits of x rounded to bf16, to nearest even."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(bits: NDArray[np.uint16]) -> Floats:
    """The values of bf16 bits."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def attention(
    qkv: ArrayLike,
    pool: ArrayLike,
    positions: ArrayLike,
    slots: ArrayLike,
    page_table: ArrayLike,
    rows: ArrayLike,
    cos: ArrayLike,
    sin: ArrayLike,
    *,
    heads: int,
    kv_heads: int,
    scale: float,
    q_norm: ArrayLike | None = None,
    k_norm: ArrayLike | None = None,
    eps: float = 1e-6,
    window: int = 0,
    softcap: float = 0.0,
    interleaved: bool = False,
) -> tuple[Floats, NDArray[Any]]:
    """See ops.attention; returns a new pool."""
    stored = np.array(pool)
    page, h, t = stored.shape[1], stored.shape[-1], np.shape(qkv)[0]
    at, slot, table = np.asarray(positions), np.asarray(slots), np.asarray(page_table)
    x = np.asarray(qkv).reshape(t, heads + 2 * kv_heads, h)
    q, k, v = x[:, :heads], x[:, heads : heads + kv_heads], x[:, heads + kv_heads :]
    if q_norm is not None:
        q = _normalise(q, np.asarray(q_norm), eps)
    if k_norm is not None:
        k = _normalise(k, np.asarray(k_norm), eps)
    half = stored.dtype == np.uint16
    c, s = np.asarray(cos)[at], np.asarray(sin)[at]
    q = _rotate(q, c, s, interleaved)
    k = _rotate(from_bf16(to_bf16(k)) if half else k, c, s, interleaved)
    kv = np.stack([k, v], axis=2)  # [T, K, 2, H]
    stored[table[slot, at // page], at % page] = to_bf16(kv) if half else kv

    out = np.empty((t, heads, h), np.float32)
    for i in range(t):
        seen = np.arange(max(0, at[i] - window + 1) if window > 0 else 0, at[i] + 1)
        pages = stored[table[slot[i], seen // page], seen % page]  # [positions, K, 2, H]
        memory = (from_bf16(pages) if half else pages).astype(np.float64)
        grouped = q[i].reshape(kv_heads, heads // kv_heads, h).astype(np.float64) * scale
        scores = np.einsum("kgh,pkh->kgp", grouped, memory[:, :, 0])
        if softcap > 0:
            scores = softcap * np.tanh(scores / softcap)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        out[i] = np.einsum("kgp,pkh->kgh", weights, memory[:, :, 1]).reshape(heads, h)
    return out.reshape(t, heads * h), stored


def sample_row(
    logits: Floats,
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
