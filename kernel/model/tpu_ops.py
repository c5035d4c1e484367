"""The decoder's operations on a TPU: those of `xla_ops`, attention by JAX's ragged paged attention kernel.

What: `attention` gives the step to `jax.experimental.pallas.ops.tpu.ragged_paged_attention`, which reads the
    pool in place. The kernel takes head dimensions of whole lanes (128) and certain numbers of heads only, so
    the pool's heads are padded with zeros (`slot_shape`) and the queries with them; no model is refused.
Invariant: the names and the meaning of `xla_ops`; results differ by rounding (bf16 products on a bf16 pool).
    The tokens of one slot stand next to each other in the batch, in the order of their positions.
Not tested on hardware yet: tests lower the step for TPU, and on CPU put JAX's reference in the kernel's place.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec

from llmos.kernel.model.attention import AttentionBatch, AttentionSpec
from llmos.kernel.model.xla_ops import embed, linear, rms_norm, rotated, store

__all__ = ["attention", "embed", "linear", "rms_norm", "slot_shape"]

LANES = 128
# Block sizes of the kernel, pages of keys and rows of queries: they fit the smallest generation's memory. The
# kernel's own tuned table wants to see the device while tracing, which lowering without one cannot offer.
KV_PAGES, QUERIES = 32, 32


def padded_heads(kv_heads: int) -> int:
    """The least number of kv heads from `kv_heads` up that the kernel can tile: 1, 2, 4 or a multiple of 8."""
    return next((n for n in (1, 2, 4) if n >= kv_heads), -(-kv_heads // 8) * 8)


def slot_shape(kv_heads: int, head_dim: int) -> tuple[int, int, int]:
    """What one token takes in the pool: [K, 2, H], padded."""
    return padded_heads(kv_heads), 2, -(-head_dim // LANES) * LANES


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
    """`xla_ops.attention` over a pool of [pages, S, *slot_shape], bf16 or f32.

    Under a mesh whose axis "tensor" divides the heads, each device attends with its own; else each with all.
    """
    T, G = qkv_TC.shape[0], spec.heads // spec.kv_heads
    _, _, K, _, H = pool.shape
    more_heads, more_dims = K - spec.kv_heads, H - spec.head_dim
    q_TNH, k_TKH, v_TKH = rotated(qkv_TC, pool.dtype, batch, spec, cos, sin, q_norm, k_norm)
    pad = ((0, 0), (0, more_heads), (0, more_dims))
    pool = store(jnp.pad(k_TKH, pad), jnp.pad(v_TKH, pad), pool, batch)

    # Two-byte types pack two heads in a sublane: an even number a group keeps every group aligned.
    more_groups = G % 2 if pool.dtype.itemsize == 2 else 0
    q_TKGH = q_TNH.reshape(T, spec.kv_heads, G, spec.head_dim).astype(pool.dtype)
    q_TKGH = jnp.pad(q_TKGH, ((0, 0), (0, more_heads), (0, more_groups), (0, more_dims)))
    attend = partial(_attend, spec=spec)
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.size > 1:  # a kernel call is opaque to the partitioner
        split = "tensor" if splits(spec.kv_heads, mesh.shape["tensor"]) else None
        heads, pages = PartitionSpec(None, split), PartitionSpec(None, None, split)
        attend = jax.shard_map(
            attend, in_specs=(heads, pages, PartitionSpec()), out_specs=heads, check_vma=False
        )
    out_TKGH = attend(q_TKGH, pool, batch)[:, : spec.kv_heads, :G, : spec.head_dim]
    return out_TKGH.reshape(T, spec.heads * spec.head_dim).astype(jnp.float32), pool


def splits(kv_heads: int, shards: int) -> bool:
    """Whether `shards` devices can share a model's kv heads so that the kernel takes each one's part."""
    padded = padded_heads(kv_heads)
    return kv_heads % shards == padded % shards == 0 and padded_heads(padded // shards) == padded // shards


def _attend(q_TKGH: Array, pool: Array, batch: AttentionBatch, *, spec: AttentionSpec) -> Array:
    from jax.experimental.pallas.ops.tpu.ragged_paged_attention import ragged_paged_attention

    T, K, G, H = q_TKGH.shape
    kv_lens, tables_BP, starts, count = ragged(batch)
    out_TNH = ragged_paged_attention(
        q_TKGH.reshape(T, K * G, H),
        pool.reshape(*pool.shape[:2], K * 2, H),
        kv_lens,
        tables_BP,
        starts,
        count,
        sm_scale=spec.scale,
        sliding_window=spec.window or None,
        soft_cap=spec.softcap or None,
        num_kv_pages_per_block=min(KV_PAGES, tables_BP.shape[1]),
        num_queries_per_block=min(QUERIES, T),
    )
    return out_TNH.reshape(T, K, G, H)


def ragged(batch: AttentionBatch) -> tuple[Array, Array, Array, Array]:
    """The batch as the kernel wants it: sequences in order of their tokens, without gaps.

    Returns:
        tokens in the pool of each sequence [B], its page table [B, P], where its rows start [B + 1], and the
        number of sequences [1], all i32; what lies past that number is padding.
    """
    T, B = batch.slots_T.shape[0], batch.tables_BP.shape[0]
    valid_T = jnp.arange(T) < jnp.maximum(
        batch.rows, 1
    )  # the kernel starts a read before it counts sequences
    first_T = valid_T & (batch.slots_T != jnp.roll(batch.slots_T, 1)).at[0].set(True)
    sequence_T = jnp.where(valid_T, jnp.cumsum(first_T, dtype=jnp.int32) - 1, B)  # B: dropped below
    slots_B = jnp.zeros(B, jnp.int32).at[sequence_T].set(batch.slots_T, mode="drop")
    kv_lens_B = jnp.zeros(B, jnp.int32).at[sequence_T].max(batch.positions_T + 1, mode="drop")
    counts_B = jnp.zeros(B, jnp.int32).at[sequence_T].add(1, mode="drop")
    starts = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(counts_B, dtype=jnp.int32)])
    return kv_lens_B, batch.tables_BP[slots_B], starts, first_T.sum(dtype=jnp.int32)[None]
