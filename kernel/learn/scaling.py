"""Scaling laws, measured here: many small models foretell a larger one that nobody has trained.

What: a grid of sizes and amounts of text, each trained once on fresh text (one epoch, the same schedule, a rate
    that follows from the size); the law fitted to their losses on held-out text; what it foretells for one more
    run, of eight times the largest one's computing; then that run.
Invariant: what is foretold is written down before the run it is about begins. Smaller amounts of text are the
    beginnings of larger ones. Each run's result is kept when it ends, and its checkpoints while it goes on: whoever
    kills the study loses seconds. The plan is made once, from this machine's measured speed, and kept; other text
    or dials are refused.
Interface: `study(paths, out, design, watch) -> Study`; `Design`, `Size`, `Watching`.

Parameters are counted without the vocabulary's (Kaplan et al. 2020, arXiv 2001.08361), computing as 6 N D.
"""

from __future__ import annotations

import json
import math
import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from llmos.abi.errors import BadExamples, CheckpointError, LearningError
from llmos.kernel.learn.evaluation import measured
from llmos.kernel.learn.law import Law, Seen, fit, spread
from llmos.kernel.learn.objective import Likelihood
from llmos.kernel.learn.packing import Batch, pack
from llmos.kernel.learn.saved import keep
from llmos.kernel.learn.stream import Stream, stream, windows
from llmos.kernel.learn.student import Student, fresh
from llmos.kernel.learn.trainer import Point, Recipe, Trainer
from llmos.kernel.model.config import ModelConfig

HEAD = 32  # numbers a head
PROBES = 5  # steps that a size's speed is measured on, the first (its compilation) aside
AROUND = 5.0  # seconds a run takes beside its steps: compiling, measuring its loss
LARGER = 8.0  # times the computing of the grid's largest run


@dataclass(frozen=True, slots=True)
class Size:
    """A decoder's shape."""

    layers: int
    dim: int

    @property
    def parameters(self) -> int:
        """Of its layers: the vocabulary's and the norms' aside."""
        return self.layers * (4 * self.dim**2 + 3 * self.dim * self.ffn)

    @property
    def ffn(self) -> int:
        """8/3 of the width, in whole heads."""
        return -(-8 * self.dim // 3 // HEAD) * HEAD

    def config(self, vocab: int, window: int) -> ModelConfig:
        """As the decoder takes it."""
        heads = self.dim // HEAD
        return ModelConfig(
            family="llama", vocab=vocab, layers=self.layers, dim=self.dim, heads=heads, kv_heads=heads,
            head_dim=HEAD, ffn=self.ffn, norm_eps=1e-5, rope_theta=1e4, context=window,
        )  # fmt: skip


SIZES = (Size(2, 32), Size(2, 64), Size(3, 96), Size(5, 128))  # each about three times the one before


@dataclass(frozen=True, kw_only=True, slots=True)
class Design:
    """The dials.

    `sizes` x `ladder` doublings of text are the grid, without those pairs that cost more than `share` of the dearest:
    so the whole is affordable and the largest run is far from where the law is asked. `minutes` bounds the study on
    this machine, and with the text there is decides the smallest amount of text.
    """

    sizes: tuple[Size, ...] = SIZES
    larger: Size = Size(6, 160)  # the one that is foretold
    ladder: int = 6
    share: float = 0.16
    window: int = 128
    rows: int = 2  # a batch: small, since the smallest amount of text must still make a few hundred steps
    vocab: int = 512
    rate: float = 1e-2  # of the smallest size
    power: float = -0.4  # of the size, by which the rate falls
    checked: int = 1024  # windows of held-out text that losses are measured on
    minutes: float = 45.0
    least: int = 200  # steps of the shortest run
    seed: int = 0

    def rate_of(self, size: Size) -> float:
        """The highest learning rate of a size: a power of its parameters, fitted once (docs/learning.md)."""
        return self.rate * (size.parameters / self.sizes[0].parameters) ** self.power


@dataclass(frozen=True, slots=True)
class Run:
    """One model to be trained on so many windows of text; `tokens` are those it learns to foretell."""

    size: Size
    windows: int
    tokens: int

    @property
    def name(self) -> str:
        return f"{self.size.layers}x{self.size.dim}-{self.windows}"

    @property
    def compute(self) -> float:
        """Operations, by 6 N D."""
        return 6.0 * self.size.parameters * self.tokens


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a run: nats a token and bits a byte of held-out text."""

    run: Run
    loss: float
    bits_per_byte: float
    seconds: float

    @property
    def seen(self) -> Seen:
        return Seen(self.run.size.parameters, self.run.tokens, self.loss)


@dataclass(frozen=True, slots=True)
class Plan:
    """Every run, and the seconds that this machine will take for each."""

    grid: tuple[Run, ...]
    larger: Run
    seconds: tuple[float, ...]  # of the grid's runs, and last of the larger one


@dataclass(frozen=True, slots=True)
class Foretold:
    """What the law says of the larger run; `low` and `high`: with each run of the grid left out in turn."""

    law: Law
    loss: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Study:
    """All of it."""

    out: Path
    grid: tuple[Done, ...]
    larger: Done
    foretold: Foretold

    @property
    def error(self) -> float:
        """How far off the foretold loss is, as a share of the measured one."""
        return abs(self.foretold.loss / self.larger.loss - 1)


class Watching(Protocol):
    """Who is told of a study."""

    def planned(self, plan: Plan) -> None:
        """Before it begins."""

    def begins(self, run: Run, number: int, runs: int) -> None:
        """Before a run; `number` from 1."""

    def learnt(self, point: Point, steps: int) -> None:
        """Behind each step."""

    def ended(self, done: Done) -> None:
        """Behind each run, also where an earlier process ended it."""

    def foretells(self, foretold: Foretold, larger: Run) -> None:
        """Between the grid and the larger run."""


def study(
    paths: Sequence[Path], out: Path, design: Design | None = None, watch: Watching | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Study:  # fmt: skip
    """Train the grid on the documents under `paths`, fit, foretell, and train what was foretold. Results go to `out`,
    where a study that was stopped goes on.

    Raises:
        BadExamples: too little text.
        CheckpointError: `out` holds a study of other text or dials.
        LearningError: too little time.
        TrainingDiverged, Cancelled, DiskFull.
    """
    design = design or Design()
    out.mkdir(parents=True, exist_ok=True)
    text = stream(paths, out, design.vocab, design.window, design.seed)
    plan = _plan(text, out, design)
    if watch:
        watch.planned(plan)
    count = len(plan.grid) + 1

    def done(run: Run, number: int) -> Done:
        if watch:
            watch.begins(run, number, count)
        found = _trained(run, text, out / "runs", design, watch.learnt if watch else lambda p, s: None, stop)
        if watch:
            watch.ended(found)
        return found

    grid = tuple(done(run, i) for i, run in enumerate(plan.grid, 1))
    foretold = _foretell(grid, plan.larger)
    keep(out / "foretold.json", asdict(foretold))
    if watch:
        watch.foretells(foretold, plan.larger)
    made = Study(out, grid, done(plan.larger, count), foretold)
    keep(out / "study.json", asdict(made) | {"out": out.name, "error": made.error})
    return made


def _foretell(grid: Sequence[Done], larger: Run) -> Foretold:
    seen = [done.seen for done in grid]
    law, at = fit(seen), (larger.size.parameters, larger.tokens)
    return Foretold(law, law.loss(*at), *spread(seen, law, *at))


# -- the plan


def _plan(text: Stream, out: Path, design: Design) -> Plan:
    """The plan that lies there, else one from the speed of this machine."""
    path = out / "plan.json"
    wanted = {"text": text.digest, "design": json.loads(json.dumps(asdict(design)))}
    if path.exists():
        said = json.loads(path.read_text())
        if {name: said[name] for name in wanted} != wanted:
            raise CheckpointError(
                f"{out} holds a study of other text or other dials",
                why="its runs would not belong together",
                do="name the same documents and options again, or choose another --out",
            )
    else:
        unit, seconds = _unit(text, design)
        said = {**wanted, "unit": unit, "seconds_a_window": seconds}
        keep(path, said)
    grid, larger = _runs(design, said["unit"])
    took = dict(zip([*design.sizes, design.larger], said["seconds_a_window"], strict=True))
    return Plan(grid, larger, tuple(run.windows * took[run.size] + AROUND for run in (*grid, larger)))


def _unit(text: Stream, design: Design) -> tuple[int, list[float]]:
    """Windows of the shortest run, as many as text and minutes allow; and seconds a window of each size."""
    least = design.least * design.rows
    grid, larger = _runs(design, least)
    most = max(run.windows for run in (*grid, larger)) / least
    if (unit := len(text.order) / most) < least:
        raise BadExamples(
            f"{len(text.learnt_from):,} tokens of text are too few",
            why=f"the longest run wants {least * most * design.window:,.0f} that are new to it",
            do="name more documents",
        )
    seconds = [_speed(size, text, design) for size in (*design.sizes, design.larger)]
    took = dict(zip([*design.sizes, design.larger], seconds, strict=True))
    a_unit = sum(run.windows / least * took[run.size] for run in (*grid, larger))
    left = design.minutes * 60 - AROUND * (len(grid) + 1)
    unit = min(unit, left / a_unit)
    if unit < least:
        need = (least * a_unit + AROUND * (len(grid) + 1)) / 60
        raise LearningError(
            f"{design.minutes:.0f} minutes are too short for the study",
            why=f"its shortest runs would have under {design.least} steps on this machine",
            do=f"give it --minutes {math.ceil(need)}",
        )
    return int(unit) // design.rows * design.rows, seconds


def _runs(design: Design, unit: int) -> tuple[tuple[Run, ...], Run]:
    """The grid, the cheapest run first, and the larger run."""

    def run(size: Size, windows: float) -> Run:
        whole = math.ceil(windows / design.rows) * design.rows
        return Run(size, whole, whole * (design.window - 1))

    pairs = [run(size, unit * 2**i) for size in design.sizes for i in range(design.ladder)]
    most = max(r.compute for r in pairs) * design.share
    grid = sorted((r for r in pairs if r.compute <= most), key=lambda r: r.compute)
    ratio = LARGER * grid[-1].size.parameters / design.larger.parameters
    return tuple(grid), run(design.larger, 1.01 * ratio * grid[-1].windows)


def _speed(size: Size, text: Stream, design: Design) -> float:
    """Seconds a window."""
    run = Run(size, PROBES * design.rows + design.rows, 0)
    trainer = Trainer(_student(size, text, design), _objective(design), _recipe(run, design))
    curve = trainer.run(lambda step: _batch(step, text, design), lambda point: None).curve
    return statistics.median(p.seconds for p in curve[1:]) / design.rows


# -- one run


def _trained(
    run: Run, text: Stream, folder: Path, design: Design, watch: Callable[[Point, int], None],
    stop: Callable[[], bool],
) -> Done:  # fmt: skip
    """The result that lies there, else the run's."""
    path = folder / f"{run.name}.json"
    if path.exists():
        said: dict[str, Any] = json.loads(path.read_text())
        return Done(run, said["loss"], said["bits_per_byte"], said["seconds"])
    student, recipe = _student(run.size, text, design), _recipe(run, design)
    trainer = Trainer(student, _objective(design), recipe, folder / run.name)
    learnt = trainer.run(
        lambda step: _batch(step, text, design), lambda point: watch(point, recipe.steps), stop
    )
    checked = min(design.checked, (len(text.held_out) - 1) // (design.window - 1))
    chosen = np.random.default_rng(design.seed).permutation((len(text.held_out) - 1) // (design.window - 1))
    held_out = windows(text.held_out, chosen[:checked], design.window)
    found = measured(replace(student, trained=learnt.trained), held_out, design.window, 8)
    bits = found.loss / math.log(2) / text.bytes_a_token
    done = Done(run, found.loss, bits, sum(p.seconds for p in learnt.curve))
    keep(path, {name: value for name, value in asdict(done).items() if name != "run"})
    shutil.rmtree(folder / run.name, ignore_errors=True)
    return done


def _student(size: Size, text: Stream, design: Design) -> Student:
    return fresh(size.config(text.vocab, design.window), design.seed, design.window)


def _objective(design: Design) -> Likelihood:
    return Likelihood(length=design.window)


def _recipe(run: Run, design: Design) -> Recipe:
    return Recipe(
        steps=run.windows // design.rows,
        rate=design.rate_of(run.size),
        warm_up=0.1,
        floor=0.05,
        save_every=60.0,
    )


def _batch(step: int, text: Stream, design: Design) -> list[Batch]:
    rows = design.rows
    examples = windows(text.learnt_from, text.order[step * rows : (step + 1) * rows], design.window)
    return list(pack(examples, design.window, rows))
