"""Self-improvement: a model imitates an imperfect teacher up to its plateau, and then crosses it on its own answers.

What: `llmos learn rl --domain arithmetic` with SmolLM2-135M. Shares of held-out tasks that are right: `before` any
    learning, `teacher`, `imitation` (behind imitating it) and `after` (behind improving on its own answers), of answers
    drawn from the model; `.greedy` of its likeliest ones; `.wording` and `.size` on questions in other words and on a
    size beyond those that were trained; `.seed<N>` of one seed. `gain` is `after` - `before`, `above_teacher` `after` -
    `teacher`, `hours` the longest seed's, from its first question to its last mark.
Invariant: means over the seeds. Behind imitation nothing but the domain's exact check says what is good. The held-out
    tasks are the same for all. What was ended goes on where it stopped (results are in the cache, by the code's and the
    dials' digest). `--quick`: one seed, a few rounds, few tasks.
Interface: `run(quick, progress)`; `draw(journeys, folder)`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from benchmarks.figures import Figures, Progress, digest
from benchmarks.plots import picture, require
from llmos.cli.learn_rl import Shown
from llmos.connect import load_config
from llmos.drivers.weights import find, open_weights
from llmos.kernel.boot import prepare_jax
from llmos.kernel.learn import rl
from llmos.kernel.learn.course import Course
from llmos.kernel.learn.domains.arithmetic import Arithmetic
from llmos.kernel.learn.journey import Journey, Plan, travel
from llmos.kernel.learn.rl import Effort

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MODEL = "smollm2-135m"
SEEDS = (0, 1, 2)
STAGES = ("before", "teacher", "imitation", "after")
LEARNT = "rl play policy sampling ladder arena journey objective trainer domains/arithmetic".split()


def plan(quick: bool, seed: int) -> Plan:
    """The dials of one seed's journey."""
    effort = Effort(
        rounds=8 if quick else 80, groups=8 if quick else 16, count=8, window=128, micro=8, seed=seed
    )
    course = Course(epochs=1.0, window=128, batch=2048, micro=8, rate=5e-4, seed=seed)
    return Plan(imitate=300 if quick else 1500, course=course, effort=effort, held_out=24 if quick else 150)


def run(quick: bool, progress: Progress) -> Figures:
    """See the module."""
    require()
    config = load_config(None)
    prepare_jax(config)
    weights = open_weights(find(MODEL, cache=config.machine.cache))
    domain, seeds = Arithmetic(), SEEDS[:1] if quick else SEEDS
    made_by = digest(Path(rl.__file__).parent, LEARNT, domain, plan(quick, 0))
    folder = config.machine.cache / "improve" / made_by
    journeys, hours = dict[int, Journey](), dict[int, float]()
    for seed in seeds:
        progress(f"seed {seed}")
        began, clock = time.monotonic(), folder / f"seed-{seed}" / "seconds.json"
        before = json.loads(clock.read_text()) if clock.is_file() else 0.0  # of a run that was ended
        try:
            journeys[seed] = travel(weights, domain, clock.parent, plan(quick, seed), watch=Shown(sys.stderr))
        finally:
            clock.parent.mkdir(parents=True, exist_ok=True)
            clock.write_text(json.dumps(before + time.monotonic() - began))
        hours[seed] = json.loads(clock.read_text()) / 3600
    values = figures(journeys) | {"hours": max(hours.values()), "seeds": len(seeds)}
    return Figures(values, (MODEL,), (), partial(draw, journeys))


def figures(journeys: Mapping[int, Journey]) -> dict[str, float]:
    """The shares by stage, means over the seeds."""
    values: dict[str, float] = {}
    for stage in STAGES:
        drawn = stage if stage == "teacher" else f"{stage}, drawn"
        for split, ending in (("fresh", ""), ("wording", ".wording"), ("size", ".size")):
            values[stage + ending] = fmean(share(j, drawn, split) for j in journeys.values())
        if stage != "teacher":
            values[f"{stage}.greedy"] = fmean(share(j, stage, "fresh") for j in journeys.values())
            values |= {f"{stage}.seed{seed}": share(j, drawn, "fresh") for seed, j in journeys.items()}
    values["gain"] = values["after"] - values["before"]
    values["above_teacher"] = values["after"] - values["teacher"]
    return values


def share(journey: Journey, stage: str, split: str) -> float:
    """The share of a held-out set that was right at a stage."""
    return next(mark.share for mark in journey.marks[stage] if mark.split == split)


def draw(journeys: Mapping[int, Journey], folder: Path) -> list[Path]:
    """AlphaGo's plot: imitation up to the teacher, self-improvement across it."""
    teacher = fmean(share(j, "teacher", "fresh") for j in journeys.values())

    def paint(axes: Axes) -> None:
        axes.axhline(teacher, color="#c1121f", linestyle="--", label="the teacher")
        for number, (seed, journey) in enumerate(journeys.items()):
            told, color = journey.improved.told, f"C{number}"
            marks = [share(journey, f"{stage}, drawn", "fresh") for stage in ("before", "imitation", "after")]
            axes.plot([-10, 0, len(told)], marks, "o", color=color, label=f"seed {seed}: held out")
            axes.plot([-10, 0], marks[:2], ":", color=color)
            rates = _smooth([fmean(one.rates) for one in told])
            axes.plot(range(1, len(told) + 1), rates, color=color, alpha=0.6)
        axes.set(
            xlabel="imitation | rounds of self-improvement", ylabel="right answers", ylim=(0, 1),
            title="Imitation reaches its teacher, self-improvement crosses it",
        )  # fmt: skip
        axes.yaxis.set_major_formatter("{x:.0%}")
        axes.legend(loc="lower right")

    return picture(folder, "improve", paint)


def _smooth(values: Sequence[float], width: int = 3) -> list[float]:
    return [fmean(values[max(0, i - width + 1) : i + 1]) for i in range(len(values))]
