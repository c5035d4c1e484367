"""The kernels as functions of JAX arrays.

What: one `jax.ffi.ffi_call` each; see reference.py for what they compute and kernels.h for the C++ side.
Invariant: every op takes `rows`, an i32 scalar: the leading rows that are real. The rows past it are neither read nor
    written, so a buffer padded to a bucket costs nothing and its padding holds undefined values. A row's result is
    bit-identical whatever the other rows, their number and the threads (the row contract).
Interface: linear, low_rank, attention, rms_norm, embed, sample. They run on the CPU only and have no gradient.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from llmos.drivers.cpu.library import register
from llmos.drivers.cpu.packed import Packed

ACTIVATIONS = (None, "silu", "gelu_tanh")


def centred(normed: bool, weights: int, activation: str | None) -> bool:
    """Whether a product's activations are quantised about the middle of each block's range rather than about zero."""
    return normed and weights > 1 and activation is None


def _f32(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _i32(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.int32)


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
    delta: jax.Array | None = None,
) -> jax.Array:
    """x f32 [T, K] times the transposes of `weights` [N_i, K], side by side: f32 [T, sum N_i].

    Quantised weights meet activations quantised to 8 bits per block of 32; bf16 and f32 weights meet f32 activations.
    Behind a norm, weights side by side (an attention's q, k and v) meet activations that are quantised about the middle
    of each block's range: that costs a term more, and a third of the mode's loss is these products'.
    With `norm` [K], x is first RMS-normalised. `bias` [sum N_i] and `residual` (the result's shape) are added. With an
    `activation` the weights are (gate, up), both [F, K], and the result is act(gate) * up, f32 [T, F]. `delta` f32
    [T, sum N_i] is added to the products before all this.
    """
    register()
    total = sum(w.shape[0] for w in weights)
    width = weights[0].shape[0] if activation else total
    extra = [a for a in (norm, bias, residual, delta) if a is not None]
    flags = (norm is not None) | (bias is not None) << 1 | (residual is not None) << 2
    flags |= centred(norm is not None, len(weights), activation) << 3 | (delta is not None) << 4
    call = jax.ffi.ffi_call("llmos_linear", _f32(x.shape[0], width), vmap_method="sequential")
    out: jax.Array = call(
        x,
        rows,
        *extra,
        *(w.data for w in weights),
        flags=np.int32(flags),
        activation=np.int32(ACTIVATIONS.index(activation)),
        eps=np.float32(eps),
    )
    return out


def low_rank(
    x: jax.Array,
    rows: jax.Array,
    slots: jax.Array,
    ranks: jax.Array,
    a: jax.Array,
    b: Sequence[jax.Array],
    *,
    norm: jax.Array | None = None,
    eps: float = 1e-6,
) -> jax.Array:
    """What adapters add to the products of x f32 [T, K] with matrices side by side: f32 [T, sum N_i], for `linear`.

    Of a row whose adapter is s = slots[t], and of matrix i: (norm(x) a[s, i]ᵀ) b[i][s], over the first ranks[s, i]
    ranks; -0 where that is none, which leaves what it is added to bit for bit. Sums are f32, in one order.

    Args:
        slots: i32 [T].
        ranks: i32 [S, M].
        a: [S, M, R, K], uint16 (bf16 bits) or f32.
        b: for each matrix [S, R, N_i], of the same type.
    """
    register()
    width = sum(int(matrix.shape[2]) for matrix in b)
    call = jax.ffi.ffi_call("llmos_low_rank", _f32(x.shape[0], width))
    none = jnp.zeros((0,), jnp.float32)
    out: jax.Array = call(x, rows, slots, ranks, a, none if norm is None else norm, *b, eps=np.float32(eps))
    return out


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
    """Rotary embedding, the write of K and V, and causal paged attention for T rows of any processes.

    Args:
        qkv: f32 [T, (heads + 2 kv_heads) H], before rotation.
        pool: [pages, page, kv_heads, 2, H], uint16 (bf16 bits) or f32; donate it, it is updated in place.
        positions, slots: i32 [T]; slot is a row of `page_table` i32 [B, P].
        cos, sin: f32 [max positions, rope dim / 2].
        window: attend to the last `window` positions only, where positive.
        interleaved: rotate pairs (2i, 2i + 1) rather than (i, i + rope dim / 2).

    Returns:
        f32 [T, heads H] and the pool.
    """
    register()
    none = jnp.zeros((0,), jnp.float32)
    call = jax.ffi.ffi_call(
        "llmos_attention",
        (_f32(qkv.shape[0], heads * pool.shape[-1]), jax.ShapeDtypeStruct(pool.shape, pool.dtype)),
        input_output_aliases={1: 1},
    )
    out, pool = call(
        qkv,
        pool,
        positions,
        slots,
        page_table,
        rows,
        cos,
        sin,
        none if q_norm is None else q_norm,
        none if k_norm is None else k_norm,
        heads=np.int32(heads),
        kv_heads=np.int32(kv_heads),
        scale=np.float32(scale),
        eps=np.float32(eps),
        window=np.int32(window),
        softcap=np.float32(softcap),
        interleaved=np.int32(interleaved),
    )
    return out, pool


def rms_norm(
    x: jax.Array, weight: jax.Array, rows: jax.Array, *, eps: float = 1e-6, residual: jax.Array | None = None
) -> jax.Array:
    """[residual +] x / sqrt(mean(x^2) + eps) * weight, f32 [T, D]."""
    register()
    call = jax.ffi.ffi_call("llmos_rms_norm", _f32(*x.shape))
    out: jax.Array = call(
        x, weight, jnp.zeros((0,), jnp.float32) if residual is None else residual, rows, eps=np.float32(eps)
    )
    return out


def embed(tokens: jax.Array, table: Packed, rows: jax.Array, *, scale: float = 1.0) -> jax.Array:
    """Dequantised rows of `table` [V, K] times `scale`: i32 [T] -> f32 [T, K]."""
    register()
    call = jax.ffi.ffi_call("llmos_embed", _f32(tokens.shape[0], table.shape[1]))
    out: jax.Array = call(tokens, table.data, rows, scale=np.float32(scale))
    return out


def empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> jax.Array:
    """An array whose memory is not written, and so not there, before it is used; what it holds is undefined.

    For a pool of gigabytes, where zeros would cost a second at start and all its memory at once.
    """
    return _empty(tuple(shape), np.dtype(dtype))()


@functools.cache
def _empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Callable[[], jax.Array]:
    register()
    return jax.jit(jax.ffi.ffi_call("llmos_empty", jax.ShapeDtypeStruct(shape, dtype)))


def sample(
    logits: jax.Array,
    rows: jax.Array,
    u: jax.Array,
    *,
    temperature: jax.Array,
    top_k: jax.Array,
    top_p: jax.Array,
    min_p: jax.Array,
    penalty: jax.Array,
    recent: jax.Array,
    mask: jax.Array | None = None,
    forced: jax.Array | None = None,
    top: int = 0,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """The next token of each row of logits f32 [B, V].

    Filters apply in the order penalty, mask, temperature, top-k, top-p, min-p; the draw inverts the distribution
    function in id order at `u` in [0, 1). Temperature 0 is greedy (lowest id among equals).

    Args:
        temperature, top_p, min_p, penalty: f32 [B]; off at 0, 1, 0, 1.
        top_k: i32 [B], 0 for off.
        recent: i32 [B, R], tokens that the penalty applies to, padded with -1.
        mask: u32 [B, ceil(V / 32)]; bit v % 32 of word v / 32 allows token v.
        forced: i32 [B]; a token to take without drawing, or -1.
        top: how many alternatives to return.

    Returns:
        token i32 [B] (-1: nothing allowed, or logits with NaN), its log-probability f32 [B], and the `top` most likely
        tokens i32 [B, top] with their log-probabilities, all under the unmodified softmax.
    """
    register()
    b = logits.shape[0]
    call = jax.ffi.ffi_call("llmos_sample", (_i32(b), _f32(b), _i32(b, top), _f32(b, top)))
    token, logprob, ids, logprobs = call(
        logits,
        rows,
        u,
        temperature,
        top_k,
        top_p,
        min_p,
        penalty,
        recent,
        jnp.zeros((0,), jnp.uint32) if mask is None else mask,
        jnp.zeros((0,), jnp.int32) if forced is None else forced,
    )
    return token, logprob, ids, logprobs
