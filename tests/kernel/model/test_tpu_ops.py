"""Attention for TPU and GPU against the plain one, on CPU.

JAX's own reference of its paged attention kernel stands in for the kernel, which cannot run here: what is tested
is everything around it, padding, head order, ragged batches. The kernel itself is untested without a TPU.
"""

from __future__ import annotations

from typing import Any

import jax.experimental.pallas.ops.tpu.ragged_paged_attention as kernel
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas.ops.tpu.ragged_paged_attention.kernel import ref_ragged_paged_attention

from llmos.kernel.model import gpu_ops, tpu_ops, xla_ops
from llmos.kernel.model.attention import AttentionBatch, AttentionSpec

PAGES, PAGE, SLOTS, TOKENS = 32, 8, 4, 16


@pytest.fixture
def reference_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def stand_in(
        *arrays: Any, num_kv_pages_per_block: int, num_queries_per_block: int, **options: Any
    ) -> Any:
        valid = ref_ragged_paged_attention(*arrays, **options)
        missing = arrays[0].shape[0] - valid.shape[0]
        return jnp.pad(valid, ((0, missing), (0, 0), (0, 0)), constant_values=jnp.nan)

    monkeypatch.setattr(kernel, "ragged_paged_attention", stand_in)


def ragged_batch() -> AttentionBatch:
    """Three sequences in slots 2, 0 and 3, with 5, 6 and 1 tokens; slot 1 is empty."""
    tables = np.zeros((SLOTS + 1, 6), np.int32)
    tables[:SLOTS] = 1 + np.arange(SLOTS * 6).reshape(SLOTS, 6)
    positions, slots = np.zeros(TOKENS, np.int32), np.full(TOKENS, SLOTS, np.int32)
    at = 0
    for slot, start, count in [(2, 0, 5), (0, 17, 6), (3, 40, 1)]:
        positions[at : at + count] = np.arange(start, start + count)
        slots[at : at + count] = slot
        at += count
    return AttentionBatch(jnp.asarray(positions), jnp.asarray(slots), jnp.asarray(tables), jnp.int32(at))


@pytest.mark.usefixtures("reference_kernel")
@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim", "pool_type", "window", "softcap", "tolerance"),
    [
        (14, 2, 64, jnp.bfloat16, 0, 0.0, 0.03),  # the default model's heads
        (9, 3, 64, jnp.float32, 10, 5.0, 1e-5),  # three kv heads become four
    ],
)
def test_equals_plain_attention(
    heads: int, kv_heads: int, head_dim: int, pool_type: Any, window: int, softcap: float, tolerance: float
) -> None:
    rng = np.random.default_rng(0)
    spec = AttentionSpec(heads, kv_heads, head_dim, head_dim**-0.5, window, softcap, 1e-5)
    batch = ragged_batch()
    qkv = jnp.asarray(rng.normal(size=(TOKENS, (heads + 2 * kv_heads) * head_dim)), jnp.float32)
    pool = jnp.asarray(rng.normal(size=(PAGES, PAGE, kv_heads, 2, head_dim)), jnp.float32).astype(pool_type)
    angle = rng.normal(size=(64, head_dim // 2))
    rope = jnp.asarray(np.cos(angle), jnp.float32), jnp.asarray(np.sin(angle), jnp.float32)
    shape = tpu_ops.slot_shape(kv_heads, head_dim)
    padded = jnp.zeros((PAGES, PAGE, *shape), pool_type).at[:, :, :kv_heads, :, :head_dim].set(pool)

    expected, written = xla_ops.attention(qkv, pool, batch, spec, *rope)
    on_tpu, written_padded = tpu_ops.attention(qkv, padded, batch, spec, *rope)
    on_gpu, _ = gpu_ops.attention(qkv, pool, batch, spec, *rope)
    rows = int(batch.rows)
    np.testing.assert_allclose(on_tpu[:rows], expected[:rows], atol=tolerance)
    np.testing.assert_allclose(on_gpu[:rows], expected[:rows], atol=1e-5)
    # Page 0 takes the padding rows in any order.
    np.testing.assert_array_equal(written[1:], written_padded[1:, :, :kv_heads, :, :head_dim])


@pytest.mark.parametrize("kv_heads", range(1, 20))
def test_pool_heads_are_what_the_kernel_tiles(kv_heads: int) -> None:
    padded = tpu_ops.padded_heads(kv_heads)
    assert padded >= kv_heads and (padded in (1, 2, 4) or padded % 8 == 0)
    assert tpu_ops.splits(kv_heads, 1)
