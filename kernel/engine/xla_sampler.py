"""Choosing tokens in plain JAX: the sampling kernel's twin for every device without it.

What: `sample`, with the arguments and the meaning of `llmos.drivers.cpu.sample`.
Invariant: a row's choice depends on its own logits, parameters, random number and mask. Sums are f32, so where
    a draw falls within rounding of a border the kernel, which sums in f64, may choose the neighbour.
Interface: `sample`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax


def sample(
    logits: Array,
    rows: Array,
    u: Array,
    *,
    temperature: Array,
    top_k: Array,
    top_p: Array,
    min_p: Array,
    penalty: Array,
    recent: Array,
    mask: Array | None = None,
    top: int = 0,
) -> tuple[Array, Array, Array, Array]:
    """The next token of each row of logits f32 [B, V]; see `llmos.drivers.cpu.sample`."""
    B, V = logits.shape
    row_B1 = jnp.arange(B, dtype=jnp.int32)[:, None]
    # Out-of-range ids, the padding among them, fall off the end.
    seen_BV = jnp.zeros((B, V), bool).at[row_B1, jnp.where(recent < 0, V, recent)].set(True, mode="drop")
    factor_BV = jnp.broadcast_to(penalty[:, None], (B, V))
    x_BV = jnp.where(seen_BV, jnp.where(logits > 0, logits / factor_BV, logits * factor_BV), logits)
    if mask is not None:
        id_V = jnp.arange(V, dtype=jnp.uint32)
        bits_BV = mask[:, id_V // 32] >> jnp.broadcast_to(id_V % 32, (B, V))
        x_BV = jnp.where(bits_BV & 1 == 1, x_BV, -jnp.inf)
    greedy_B = jnp.argmax(x_BV, axis=-1).astype(jnp.int32)
    sampled_B = temperature > 0
    # Row by row: sorting a vocabulary is dear, and few rows of a step draw.
    drawn_B = lax.fori_loop(
        0,
        rows,
        lambda i, drawn_B: drawn_B.at[i].set(
            lax.cond(
                sampled_B[i],
                lambda: _draw(x_BV[i], u[i], temperature[i], top_k[i], top_p[i], min_p[i]),
                lambda: greedy_B[i],
            )
        ),
        greedy_B,
    )
    token_B = jnp.where(sampled_B, drawn_B, greedy_B)
    possible_B = jnp.all(logits < jnp.inf, axis=-1) & (jnp.max(x_BV, axis=-1) > -jnp.inf)
    token_B = jnp.where(possible_B, token_B, -1)
    norm_B1 = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    logprob_B = jnp.take_along_axis(logits, jnp.maximum(token_B, 0)[:, None], axis=-1)[:, 0] - norm_B1[:, 0]
    best_BN, ids_BN = lax.top_k(logits, top)
    return token_B, logprob_B, ids_BN.astype(jnp.int32), best_BN - norm_B1


def _draw(x_V: Array, u: Array, temperature: Array, top_k: Array, top_p: Array, min_p: Array) -> Array:
    """One row's draw: top-k, top-p, min-p, then the distribution function in id order, inverted at `u`."""
    p_V = jnp.exp((x_V - x_V.max()) / temperature)
    order_V = jnp.argsort(-p_V, stable=True)
    sorted_V = p_V[order_V]
    rank_V = jnp.arange(len(p_V), dtype=jnp.int32)
    sorted_V = jnp.where((top_k <= 0) | (rank_V < top_k), sorted_V, 0.0)
    mass_V = jnp.cumsum(sorted_V)
    before_V = mass_V - sorted_V  # the first whose mass reaches top_p is the last to stay
    stays_V = ((top_p >= 1) | (before_V < top_p * mass_V[-1])) & (sorted_V >= jnp.minimum(min_p, 1.0))
    kept_V = jnp.zeros_like(p_V).at[order_V].set(jnp.where(stays_V, sorted_V, 0.0))
    mass_V = jnp.cumsum(kept_V)
    reached_V = (mass_V > u * mass_V[-1]) & (kept_V > 0)
    last = len(p_V) - 1 - jnp.argmax(kept_V[::-1] > 0)
    return jnp.where(reached_V.any(), jnp.argmax(reached_V), last).astype(jnp.int32)
