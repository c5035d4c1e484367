"""`llmos checkpoint` and `llmos resume`: a process in a file.

What: has the running kernel write a process to a file, and make one from such a file.
Invariant: the process that is saved goes on; what is resumed is another one, with a pid of its own.
Interface: `add`. What a checkpoint holds, is in `llmos.kernel.checkpoint`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from llmos.cli import parser as options

CHECKPOINT = """\
examples:
  llmos checkpoint 12
  llmos checkpoint 12 --out before-the-meeting.llmos

The file holds what the process has been told, in clear: keep it as you would keep that.
"""
RESUME = """\
examples:
  llmos resume process-12.llmos

Needs the weights and the numerics that the file was made with. Resume only files that you would run: what they say is
believed.
"""


def add(verbs: options.Verbs[argparse.ArgumentParser]) -> None:
    """Registers the verbs."""
    parser = options.verb(verbs, "checkpoint", "Write a process of the running kernel to a file.", CHECKPOINT)
    parser.add_argument("pid", metavar="PID", type=options.positive, help="of `llmos ps`")
    parser.add_argument("--out", metavar="FILE", type=Path, help="default: process-PID.llmos")
    options.config(parser)
    parser.set_defaults(run=checkpoint)
    parser = options.verb(verbs, "resume", "Go on with a process from a file.", RESUME)
    parser.add_argument("file", metavar="FILE", type=Path, help="of `llmos checkpoint`")
    options.config(parser)
    parser.set_defaults(run=resume)


def checkpoint(arguments: argparse.Namespace) -> int:
    """Carries the verb out."""
    from llmos.cli.ps import running

    out = arguments.out or Path(f"process-{arguments.pid}.llmos")
    with running(arguments) as kernel:
        print(kernel.process(arguments.pid).checkpoint(out))
    return 0


def resume(arguments: argparse.Namespace) -> int:
    """Carries the verb out."""
    from llmos.cli.ps import running

    with running(arguments) as kernel:
        print(kernel.resume(arguments.file).pid)
    return 0
