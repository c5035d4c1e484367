"""Self-improvement: in a domain whose answers can be checked, a model learns from its own.

What: rounds. A round draws groups of answers with the adapter as it stands, has them judged, and learns from how the
    answers of a group differ. `imitate` is the stage before: an adapter that answers as the domain's teacher does.
Invariant: no human's label is used behind imitation. A group whose answers are all worth the same is said and passed
    over; where there are no others, the run ends: NoSignal, or the domain is mastered. What was learnt by then is
    left all the same. What was drawn is kept, so a run that was killed goes on the way it went.
Interface: `Effort`, `improve(weights, domain, out, ...)` -> `Improved`; `imitate(...)`; `Watch`, `Told`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from llmos.abi.errors import CheckpointError, NoSignal
from llmos.drivers.weights.adapter import write_adapter
from llmos.kernel.learn import course as courses
from llmos.kernel.learn.arena import Arena
from llmos.kernel.learn.budget import Budget, budget, check
from llmos.kernel.learn.course import Course, Report, Watcher
from llmos.kernel.learn.data import Row
from llmos.kernel.learn.domains import Domain, described, draw
from llmos.kernel.learn.play import Play
from llmos.kernel.learn.policy import START, Grouped, Judged, Policy, Share, Strategy, batches
from llmos.kernel.learn.rounds import Round, Rounds, belongs
from llmos.kernel.learn.saved import keep
from llmos.kernel.learn.student import Keep, Remember, Student, adapted
from llmos.kernel.learn.trainer import Point, Recipe, Trainer

if TYPE_CHECKING:
    from llmos.drivers.weights import Weights
    from llmos.drivers.weights.adapter import Adapter
    from llmos.kernel.model.parameters import Mode


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """The dials.

    Args:
        rounds: of drawing and learning.
        groups, count: questions of a round, and answers to each.
        updates: steps that a round's answers are learnt in; each answer once.
        window, micro: tokens of a row, rows of a micro-batch.
        pull: what a nat of distance to the start costs.
        patience: times that a round is drawn before it is said that nothing can be learnt.
        mode: numerics of the engine that answers.
    """

    rounds: int = 50
    groups: int = 16
    count: int = 8
    updates: int = 1
    window: int = 256
    micro: int = 4
    rate: float = 1e-4
    rank: int = 16
    pull: float = 0.02
    strategy: Strategy = field(default_factory=Grouped)
    share: Share = "token"
    patience: int = 4
    seed: int = 0
    keep: Keep = "int8"
    mode: Mode = "native"
    save_every: float = 120.0

    @property
    def recipe(self) -> Recipe:
        """The rate rises for a while and then stays."""
        return Recipe(
            steps=self.rounds * self.updates, rate=self.rate, floor=1.0, betas=(0.9, 0.95), save_every=self.save_every
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Told:
    """One round, for who watches. `kl` is nats a token from the start; `seconds` it took, `left` are to come."""

    number: int
    rounds: int
    reward: float
    right: float
    equal: float  # share of groups
    kl: float
    tokens: float  # of an answer
    cut: float  # share of answers
    faults: int
    rates: tuple[float, ...]  # by level, as the curriculum takes them to be
    seconds: float
    left: float


class Watch(Protocol):
    """Who is told of a run."""

    def begins(self, budget: Budget, effort: Effort) -> None:
        """Before it begins."""

    def round(self, told: Told) -> None:
        """Behind each round."""


@dataclass(frozen=True, slots=True)
class Improved:
    """What came of it. `mastered`: it ended early, everything was right."""

    out: Path
    adapter: Adapter
    told: tuple[Told, ...]
    mastered: bool

    @property
    def seconds(self) -> float:
        return sum(told.seconds for told in self.told)


def imitate(
    weights: Weights,
    domain: Domain,
    out: Path,
    count: int,
    course: Course,
    watch: Watcher | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Report:
    """Teach an adapter, into `out`/adapter, to answer as the domain's teacher does: `count` tasks, levels in turns.

    Raises as `course.sft`.
    """
    rows = []
    for i in range(count):
        rng = Random(f"imitate/{course.seed}/{i}")
        task = draw(domain, "train", i % domain.levels, rng)
        rows.append(Row(f"task {i}", {"prompt": task.question, "completion": domain.teach(task, rng)}))
    return courses.sft(weights, rows, out, course, watch, None, stop)


def improve(
    weights: Weights,
    domain: Domain,
    out: Path,
    effort: Effort,
    *,
    arena: Arena | None = None,
    start: Adapter | None = None,
    watch: Watch | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Improved:
    """Improve an adapter on its own answers, into `out`/adapter; goes on where a run in that folder stopped.

    Args:
        arena: to ask in, of the same weights and domain; None makes one.
        start: an adapter to begin with; also what the distance is measured to.

    Raises:
        NoSignal: every answer is worth as much as every other, and it is not that all are right.
        LearningError: the domain's check fails time after time, or the run does not fit memory.
        CheckpointError: the folder is of another run.
        TrainingDiverged, Cancelled, DiskFull.
    """
    belongs(out, settings(weights, domain, effort, start))
    student = adapted(
        weights, effort.window, rank=effort.rank, seed=effort.seed, keep=effort.keep, start=start
    )
    student = dataclasses.replace(student, frozen={**student.frozen, START: student.trained})
    tokens = effort.rounds * effort.groups * effort.count * effort.window // 4
    planned = budget(student, tokens, effort.micro * effort.window, effort.window)
    check(planned)
    if watch is not None:
        watch.begins(planned, effort)
    made = arena or Arena(weights, domain, effort.window, mode=effort.mode)
    try:
        return _Run(student, made, out, effort, planned.remember, watch).through(stop)
    finally:
        if arena is None:
            made.close()


def settings(weights: Weights, domain: Domain, effort: Effort, start: Adapter | None) -> dict[str, Any]:
    """What must not change between a run and its resumption, as JSON."""
    dials = dataclasses.asdict(effort) | {"strategy": f"{effort.strategy}"}  # its name and its dials
    del dials["save_every"]
    begun = "" if start is None else start.version
    return {"domain": described(domain), "dials": dials, "model": weights.identity, "start": begun}


class _Run:
    """One run: a round for every `updates` steps of the trainer."""

    def __init__(
        self,
        student: Student,
        arena: Arena,
        out: Path,
        effort: Effort,
        remember: Remember,
        watch: Watch | None,
    ) -> None:
        self._student, self._out, self._effort, self._watch = student, out, effort, watch
        objective = Policy(
            length=effort.window, follows=effort.strategy.follows, pull=effort.pull, remember=remember
        )
        self._trainer = Trainer(student, objective, effort.recipe, out / "checkpoints")
        self._play = Play(
            arena=arena, strategy=effort.strategy, groups=effort.groups, count=effort.count,
            patience=effort.patience, seed=effort.seed,
        )  # fmt: skip
        self._rounds = Rounds(out / "rounds")
        self._history: list[Round] = []  # but for the last without what was learnt from them

    def through(self, stop: Callable[[], bool]) -> Improved:
        try:
            self._trainer.run(self._batches, self._learnt, stop)
        except NoSignal as error:
            if not self._trainer.learnt.curve:
                raise
            done = self._left(error.mastered)
            if not error.mastered:
                raise
            return done
        return self._left(mastered=False)

    def _left(self, mastered: bool) -> Improved:
        """Leave what has been learnt so far in the folder."""
        learnt = self._trainer.learnt
        adapter = self._student.adapter(learnt.trained)
        write_adapter(adapter, self._out / "adapter")
        rounds = len(learnt.curve) // self._effort.updates
        told = tuple(self._tell(number, learnt.curve) for number in range(rounds))
        keep(self._out / "rounds.json", [dataclasses.asdict(one) for one in told])
        return Improved(self._out, adapter, told, mastered)

    def _batches(self, step: int) -> Sequence[Judged]:
        effort = self._effort
        number, part = divmod(step, effort.updates)
        lessons = self._round(number).lessons
        order = np.random.default_rng((effort.seed, number)).permutation(len(lessons))
        enough = len(lessons) >= effort.updates
        parts = np.array_split(order, effort.updates) if enough else [order] * effort.updates
        return list(batches([lessons[i] for i in parts[part]], effort.window, effort.micro, effort.share))

    def _round(self, number: int) -> Round:
        """A round as it was kept, or drawn now. Raises CheckpointError where one before it is lost."""
        while len(self._history) <= number:
            at = len(self._history)
            found = self._rounds.get(at)
            if found is None and at < number:
                raise CheckpointError(
                    f"round {at} of {self._out} is lost", why=f"what was learnt goes on behind round {number}",
                    do="choose another --out",
                )  # fmt: skip
            if found is None:
                adapter = self._student.adapter(self._trainer.learnt.trained)
                found = self._play.round(at, [made.tally for made in self._history], adapter)
                self._rounds.keep(found)
            if self._history:
                self._history[-1] = dataclasses.replace(self._history[-1], lessons=())
            self._history.append(found)
        return self._history[number]

    def _learnt(self, point: Point) -> None:
        number, part = divmod(point.step, self._effort.updates)
        if self._watch is not None and part + 1 == self._effort.updates:
            self._watch.round(self._tell(number, self._trainer.learnt.curve))

    def _tell(self, number: int, curve: Sequence[Point]) -> Told:
        """A round, from what was kept of it and the steps that followed."""
        made, updates, rounds = self._round(number), self._effort.updates, self._effort.rounds

        def steps(n: int) -> Sequence[Point]:
            return curve[n * updates : (n + 1) * updates]

        def took(n: int) -> float:
            return self._history[n].seconds + sum(point.seconds for point in steps(n))

        lately = [took(n) for n in range(max(0, number - 7), number + 1)]
        rates = self._play.ladder.rates([one.tally for one in self._history[: number + 1]])
        return Told(
            number, rounds, made.reward / made.answers, made.right / made.answers, made.equal / made.groups,
            steps(number)[-1].seen["kl"], made.tokens / made.answers, made.cut / made.answers, made.faults,
            tuple(rates), lately[-1], float(np.median(lately)) * (rounds - number - 1),
        )  # fmt: skip
