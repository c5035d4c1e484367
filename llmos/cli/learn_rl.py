"""`llmos learn rl`: a model improves on its own answers, in a domain where they can be checked.

What: the options, and the journey drawn as it goes: marks of each stage, a line a round.
Invariant: it runs at the lowest priority of the machine; what was stopped goes on with the same command.
Interface: `add(action)`, `run(arguments)`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from llmos.cli import parser as options
from llmos.cli.learn_shared import NICENESS, clock

if TYPE_CHECKING:
    from llmos.kernel.learn.budget import Budget
    from llmos.kernel.learn.journey import Journey, Marks
    from llmos.kernel.learn.rl import Effort, Told
    from llmos.kernel.learn.trainer import Point

EXAMPLES = """\
examples:
  llmos learn rl --domain arithmetic --model smollm2-135m --imitate 400 --out sums/
  llmos learn rl --domain calls --imitate 400 --window 384 --out errands/
  llmos learn rl --domain my_package.puzzles:Anagrams --start helper/adapter --out puzzles/
  llmos ask --model smollm2-135m --adapter sums/adapter "What is 48 + 27 - 16?"
"""
SPLITS = {"fresh": "fresh tasks", "wording": "other wording", "size": "larger"}


def add(action: argparse.ArgumentParser) -> None:
    """The options."""
    action.epilog, action.formatter_class = EXAMPLES, argparse.RawDescriptionHelpFormatter
    action.add_argument(
        "--domain", metavar="NAME", required=True,
        help="arithmetic, calculator, countdown, twenty-four, programs (judged by tests), calls (of the machine's own "
        "syscalls, judged by what they did), or your own as package.module:Class",
    )  # fmt: skip
    action.add_argument(
        "--out", metavar="FOLDER", required=True, help="where the adapter and all that was drawn go"
    )
    begin = action.add_mutually_exclusive_group()
    begin.add_argument(
        "--imitate", metavar="N", type=options.positive, default=0,
        help="first learn N answers of the domain's teacher",
    )  # fmt: skip
    begin.add_argument("--start", metavar="ADAPTER", help="begin with this adapter")
    action.add_argument(
        "--strategy", choices=("grpo", "expert"), default="grpo",
        help="groups against their mean, or expert iteration: the best answers are imitated",
    )  # fmt: skip
    numbers: tuple[tuple[str, str, Any, str], ...] = (
        ("--rounds", "N", options.positive, "of drawing and learning (default 50)"),
        ("--groups", "N", options.positive, "questions a round (default 16)"),
        ("--count", "N", options.positive, "answers to each (default 8)"),
        ("--window", "N", options.positive, "tokens of the longest question and answer (default 256)"),
        ("--rank", "R", options.positive, "of the adapter (default 16)"),
        ("--rate", "R", options.rate, "learning rate (default 1e-4)"),
        ("--pull", "B", _from_0, "what distance to the start costs (default 0.02)"),
    )
    for name, letter, kind, told in numbers:
        action.add_argument(name, metavar=letter, type=kind, help=told)
    action.add_argument(
        "--held-out", metavar="N", type=options.positive, default=60,
        help="tasks of each held-out set to measure with (default 60)",
    )  # fmt: skip
    action.add_argument("--seed", metavar="N", type=options.seed, default=0, help="of tasks and answers")
    action.add_argument("--json", action="store_true", help="print one JSON object at the end")
    options.common(action)


def run(arguments: argparse.Namespace) -> int:
    """Carries the action out."""
    from llmos.connect import load_config
    from llmos.drivers.weights import find, open_weights
    from llmos.drivers.weights.adapter import read_adapter
    from llmos.kernel.boot import prepare_jax
    from llmos.kernel.learn.domains import named

    domain = named(arguments.domain)
    os.nice(NICENESS)
    config = load_config(arguments.config)
    prepare_jax(config)
    from llmos.kernel.learn.course import Course
    from llmos.kernel.learn.journey import Plan, travel
    from llmos.kernel.learn.policy import Chosen, Grouped
    from llmos.kernel.learn.rl import Effort

    names = ("rounds", "groups", "count", "window", "rank", "rate", "pull")
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    effort = dataclasses.replace(
        Effort(seed=arguments.seed, strategy=Chosen() if arguments.strategy == "expert" else Grouped()),
        **given,
    )
    course = Course(
        epochs=2.0, window=effort.window, batch=8 * effort.window, micro=effort.micro, rank=effort.rank,
        seed=arguments.seed,
    )  # fmt: skip
    plan = Plan(imitate=arguments.imitate, course=course, effort=effort, held_out=arguments.held_out)
    weights = open_weights(find(arguments.model or config.kernel.model, cache=config.machine.cache))
    start = read_adapter(Path(arguments.start)) if arguments.start else None
    out = Path(arguments.out)
    done = travel(weights, domain, out, plan, start=start, watch=Shown(sys.stderr))
    return _said(arguments, out, done)


def _said(arguments: argparse.Namespace, out: Path, done: Journey) -> int:
    from llmos.drivers.terminal import neutralise

    told, place = done.improved.told, out / "adapter"
    if arguments.json:
        said = {
            "adapter": str(place), "rounds": len(told), "mastered": done.improved.mastered,
            "seconds": done.improved.seconds,
            "marks": {
                name: {mark.split: mark.share for mark in marks} for name, marks in done.marks.items()
            },
        }  # fmt: skip
        print(json.dumps(said))
        return 0
    ended = "everything was right before the last round" if done.improved.mastered else f"{len(told)} rounds"
    model = f"--model {arguments.model} " if arguments.model else ""
    for line in (f"{place}: {ended}", f'try it: llmos ask {model}--adapter {place} "..."'):
        print(neutralise(line))
    return 0


def _from_0(text: str) -> float:
    """A number from 0 to 1000, for argparse."""
    value = float(text)
    if not 0 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 1000")
    return value


class Shown:
    """Draws a journey on a stream."""

    def __init__(self, stream: TextIO) -> None:
        from llmos.cli.learn_actions import Shown as Course

        self._stream, self._course = stream, Course(stream)

    def stage(self, name: str) -> None:
        self._say(f"{name}:")

    def marked(self, name: str, marks: Marks) -> None:
        parts = [f"{SPLITS[mark.split]} {mark.right} of {mark.of} ({mark.share:.0%})" for mark in marks]
        self._say(f"{name:>17}  right: {', '.join(parts)}")

    def planned(self, budget: Budget, steps: int, tokens: int) -> None:
        self._course.planned(budget, steps, tokens)

    def learnt(self, point: Point, steps: int) -> None:
        self._course.learnt(point, steps)

    def begins(self, budget: Budget, effort: Effort) -> None:
        self._say(
            f"{effort.rounds} rounds of {effort.groups} questions, {effort.count} answers to each; memory of learning "
            f"{budget.total / 2**30:.2f} GiB; the time is known behind the first round"
        )

    def round(self, told: Told) -> None:
        faults = f", {told.faults} not checked" if told.faults else ""
        levels = " ".join(f"{rate:.0%}" for rate in told.rates)
        self._say(
            f"round {told.number + 1:3} of {told.rounds}  reward {told.reward:.3f}  right {told.right:.0%} (by level "
            f"{levels})  equal {told.equal:.0%}  KL {told.kl:.4f}  {told.tokens:.0f} tokens, {told.cut:.0%} cut"
            f"{faults}  {told.seconds:.0f} s, {clock(told.left)} left"
        )

    def _say(self, line: str) -> None:
        print(line, file=self._stream, flush=True)
