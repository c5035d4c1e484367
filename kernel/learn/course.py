"""A course: from a data set to a trained model or adapter in a folder.

What: `Course` holds the few dials; `sft`, `dpo` and `pretrain` read the data, make the student, say what the run will
    take, train, and write the result beside its curve.
Invariant: the data is read and checked whole before anything is trained. What is written is whole or not there; a run
    begun again with the same folder goes on where it stopped. The order of the data is a function of seed and epoch.
Interface: `Course`, `sft`, `dpo`, `pretrain`, `Report`; `Watcher`, who is told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from llmos.abi.errors import BadExamples
from llmos.drivers.weights.adapter import MATRICES, Adapter, write_adapter
from llmos.kernel.learn.budget import Budget, budget, check
from llmos.kernel.learn.data import Conversations, Row
from llmos.kernel.learn.objective import Likelihood, Objective, Preference
from llmos.kernel.learn.packing import Batch, Example, pack
from llmos.kernel.learn.saved import keep
from llmos.kernel.learn.student import Keep, Student, adapted
from llmos.kernel.learn.trainer import Learnt, Point, Recipe, Trainer

if TYPE_CHECKING:
    from llmos.drivers.weights import Weights


@dataclass(frozen=True, kw_only=True, slots=True)
class Course:
    """The dials. `batch` is tokens a step learns from (padding included), in micro-batches of `micro` rows."""

    epochs: float = 3.0
    steps: int = 0  # in all; 0: as many as the epochs take
    window: int = 512
    batch: int = 4096
    micro: int = 2
    rate: float = 2e-4
    rank: int = 16
    alpha: float | None = None
    targets: tuple[str, ...] = MATRICES
    keep: Keep = "int8"
    seed: int = 0
    save_every: float = 120.0


class Watcher(Protocol):
    """Who is told of a run."""

    def planned(self, budget: Budget, steps: int, tokens: int) -> None:
        """Before it begins."""

    def learnt(self, point: Point, steps: int) -> None:
        """Behind each step."""


class Silent:
    """Nobody is told."""

    def planned(self, budget: Budget, steps: int, tokens: int) -> None: ...

    def learnt(self, point: Point, steps: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a course."""

    out: Path
    curve: tuple[Point, ...]
    tokens: int
    seconds: float
    budget: Budget

    @property
    def tokens_per_s(self) -> float:
        """Tokens learnt from a second, the first step (its compilation) aside."""
        points = self.curve[1:] or self.curve
        first = self.curve[0].tokens if len(self.curve) > 1 else 0
        return (points[-1].tokens - first) / max(1e-9, sum(p.seconds for p in points))


class Order:
    """Micro-batches by step: shuffled anew each epoch, groups of examples that belong together kept side by side;
    beginnings that examples share are computed once, where that makes fewer batches."""

    def __init__(self, groups: Sequence[Sequence[Example]], course: Course) -> None:
        self._groups, self._course = groups, course
        self._packed = lru_cache(2)(self._pack)
        self._accumulate = max(1, course.batch // (course.micro * course.window))
        plain, shared = (self._packed(0, share) for share in (False, True))
        self._share = len(shared) < len(plain)
        first = shared if self._share else plain
        self.steps_an_epoch = -(-len(first) // self._accumulate)
        self.steps = course.steps or max(1, round(course.epochs * self.steps_an_epoch))
        self.tokens = round(self.steps / self.steps_an_epoch * sum(batch.tokens for batch in first))

    def __call__(self, step: int) -> Sequence[Batch]:
        epoch, at = divmod(step, self.steps_an_epoch)
        batches = self._packed(epoch, self._share)
        at %= -(-len(batches) // self._accumulate)  # an epoch may need fewer steps than the first
        return batches[at * self._accumulate :][: self._accumulate]

    def _pack(self, epoch: int, share: bool) -> tuple[Batch, ...]:
        order = np.random.default_rng((self._course.seed, epoch)).permutation(len(self._groups))
        examples = [e for i in order for e in self._groups[i]]
        together = len(self._groups[0])
        return tuple(pack(examples, self._course.window, self._course.micro, together, share))


def sft(
    weights: Weights,
    rows: Sequence[Row],
    out: Path,
    course: Course,
    watch: Watcher | None = None,
    start: Adapter | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Report:
    """Teach an adapter the assistant's turns of conversations.

    Raises:
        BadExamples: a row that cannot be learnt from.
        TrainingDiverged, LearningError, Cancelled, DiskFull.
    """
    conversations = Conversations(weights, course.window)
    groups = [(conversations.example(row),) for row in rows]
    student = _student(weights, course, start)
    return _teach(
        student, groups, lambda b: Likelihood(length=course.window, remember=b), out, course, watch, stop
    )


def dpo(
    weights: Weights,
    rows: Sequence[Row],
    out: Path,
    course: Course,
    watch: Watcher | None = None,
    start: Adapter | None = None,
    stop: Callable[[], bool] = lambda: False,
    beta: float = 0.1,
) -> Report:
    """Teach an adapter to prefer the chosen answers. Raises as `sft`."""
    conversations = Conversations(weights, course.window)
    pairs = [conversations.pair(row) for row in rows]
    student = _student(weights, course, start)
    most = (
        course.micro * course.window // 4
    )  # pairs that can stand in a batch: an example has two tokens at least

    def objective(remember: Any) -> Objective:
        return Preference(length=course.window, pairs=min(most, len(pairs)), beta=beta, remember=remember)

    return _teach(student, pairs, objective, out, course, watch, stop)


def _student(weights: Weights, course: Course, start: Adapter | None) -> Student:
    return adapted(
        weights, course.window, rank=course.rank, alpha=course.alpha, targets=course.targets, seed=course.seed,
        keep=course.keep, start=start,
    )  # fmt: skip


def _teach(
    student: Student,
    groups: Sequence[Sequence[Example]],
    objective: Callable[[Any], Objective],
    out: Path,
    course: Course,
    watch: Watcher | None,
    stop: Callable[[], bool],
) -> Report:
    learnt, report = run(student, groups, objective, out, course, watch, stop)
    write_adapter(student.adapter(learnt.trained), out / "adapter")
    return report


def run(
    student: Student,
    groups: Sequence[Sequence[Example]],
    objective: Callable[[Any], Objective],
    out: Path,
    course: Course,
    watch: Watcher | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[Learnt, Report]:
    """Train, with checkpoints under `out`/checkpoints; the curve is left as `out`/curve.json."""
    if not groups:
        raise BadExamples("there is nothing to learn from", do="name a data set with rows")
    watch = watch or Silent()
    order = Order(groups, course)
    planned = budget(student, order.tokens, course.micro * course.window, course.window)
    check(planned)
    watch.planned(planned, order.steps, order.tokens)
    recipe = Recipe(steps=order.steps, rate=course.rate, save_every=course.save_every)
    trainer = Trainer(student, objective(planned.remember), recipe, out / "checkpoints")
    learnt = trainer.run(order, lambda point: watch.learnt(point, order.steps), stop)
    keep(out / "curve.json", [asdict(p) for p in learnt.curve])
    seconds = sum(p.seconds for p in learnt.curve)
    return learnt, Report(out, learnt.curve, learnt.curve[-1].tokens, seconds, planned)
