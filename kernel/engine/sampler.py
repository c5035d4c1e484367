"""Choosing tokens on the device: one dispatch for all rows of a step.

What: `sample` pads a SampleBatch to the logits' rows and runs the sampling kernel.
Invariant: a row's choice depends on its logits, parameters, random number and mask alone.
Interface: `sample(logits, rows)`. Meaning and order of the filters: `llmos.drivers.cpu.sample`.
"""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
from jax import Array
from numpy.typing import NDArray

from llmos.drivers import cpu
from llmos.kernel.engine import xla_sampler
from llmos.kernel.engine.batch import SampleBatch, Sampled
from llmos.kernel.model.load import default_backend

_TOPS = (0, 8, 64)  # numbers of alternatives that are compiled; a request's own number is cut from these


@partial(jax.jit, static_argnames=("top", "backend"))
def _sample(
    logits: Array,
    floats_5B: Array,
    top_k_B: Array,
    recent_BR: Array,
    rows: Array,
    mask_BW: Array | None,
    *,
    top: int,
    backend: str,
) -> tuple[Array, Array, Array, Array]:
    kernel = cpu.sample if backend == "cpu" else xla_sampler.sample
    temperature, top_p, min_p, penalty, uniform = floats_5B
    return kernel(
        logits,
        rows,
        uniform,
        temperature=temperature,
        top_k=top_k_B,
        top_p=top_p,
        min_p=min_p,
        penalty=penalty,
        recent=recent_BR,
        mask=mask_BW,
        top=top,
    )


def _pad(x: NDArray, count: int) -> NDArray:  # type: ignore[type-arg]
    return np.concatenate([x, np.repeat(x[:1], count - len(x), axis=0)])


def sample(logits: Array, rows: SampleBatch) -> Sampled:
    """One token for each row of `rows` from the first rows of `logits` [B, V]; waits for the result."""
    bucket, count = logits.shape[0], len(rows.temperature_B)
    floats_B5 = np.stack(
        [rows.temperature_B, rows.top_p_B, rows.min_p_B, rows.penalty_B, rows.uniform_B], axis=1
    )
    tokens, logprobs, top_ids, top_logprobs = _sample(
        logits,
        np.ascontiguousarray(_pad(floats_B5, bucket).T),
        _pad(rows.top_k_B, bucket),
        _pad(rows.recent_BR, bucket),
        np.asarray(count, np.int32),
        None if rows.mask_BW is None else _pad(rows.mask_BW, bucket),
        top=next(t for t in _TOPS if t >= rows.top),
        backend=default_backend(),
    )
    return Sampled(
        np.asarray(tokens)[:count],
        np.asarray(logprobs)[:count],
        np.asarray(top_ids)[:count, : rows.top],
        np.asarray(top_logprobs)[:count, : rows.top],
    )
