"""What a student is taught to make small.

What: sums over a batch, differentiable in what is trained: `Likelihood` (next tokens: pre-training and supervised
    fine-tuning) and `Preference` (DPO, Rafailov et al. 2023, arXiv 2305.18290).
Invariant: an objective returns sums and the weight they are to be divided by, so that accumulated micro-batches equal
    one large batch. Logits exist for some predictions at a time only.
Interface: `Objective.__call__(student, trained, frozen, batch) -> Sums`; `log_likelihoods`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array, lax

from llmos.kernel.learn.ops import Dense, TrainingOps, dot, product, values_of
from llmos.kernel.learn.packing import Batch
from llmos.kernel.learn.student import Remember, Student, Tree, head_of, hidden, logits
from llmos.kernel.model.attention import AttentionBatch
from llmos.kernel.model.xla_ops import rms_norm

CHUNK = 256  # predictions whose logits exist at one time: 256 x 152k in f32 are 156 MB
LOGITS = 1 << 24  # of a likelihood's predictions together: 64 MiB


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class Sums:
    """`loss` to be divided by `weight`; `seen` are further sums to report, over `weight` too."""

    loss: Array
    weight: Array
    seen: Mapping[str, Array]


class Objective(Protocol):
    """A frozen dataclass with one method."""

    def __hash__(self) -> int: ...

    def __call__(self, student: Student, trained: Tree, frozen: Tree, batch: Batch) -> Sums: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Likelihood:
    """Mean negative log-likelihood of the targets, by weight."""

    length: int
    remember: Remember = "products"

    def __call__(self, student: Student, trained: Tree, frozen: Tree, batch: Batch) -> Sums:
        parameters, c = student.parameters(trained, frozen), student.config
        x_WD = _wanted(student, parameters, batch, self.length, self.remember)
        h_WD = rms_norm(x_WD, parameters["final_norm"], jnp.int32(len(x_WD)), eps=c.norm_eps)
        asked = (head_of(parameters), h_WD, batch.targets_W, batch.weights_W)
        loss, right = _surprise(c.logit_softcap, not student.adapts, *asked)
        return Sums(loss, jnp.sum(batch.weights_W), {"accuracy": right})


@dataclass(frozen=True, kw_only=True, slots=True)
class Preference:
    """DPO: examples 2i and 2i + 1 of a batch are the chosen and the rejected answer to one question. The reference is
    the student without its adapter, in the same weights."""

    length: int
    pairs: int  # that a batch may hold
    beta: float = 0.1
    remember: Remember = "products"

    def __call__(self, student: Student, trained: Tree, frozen: Tree, batch: Batch) -> Sums:
        def by_example(parameters: Tree) -> Array:
            found_W, _ = log_likelihoods(student, parameters, batch, self.length, self.remember)
            return jax.ops.segment_sum(
                found_W * batch.weights_W, batch.owners_W, num_segments=2 * self.pairs
            ).reshape(-1, 2)

        now_P2 = by_example(student.parameters(trained, frozen))
        before_P2 = lax.stop_gradient(by_example(frozen))
        margin_P = self.beta * jnp.subtract(*jnp.moveaxis(now_P2 - before_P2, 1, 0))
        here_P = jnp.arange(self.pairs) < (jnp.max(batch.slots_T) + 1) // 2
        loss_P = jnp.where(here_P, -jax.nn.log_sigmoid(margin_P), 0.0)
        prefers = jnp.sum(jnp.where(here_P, margin_P > 0, False).astype(jnp.float32))
        return Sums(
            jnp.sum(loss_P),
            jnp.sum(here_P.astype(jnp.float32)),
            {"accuracy": prefers, "margin": jnp.sum(jnp.where(here_P, margin_P, 0.0))},
        )


def log_likelihoods(
    student: Student, parameters: Tree, batch: Batch, length: int, remember: Remember
) -> tuple[Array, Array]:
    """Of each wanted prediction its target's log-likelihood, and 1 where no token is likelier; f32 [W] both."""
    x_WD = _wanted(student, parameters, batch, length, remember)
    chunk = _chunk(len(x_WD), CHUNK)

    @jax.checkpoint
    def some(given: tuple[Array, Array]) -> tuple[Array, Array]:
        x_CD, targets_C = given
        logits_CV = logits(student.config, parameters, x_CD, TrainingOps(length))
        target_C = jnp.take_along_axis(logits_CV, targets_C[:, None], axis=1)[:, 0]
        best_C = (lax.stop_gradient(logits_CV).max(-1) <= target_C).astype(jnp.float32)
        return target_C - jax.nn.logsumexp(logits_CV, axis=-1), best_C

    given: Any = (x_WD.reshape(-1, chunk, x_WD.shape[-1]), batch.targets_W.reshape(-1, chunk))
    found, best = lax.map(some, given)
    return found.reshape(-1), best.reshape(-1)


def _wanted(student: Student, parameters: Tree, batch: Batch, length: int, remember: Remember) -> Array:
    """What the last layer leaves of the tokens whose successors are wanted, f32 [W, D]."""
    tokens_T, positions_T, slots_T = map(jnp.asarray, (batch.tokens_T, batch.positions_T, batch.slots_T))
    attention = AttentionBatch(positions_T, slots_T, jnp.zeros((1, 1), jnp.int32), jnp.int32(len(tokens_T)))
    shared = (batch.hosts_T, batch.shared_T)
    ops = TrainingOps(length, *(None if part is None else jnp.asarray(part) for part in shared))
    return hidden(student.config, parameters, tokens_T, attention, ops, remember)[batch.wanted_W]


def _chunk(count: int, most: int) -> int:
    """The largest divisor of `count` that is not larger than `most`."""
    return next(c for c in range(min(most, count), 0, -1) if count % c == 0)


# -- the sum of weighted surprises, whose gradient is computed while the logits are there: they are never computed twice


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _surprise(
    softcap: float, taught: bool, head: Any, h_WD: Array, targets_W: Array, weights_W: Array
) -> tuple[Array, Array]:
    """(sum of weight * -log likelihood, sum of weights where no token is likelier); `taught`: the head learns too."""
    given, wide = _cut(head, h_WD, targets_W, weights_W), Dense(values_of(head))
    losses, rights = lax.map(lambda part: _logits(softcap, wide, *part)[:2], given)
    return jnp.sum(losses), jnp.sum(rights)


def _forward(
    softcap: float, taught: bool, head: Any, h_WD: Array, targets_W: Array, weights_W: Array
) -> tuple[tuple[Array, Array], tuple[Any, Array]]:
    values_VD = values_of(head)  # once, not for each part

    def some(sum_VD: Any, part: Any) -> tuple[Any, tuple[Array, Array, Array]]:
        loss, right, slope_CV = _logits(softcap, Dense(values_VD), *part)
        if taught:
            sum_VD = sum_VD + dot(slope_CV, part[0], ((0,), (0,)))
        return sum_VD, (loss, right, dot(slope_CV, values_VD, ((1,), (0,))))

    start = jnp.zeros(values_VD.shape, jnp.float32) if taught else None
    slope_VD, (losses, rights, slopes) = lax.scan(some, start, _cut(head, h_WD, targets_W, weights_W))
    return (jnp.sum(losses), jnp.sum(rights)), (slope_VD, slopes.reshape(h_WD.shape))


def _backward(softcap: float, taught: bool, kept: tuple[Any, Array], given: tuple[Array, Array]) -> Any:
    slope_VD, slope_WD = kept
    return (Dense(given[0] * slope_VD) if taught else None), given[0] * slope_WD, None, None


_surprise.defvjp(_forward, _backward)


def _cut(head: Any, h_WD: Array, targets_W: Array, weights_W: Array) -> tuple[Array, Array, Array]:
    """In parts whose logits are not more than `LOGITS`."""
    chunk = _chunk(len(h_WD), max(1, LOGITS // head.outputs))
    return h_WD.reshape(-1, chunk, h_WD.shape[-1]), targets_W.reshape(-1, chunk), weights_W.reshape(-1, chunk)


def _logits(
    softcap: float, head: Any, h_CD: Array, targets_C: Array, weights_C: Array
) -> tuple[Array, Array, Array]:
    """Of some predictions: the loss, how many are right (both by weight), and the loss's slope by logits."""
    logits_CV = product(h_CD, head)
    if softcap:
        logits_CV = jnp.tanh(logits_CV / softcap) * softcap
    is_target_CV = lax.broadcasted_iota(jnp.int32, logits_CV.shape, 1) == targets_C[:, None]
    top_C = logits_CV.max(-1)
    exp_CV = jnp.exp(logits_CV - top_C[:, None])
    total_C = exp_CV.sum(-1)
    target_C = jnp.where(is_target_CV, logits_CV, 0.0).sum(-1)
    loss = jnp.sum(weights_C * (jnp.log(total_C) + top_C - target_C))
    right = jnp.sum(jnp.where(top_C <= target_C, weights_C, 0.0))
    slope_CV = exp_CV * (weights_C / total_C)[:, None] - jnp.where(is_target_CV, weights_C[:, None], 0.0)
    if softcap:
        slope_CV = slope_CV * (1.0 - (logits_CV / softcap) ** 2)
    return loss, right, slope_CV
