"""The decoder's operations on the CPU kernels: the names of `xla_ops`, the speed of `llmos.drivers.cpu`."""

from __future__ import annotations

from jax import Array

from llmos.drivers import cpu
from llmos.kernel.model.attention import AttentionBatch, AttentionSpec
from llmos.kernel.model.lora import Change

rms_norm = cpu.rms_norm
embed = cpu.embed


def linear(
    x_TK: Array,
    weights: tuple[cpu.Packed, ...],
    rows: Array,
    *,
    norm: Array | None = None,
    eps: float = 0.0,
    bias: Array | None = None,
    residual: Array | None = None,
    activation: str | None = None,
    change: Change | None = None,
) -> Array:
    """`xla_ops.linear`; what adapters add is computed first, from the same rows."""
    delta = None
    if change is not None:
        f = change.factors
        delta = cpu.low_rank(x_TK, rows, change.slots_T, f.ranks_SM, f.a_SMRK, f.b_SRN, norm=norm, eps=eps)
    return cpu.linear(
        x_TK, weights, rows, norm=norm, eps=eps, bias=bias, residual=residual, activation=activation, delta=delta
    )  # fmt: skip


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
