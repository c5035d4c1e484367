"""The decoder's operations on the CPU kernels: the names of `xla_ops`, the speed of `llmos.drivers.cpu`."""

from __future__ import annotations

from jax import Array

from llmos.drivers import cpu
from llmos.kernel.model.attention import AttentionBatch, AttentionSpec

linear = cpu.linear
rms_norm = cpu.rms_norm
embed = cpu.embed


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
    """`xla_ops.attention`, the pool updated in place."""
    return cpu.attention(
        qkv_TC,
        pool,
        batch.positions_T,
        batch.slots_T,
        batch.tables_BP,
        batch.rows,
        cos,
        sin,
        heads=spec.heads,
        kv_heads=spec.kv_heads,
        scale=spec.scale,
        q_norm=q_norm,
        k_norm=k_norm,
        eps=spec.norm_eps,
        window=spec.window,
        softcap=spec.softcap,
    )
