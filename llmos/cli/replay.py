"""`llmos replay`: run a process again from its journal.

What: asks the running kernel, or boots a private one, to compute every turn of a process once more with the recorded
    results of its calls, and tells where the words first differ.
Invariant: no app is called and nothing is written.
Interface: `add`, `run`. What a replay is, is in `llmos.kernel.replay`.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from llmos.cli import parser as options
from llmos.drivers.terminal import Bar, neutralise

if TYPE_CHECKING:
    from llmos.abi.config import Config
    from llmos.abi.machine import Replay

DIVERGED = 4  # the exit code
EXAMPLES = """\
examples:
  llmos replay 12
  llmos replay 12 --json

Exits with 0 where every word came again, with 4 where one did not.
"""


def add(verbs: options.Verbs[argparse.ArgumentParser]) -> None:
    """Registers the verb."""
    parser = options.verb(verbs, "replay", "Run a process again from its journal, and compare.", EXAMPLES)
    parser.add_argument("pid", metavar="PID", type=options.positive, help="of `llmos journal`")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options.common(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Carries the verb out."""
    from llmos.connect import load_config

    report = _replay(load_config(arguments.config, model=arguments.model), arguments.pid)
    if arguments.json:
        print(json.dumps(asdict(report), ensure_ascii=sys.stdout.isatty()))
    else:
        print("\n".join(map(neutralise, lines(report))))
    return DIVERGED if report.divergence else 0


def _replay(config: Config, pid: int) -> Replay:
    from llmos.attach import attach
    from llmos.connect import connect

    kernel = attach(config.machine.state)
    if kernel is not None:
        with kernel:
            kernel.check(config)
            return kernel.replay(pid)
    bar = Bar(sys.stderr)
    with connect(config, attach=False, progress=bar) as booted:
        bar.close()
        from llmos.kernel.replay import replay

        return replay(booted, pid, config.machine.state / "kernel")


def lines(report: Replay) -> list[str]:
    """The report for a person."""
    found = report.divergence
    told = [f"process {report.pid}: {report.turns} turns, {report.tokens} tokens compared"]
    if found is None:
        told.append("every word came again")
    else:
        expected = (
            "the answer's end" if found.expected is None else f"{found.expected} {found.expected_text!r}"
        )
        got = "the answer's end" if found.got is None else f"{found.got} {found.got_text!r}"
        told.append(f"turn {found.turn} differs at position {found.position}: expected {expected}, got {got}")
    return told + [f"note: {note}" for note in report.notes]
