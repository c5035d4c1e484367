"""What a student learns from its own answers, once they are judged.

What: strategies say what each answer of a group was worth against the others (`Grouped`: GRPO, Shao et al. 2024, arXiv
    2402.03300; `Chosen`: expert iteration, Anthony et al. 2017, arXiv 1705.08439); the objective `Policy` makes the
    better ones likelier, and keeps the student near where it started.
Invariant: the policy that drew an answer is the engine's, as its tokens' log-probabilities say; the ratio to it is
    bounded on both sides, so a rounding of the engine's moves nothing far. A group of equals teaches nothing and has no
    part in a step. The distance to the start is always measured (k3 of Schulman's estimators, never below 0).
Interface: `Grouped()`, `Chosen()`, both `Strategy`; `Lesson`, an answer and its worth; `batches(lessons, ...)`;
    `Policy(length=...)`, which finds the start in `frozen["start"]`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from llmos.kernel.learn.objective import Sums, log_likelihoods
from llmos.kernel.learn.packing import F32, Batch, Example, pack
from llmos.kernel.learn.student import Remember, Student, Tree

START = "start"  # in `frozen`: what was trained when the run began
FAR = 3.0  # the largest ratio that counts, of answers to be unlearnt too (Ye et al. 2020, arXiv 1912.09729)
Share = Literal["token", "answer"]
"""What counts alike: every token (DAPO, Yu et al. 2025, arXiv 2503.14476; but for a factor Dr. GRPO, Liu et al. 2025,
arXiv 2503.20783), or every answer, however long (GRPO as it was first told: long wrong answers cost little)."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """A question and an answer of `answer` tokens behind it, drawn with these log-probabilities, and what it is worth:
    above 0 to be made likelier, below to be unlearnt."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]  # of the answer's tokens
    worth: float


class Strategy(Protocol):
    """A frozen dataclass that says what to learn from a group's rewards."""

    def __hash__(self) -> int: ...

    @property
    def follows(self) -> bool:
        """Whether steps follow the policy's gradient, by ratios; else the likelihood's."""

    def worths(self, rewards: Sequence[float]) -> list[float]:
        """Of each answer; 0 teaches nothing. Of equals nothing is better: all 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Grouped:
    """GRPO: above or below the group's mean; `spread`: in units of the group's deviation."""

    spread: bool = True

    @property
    def follows(self) -> bool:
        return True

    def worths(self, rewards: Sequence[float]) -> list[float]:
        values = np.asarray(rewards, np.float64)
        if np.ptp(values) == 0:
            return [0.0] * len(rewards)
        above = values - values.mean()
        found: list[float] = (above / values.std() if self.spread else above).tolist()
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """Expert iteration: the best answers of a group are imitated, of each group as much."""

    @property
    def follows(self) -> bool:
        return False

    def worths(self, rewards: Sequence[float]) -> list[float]:
        best = max(rewards)
        if min(rewards) == best:
            return [0.0] * len(rewards)
        return [float(r == best) / rewards.count(best) for r in map(float, rewards)]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True, kw_only=True)
class Judged(Batch):
    """A batch of answers: of each prediction what its answer is worth, and its log-probability when it was drawn."""

    worth_W: F32
    drawn_W: F32


def batches(lessons: Sequence[Lesson], length: int, rows: int, share: Share = "token") -> Iterator[Judged]:
    """Lessons packed in rows of `length`."""
    examples, drawn = list[Example](), list[F32]()
    for lesson in lessons:
        size, said = len(lesson.tokens), len(lesson.logprobs)
        weights, before = np.zeros(size, np.float32), np.zeros(size, np.float32)
        weights[size - said :] = 1.0 if share == "token" else 1.0 / said
        before[size - said :] = lesson.logprobs
        examples.append(Example(np.asarray(lesson.tokens, np.int32), weights))
        drawn.append(before)
    first = 0
    for batch in pack(examples, length, rows, share=True):
        owners_W = batch.owners_W + first
        places_W = batch.positions_T[batch.wanted_W] + 1  # of the target in its own sequence
        worth_W = np.asarray([lessons[i].worth for i in owners_W], np.float32)
        drawn_W = np.asarray([drawn[i][p] for i, p in zip(owners_W, places_W, strict=True)], np.float32)
        packed = {part.name: getattr(batch, part.name) for part in fields(batch)}
        yield Judged(**packed, worth_W=worth_W, drawn_W=drawn_W)
        first += int(batch.slots_T.max()) + 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """Worthier answers become likelier, within bounds about what drew them and about the start.

    Args:
        length: of a row.
        follows: see `Strategy`; without, every answer is imitated by its worth.
        low, high: how far below and above 1 a ratio is followed; more room upwards lets rare tokens grow (DAPO).
        pull: what a nat of distance to the start costs, in worths.
    """

    length: int
    follows: bool = True
    low: float = 0.2
    high: float = 0.28
    pull: float = 0.02
    remember: Remember = "products"

    def __call__(self, student: Student, trained: Tree, frozen: Tree, batch: Batch) -> Sums:
        assert isinstance(batch, Judged)

        def said(tree: Tree) -> Array:
            parameters = student.parameters(tree, frozen)
            return log_likelihoods(student, parameters, batch, self.length, self.remember)[0]

        now_W, start_W = said(trained), lax.stop_gradient(said(frozen[START]))
        moved_W = now_W - batch.drawn_W
        worth_W = jnp.asarray(batch.worth_W)
        if self.follows:
            ratio_W = jnp.exp(jnp.minimum(moved_W, jnp.log(jnp.float32(FAR))))
            bounded_W = jnp.clip(ratio_W, 1 - self.low, 1 + self.high)
            gain_W = jnp.minimum(ratio_W * worth_W, bounded_W * worth_W)
        else:
            gain_W = now_W * worth_W
        away_W = jnp.clip(start_W - now_W, -20.0, 20.0)
        distance_W = jnp.exp(away_W) - away_W - 1.0
        weights_W = jnp.asarray(batch.weights_W)
        out_W = (moved_W < jnp.log1p(-self.low)) | (moved_W > jnp.log1p(self.high))
        seen = {"kl": distance_W, "moved": jnp.abs(moved_W), "out": out_W.astype(jnp.float32)}
        return Sums(
            jnp.sum(weights_W * (self.pull * distance_W - gain_W)),
            jnp.sum(weights_W),
            {name: jnp.sum(weights_W * value_W) for name, value_W in seen.items()},
        )
