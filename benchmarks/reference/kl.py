"""How far one next-token distribution is from another, when only the head of the reference was kept.

What: `Head` keeps the 64 likeliest tokens of a distribution and the mass of all others as one bucket;
    `divergence` is KL(reference || other) over those 65 outcomes.
Invariant: merging outcomes can only lower a KL, so the figure is a lower bound of the full one. Recording also
    notes both figures for llama.cpp's quantised arithmetic: merging hides about a tenth (0.0029 of 0.0032).
Interface: `head(logits) -> Head`; `divergence(head, logits) -> KL [T] in nats`; `log_softmax`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

KEPT = 64
Floats = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Head:
    """The likeliest tokens of T distributions: `ids` int32 [T, 64], `logprobs` f32 [T, 64], `rest` f32 [T]."""

    ids: npt.NDArray[np.int32]
    logprobs: Floats
    rest: Floats


def log_softmax(logits: Floats) -> Floats:
    """Log-probabilities in float64, over the last axis."""
    wide = logits.astype(np.float64)
    wide -= wide.max(-1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(-1, keepdims=True))


def _rest(logprobs: Floats, ids: npt.NDArray[np.int32]) -> Floats:
    """Log of the mass outside `ids`, summed over the others so that nothing cancels."""
    others = np.exp(logprobs)
    np.put_along_axis(others, ids.astype(np.int64), 0.0, -1)
    return np.log(np.maximum(others.sum(-1), 1e-300))


def head(logits: Floats) -> Head:
    """Keep the head of T distributions, logits [T, V]; likeliest first."""
    logprobs = log_softmax(logits)
    ids = np.argsort(-logprobs, axis=-1, kind="stable")[:, :KEPT].astype(np.int32)
    kept = np.take_along_axis(logprobs, ids.astype(np.int64), -1)
    return Head(ids, kept.astype(np.float32), _rest(logprobs, ids).astype(np.float32))


def divergence(reference: Head, logits: Floats) -> Floats:
    """KL(reference || softmax(logits)) in nats over 64 tokens and the rest, [T]."""
    logprobs = log_softmax(logits)
    q = np.take_along_axis(logprobs, reference.ids.astype(np.int64), -1)
    p, p_rest = reference.logprobs.astype(np.float64), reference.rest.astype(np.float64)
    # Stored in f32 they no longer sum to one exactly, which would be an error of the first order (1e-8).
    total = np.log(np.exp(p).sum(-1) + np.exp(p_rest))
    p, p_rest = p - total[..., None], p_rest - total
    return (np.exp(p) * (p - q)).sum(-1) + np.exp(p_rest) * (p_rest - _rest(logprobs, reference.ids))
