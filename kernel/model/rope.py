"""Rotary position tables, and the rotation of keys that were stored without it.

What: cosines and sines for every position a window may reach, one pair of tables for each distinct base; keys of the
    pool's type turned to their positions, on the host.
Invariant: tables are computed in float64 on the host and rounded once to f32, so every device has the same bits. Keys
    are rounded to the pool's type before rotation everywhere, and each product and sum is rounded as the CPU kernels
    do it, so that a key stored and rotated later equals a fresh one bit for bit.
Interface: `rope_tables(theta, scaling, factors, head_dim, positions)`, `rotate_keys(kv, cos, sin, out)`,
    `widened(x)`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llmos.kernel.model.config import RopeScaling

BLOCK = 256  # tokens rotated at once: what is in between stays in the cache of one core


def rope_tables(
    theta: float,
    scaling: RopeScaling | None,
    factors: NDArray[np.float32] | None,
    head_dim: int,
    positions: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(cos, sin), each f32 [positions, H / 2], for half-split rotation.

    `factors` [H / 2] divide the frequencies (GGUF's `rope_freqs` tensor); `scaling` does the same by formula.
    """
    frequency = theta ** -(np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    if factors is not None:
        frequency = frequency / factors
    elif scaling is not None:
        frequency = _scaled(frequency, scaling)
    angle = np.arange(positions, dtype=np.float64)[:, None] * frequency
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def _scaled(frequency: NDArray[np.float64], s: RopeScaling) -> NDArray[np.float64]:
    if s.kind == "linear":
        return frequency / s.factor
    # llama3: long wavelengths are divided, short ones kept, those between blended.
    turns = s.original_context * frequency / (2 * np.pi)
    keep = np.clip((turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor), 0, 1)
    return frequency / s.factor * (1 - keep) + frequency * keep


def rotate_keys(
    kv_TK2H: NDArray[np.generic],
    cos_TR: NDArray[np.float32],
    sin_TR: NDArray[np.float32],
    out_TK2H: NDArray[np.generic],
) -> None:
    """Write keys turned to their positions, and values as they are.

    Args:
        kv_TK2H: keys before rotation and values, uint16 (bf16 bits) or f32.
        cos_TR, sin_TR: the tables' rows of each token's position, R = H / 2.
        out_TK2H: of the same shape and type; may be a view.
    """
    half = kv_TK2H.shape[-1] // 2
    for at in range(0, len(kv_TK2H), BLOCK):
        rows = slice(at, at + BLOCK)
        kv, cos, sin = kv_TK2H[rows], cos_TR[rows, None], sin_TR[rows, None]
        k = widened(kv[:, :, 0])
        a, b = k[..., :half], k[..., half:]
        turned = np.empty_like(k)
        np.multiply(a, cos, out=turned[..., :half])
        turned[..., :half] -= b * sin
        np.multiply(b, cos, out=turned[..., half:])
        turned[..., half:] += a * sin
        out = out_TK2H[rows]
        out[:, :, 0] = turned if kv.dtype == np.float32 else _rounded(turned)
        out[:, :, 1] = kv[:, :, 1]


def widened(x: NDArray[np.generic]) -> NDArray[np.float32]:
    """Numbers of the pool's type on the host, as f32."""
    if x.dtype == np.uint16:
        return (x.astype(np.uint32) << 16).view(np.float32)
    return x.astype(np.float32, copy=False)


def _rounded(x: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bits of the nearest bf16, of two the even one. Overwrites x."""
    bits = x.view(np.uint32)
    bits += 0x7FFF + ((bits >> 16) & 1)
    return (bits >> 16).astype(np.uint16)
