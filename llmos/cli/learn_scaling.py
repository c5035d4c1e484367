"""`llmos learn scaling`: how loss depends on size and text, measured on this machine, and what that foretells.

What: the options, and the study drawn as it goes on: the plan, a line a run, the law, the larger run.
Invariant: the plan is printed before anything is trained. What is asked again goes on where it stopped.
Interface: `add(parser)`, `run(arguments)`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from llmos.cli import parser as options
from llmos.cli.learn_shared import NICENESS, clock

if TYPE_CHECKING:
    from llmos.kernel.learn.scaling import Done, Foretold, Plan, Run
    from llmos.kernel.learn.trainer import Point

EXAMPLES = """\
examples:
  llmos learn scaling docs/ books/ --out study/
  llmos learn scaling docs/ --out study/ --minutes 20    # shorter runs; study/ is gone on with if it was stopped
"""


def add(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.epilog, parser.formatter_class = EXAMPLES, argparse.RawDescriptionHelpFormatter
    parser.add_argument("data", metavar="FILE", nargs="+", help="documents or folders")
    parser.add_argument("--out", metavar="FOLDER", required=True, help="where results and plots go")
    parser.add_argument(
        "--minutes", metavar="N", type=options.positive, default=45, help="that it may take here (default 45)"
    )
    parser.add_argument(
        "--seed", metavar="N", type=options.seed, default=0, help="of the text's order and the start"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    options.config(parser)


def run(arguments: argparse.Namespace) -> int:
    """Carries the action out."""
    from llmos.connect import load_config
    from llmos.drivers.terminal import neutralise
    from llmos.kernel.boot import prepare_jax
    from llmos.kernel.learn.scaling import Design, study
    from llmos.kernel.learn.scaling_plot import draw, require

    require()
    os.nice(NICENESS)
    prepare_jax(load_config(arguments.config))
    out = Path(arguments.out)
    design = Design(minutes=arguments.minutes, seed=arguments.seed)
    made = study([Path(p) for p in arguments.data], out, design, Shown(sys.stderr))
    plots = draw(made, out)
    law = made.foretold.law
    if arguments.json:
        said = {
            "law": asdict(law), "runs": len(made.grid), "foretold": made.foretold.loss, "measured": made.larger.loss,
            "error": made.error, "plots": [str(path) for path in plots],
        }  # fmt: skip
        print(json.dumps(said))
        return 0
    best = [law.best(compute) for compute in (made.larger.run.compute, 1e18)]
    lines = [
        f"{law}, within {law.misses:.1%} of its {len(made.grid)} runs",
        f"foretold {made.foretold.loss:.4f}, measured {made.larger.loss:.4f}: {made.error:.1%} off",
        f"by this law the larger run's computing is best spent on {best[0][0]:,.0f} parameters and {best[0][1]:,.0f} "
        f"tokens, 1e18 operations on {best[1][0]:,.0f} and {best[1][1]:,.0f}",
        f"plot: {plots[0]} (and {plots[1].name})",
    ]
    print("\n".join(neutralise(line) for line in lines))
    return 0


class Shown:
    """Draws a study on a stream; on a terminal the line of the running run is renewed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._tty = stream, stream.isatty()
        self._left, self._now, self._head, self._drawn = list[float](), 0.0, "", 0.0

    def planned(self, plan: Plan) -> None:
        self._left = list(plan.seconds)
        self._say("parameters      tokens  operations      about")
        for run, seconds in zip((*plan.grid, plan.larger), plan.seconds, strict=True):
            self._say(
                f"{run.size.parameters:10,d}  {run.tokens:10,d}  {run.compute:10.2g}  {clock(seconds):>9}"
            )
        self._say(f"{len(plan.grid)} runs and one to be foretold: about {clock(sum(plan.seconds))} in all")

    def begins(self, run: Run, number: int, runs: int) -> None:
        self._now = 0.0
        self._head = f"{number} of {runs}  N {run.size.parameters:,}  D {run.tokens:,}"

    def learnt(self, point: Point, steps: int) -> None:
        self._now += point.seconds
        if self._tty and time.monotonic() - self._drawn > 0.2:
            self._drawn = time.monotonic()
            self._stream.write(
                f"\r\x1b[K{self._head}  step {point.step + 1:,} of {steps:,}  loss {point.loss:.3f}"
            )
            self._stream.flush()

    def ended(self, done: Done) -> None:
        self._left.pop(0)
        left = f", {clock(sum(self._left))} left" if self._left else ""
        self._say(
            f"{self._head}  loss {done.loss:.4f}, {done.bits_per_byte:.3f} bits a byte, {clock(done.seconds)}{left}"
        )

    def foretells(self, foretold: Foretold, larger: Run) -> None:
        self._say(str(foretold.law))
        self._say(
            f"foretold for N {larger.size.parameters:,}, D {larger.tokens:,}: {foretold.loss:.4f} "
            f"({foretold.low:.4f} to {foretold.high:.4f} with a run left out)"
        )

    def _say(self, line: str) -> None:
        self._stream.write(("\r\x1b[K" if self._tty else "") + line + "\n")
        self._stream.flush()
