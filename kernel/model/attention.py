"""The one attention interface: what every implementation of paged attention is told.

What: `AttentionSpec` (fixed for a layer) and `AttentionBatch` (of one step).
Invariant: a token's result depends on its own query and its own process's pages, nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
from jax import Array

from llmos.kernel.model.config import ModelConfig


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """A layer's constants. `window` 0 is full attention, `softcap` 0 is none."""

    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    window: int
    softcap: float
    norm_eps: float

    @classmethod
    def of(cls, config: ModelConfig, layer: int) -> AttentionSpec:
        """The constants of layer `layer`."""
        return cls(
            config.heads,
            config.kv_heads,
            config.head_dim,
            config.scale,
            config.layer(layer).window,
            config.attention_softcap,
            config.norm_eps,
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class AttentionBatch:
    """The step's tokens: `rows` of the T are valid; the others point at an empty page table."""

    positions_T: Array  # i32
    slots_T: Array  # i32, which row of the page tables
    tables_BP: Array  # i32
    rows: Array  # i32 scalar
