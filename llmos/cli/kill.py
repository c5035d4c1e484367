"""`llmos kill`: a signal to a process of the running kernel.

What: INT, STOP, CONT, TERM or KILL, as `kernel.process` understands them.
Invariant: a pid that does not exist is an error, and the other pids are signalled all the same.
Interface: `add`, `run`.
"""

from __future__ import annotations

import argparse
from typing import get_args

from llmos.cli import parser as options

EXAMPLES = """\
examples:
  llmos kill 12
  llmos kill 12 -s STOP

INT stops the turn and keeps the process; STOP holds it, CONT lets it go on (also one that waits for your word after a
crash, see `llmos ps`); TERM, the default, lets it answer and then ends it; KILL ends it now.
"""


def add(verbs: options.Verbs[argparse.ArgumentParser]) -> None:
    """Registers the verb."""
    from llmos.abi.machine import Signal

    parser = options.verb(verbs, "kill", "Send a signal to a process.", EXAMPLES)
    parser.add_argument("pids", metavar="PID", type=options.positive, nargs="+", help="of `llmos ps`")
    parser.add_argument(
        "-s", "--signal", metavar="S", type=_signal, choices=get_args(Signal), default="TERM",
        help="INT, STOP, CONT, TERM (default) or KILL",
    )  # fmt: skip
    options.config(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Carries the verb out."""
    from llmos.abi.errors import NoSuchProcess
    from llmos.cli.ps import running

    missing: NoSuchProcess | None = None
    with running(arguments) as kernel:
        for pid in arguments.pids:
            try:
                kernel.process(pid).signal(arguments.signal)
            except NoSuchProcess as error:
                missing = missing or error
    if missing is not None:
        raise missing
    return 0


def _signal(name: str) -> str:
    return name.upper().removeprefix("SIG")
