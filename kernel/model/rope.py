"""Rotary position tables.

What: cosines and sines for every position a window may reach, one pair of tables for each distinct base.
Invariant: computed in float64 on the host and rounded once to f32, so every device has the same bits.
Interface: `rope_tables(theta, scaling, factors, head_dim, positions)`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llmos.kernel.model.config import RopeScaling


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
