"""What `llmos learn` does.

What: one function an action: from its options to a course of `llmos.kernel.learn`, with its progress drawn.
Invariant: a course runs at the lowest priority of the machine: whoever works beside it goes first.
Interface: `pretrain`, `sft`, `dpo`, `evaluate`: each takes the options and returns an exit code.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from llmos.cli.learn_shared import NICENESS, clock
from llmos.connect import load_config
from llmos.drivers.terminal import neutralise
from llmos.kernel.learn import course as courses
from llmos.kernel.learn import pretrain as stage1
from llmos.kernel.learn.course import Course, Report
from llmos.kernel.learn.data import Row, read_rows

if TYPE_CHECKING:
    from llmos.drivers.weights import Weights
    from llmos.kernel.learn.budget import Budget
    from llmos.kernel.learn.trainer import Point


class Shown:
    """Draws a run: its plan, then a line that is renewed (in a log: a line now and then)."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._tty, self._lines = stream, stream.isatty(), 0
        self._seen: list[Point] = []

    def planned(self, budget: Budget, steps: int, tokens: int) -> None:
        total, weights, learning, rest = (
            x / 2**30 for x in (budget.total, budget.weights, budget.learning, budget.activations)
        )
        print(
            f"{steps:,} steps, {tokens:,} tokens; memory {total:.2f} GiB (weights {weights:.2f}, "
            f"learning {learning:.2f}, activations {rest:.2f}); about {clock(budget.seconds)}",
            file=self._stream,
        )

    def learnt(self, point: Point, steps: int) -> None:
        self._seen.append(point)
        took = sum(p.seconds for p in self._seen)
        done, last = point.step + 1, point.step + 1 == steps
        if not self._tty and not last and took < 2.0**self._lines:
            return
        self._lines += 1
        # The first step compiles: where there are others it says nothing about their speed.
        counted = self._seen[1:] or self._seen
        a_step = sum(p.seconds for p in counted) / len(counted)
        tokens = (
            (point.tokens - self._seen[0].tokens) / (len(self._seen) - 1)
            if len(self._seen) > 1
            else point.tokens
        )
        end = f"in {clock(took)}" if last else f"{clock((steps - done) * a_step)} left"
        line = f"step {done:,} of {steps:,}  loss {point.loss:.4f}  {tokens / a_step:,.0f} tokens/s  {end}"
        start, stop = ("\r\x1b[K", "\n" if last else "") if self._tty else ("", "\n")
        self._stream.write(start + line + stop)
        self._stream.flush()


def pretrain(arguments: argparse.Namespace) -> int:
    """A model from nothing."""
    _ready(arguments)
    given = _course(arguments, Course(epochs=1.0, rate=3e-3, micro=8, batch=16384))
    made = stage1.pretrain(
        [Path(p) for p in arguments.data], Path(arguments.out), depth=arguments.depth, vocab=arguments.vocab,
        course=given, watch=Shown(sys.stderr),
    )  # fmt: skip
    said = {"parameters": made.parameters, "bytes": made.bytes, "held_out_bits_per_byte": made.held_out}
    lines = [
        f"{made.folder}: {made.parameters / 1e6:.1f} million parameters, {made.held_out:.3f} bits a byte on text it "
        "never saw",
        f'try it: llmos ask --model {made.folder} --raw "The"',
    ]
    return _said(arguments, made.report, said, lines)


def sft(arguments: argparse.Namespace) -> int:
    """Conversations."""
    return _adapter(arguments, courses.sft)


def dpo(arguments: argparse.Namespace) -> int:
    """Preferences."""
    return _adapter(arguments, courses.dpo, beta=arguments.beta)


def evaluate(arguments: argparse.Namespace) -> int:
    """How well a model foretells what the assistant says."""
    from llmos.drivers.weights.adapter import read_adapter
    from llmos.kernel.learn.evaluation import foretold

    _ready(arguments)
    weights = _weights(arguments)
    adapter = read_adapter(Path(arguments.adapter)) if arguments.adapter else None
    found = foretold(weights, _rows(arguments), arguments.window, adapter)
    said = dataclasses.asdict(found) | {"perplexity": math.exp(min(700.0, found.loss))}
    if arguments.json:
        print(json.dumps(said))
    else:
        print(
            f"loss {found.loss:.4f} (perplexity {said['perplexity']:.2f}), most likely token right "
            f"{found.accuracy:.1%}, {found.predictions:,} predictions"
        )
    return 0


def _adapter(arguments: argparse.Namespace, teach: Any, **options: Any) -> int:
    from llmos.drivers.weights.adapter import read_adapter

    _ready(arguments)
    rows = _rows(arguments)
    start = read_adapter(Path(arguments.start)) if arguments.start else None
    given = _course(arguments, Course(rank=arguments.rank, keep=arguments.keep))
    report = teach(_weights(arguments), rows, Path(arguments.out), given, Shown(sys.stderr), start, **options)
    place = Path(arguments.out) / "adapter"
    model = f"--model {arguments.model} " if arguments.model else ""
    lines = [f"{place}: loss {report.curve[0].loss:.4f} -> {report.curve[-1].loss:.4f}",
             f'try it: llmos ask {model}--adapter {place} "..."']  # fmt: skip
    return _said(arguments, report, {"adapter": str(place)}, lines)


def _ready(arguments: argparse.Namespace) -> None:
    """Behind everybody else, and with JAX set up as for serving: what was compiled is kept, memory is reused."""
    from llmos.kernel.boot import prepare_jax

    os.nice(NICENESS)
    prepare_jax(load_config(getattr(arguments, "config", None)))


def _said(arguments: argparse.Namespace, report: Report, said: dict[str, Any], lines: list[str]) -> int:
    if arguments.json:
        known = {
            "out": str(report.out), "steps": len(report.curve), "tokens": report.tokens, "seconds": report.seconds,
            "tokens_per_s": report.tokens_per_s, "first_loss": report.curve[0].loss, "last_loss": report.curve[-1].loss,
        }  # fmt: skip
        print(json.dumps(known | said))
    else:
        print("\n".join(neutralise(line) for line in lines))
    return 0


def _course(arguments: argparse.Namespace, base: Course) -> Course:
    given = {
        name: getattr(arguments, name)
        for name in ("epochs", "steps", "batch", "rate")
        if getattr(arguments, name)
    }
    return dataclasses.replace(base, window=arguments.window, seed=arguments.seed, **given)


def _rows(arguments: argparse.Namespace) -> list[Row]:
    return [row for path in arguments.data for row in read_rows(Path(path))]


def _weights(arguments: argparse.Namespace) -> Weights:
    from llmos.drivers.weights import find, open_weights

    config = load_config(arguments.config)
    return open_weights(find(arguments.model or config.kernel.model, cache=config.machine.cache))
