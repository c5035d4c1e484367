"""`llmos shell` and `llmos run`: a conversation, and a script of one.

What: parses, and hands over to the shell app.
Invariant: this module only parses; what a shell is, is in `llmos.apps.shell`.
Interface: `add`, `run`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from llmos.cli import parser as options

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmos.abi.events import Ask
    from llmos.abi.machine import Machine
    from llmos.abi.progress import Progress
    from llmos.apps.shell.start import Options

SHELL = """\
examples:
  llmos shell
  llmos shell --mount handbook/ --trust mine
  llmos shell --grant calculator
  llmos shell --expert librarian --mount handbook/
  llmos shell --plain

Inside, /help lists the commands; Ctrl-C stops the answer, Ctrl-D or /quit leaves.
"""
RUN = """\
examples:
  llmos run morning.llmos
  llmos run review.llmos src/main.py --expert coder

A script holds what one would type in `llmos shell`: questions, /commands, !bash, @file. Lines that begin with # are
comments, a backslash at the end of a line goes on with the next one, three quotes on lines of their own enclose a long
text, $1 to $9 and $@ are the arguments. It ends at the first line that fails. Answers go to stdout.
"""


def add(verbs: options.Verbs[argparse.ArgumentParser]) -> None:
    """Registers the verbs."""
    parser = options.verb(verbs, "shell", "Talk with the model, turn after turn.", SHELL)
    parser.add_argument(
        "--plain", action="store_true", help="draw nothing, for screen readers and simple terminals"
    )
    _common(parser)
    parser.set_defaults(run=shell)
    parser = options.verb(verbs, "run", "Carry out a script of the shell's lines.", RUN)
    parser.add_argument("script", metavar="SCRIPT", type=Path, help="a file of lines")
    parser.add_argument("arguments", metavar="ARGUMENT", nargs="*", help="what $1, $2, ... stand for in it")
    _common(parser)
    parser.set_defaults(run=script, plain=True)


def _common(parser: argparse.ArgumentParser) -> None:
    options.expert(parser)
    options.mounts(parser)
    options.grants(parser)
    options.sampling(parser)
    options.common(parser)
    options.trace(parser)


def shell(arguments: argparse.Namespace) -> int:
    """Carries the verb out."""
    from llmos.apps.shell.start import shell as start

    return start(_options(arguments))


def script(arguments: argparse.Namespace) -> int:
    """Carries the verb out."""
    from llmos.abi.errors import ConfigError
    from llmos.apps.shell.start import script as start

    if not arguments.script.is_file():  # told before a model is loaded
        raise ConfigError(f"there is no script {arguments.script}", do="check the path")
    return start(_options(arguments), arguments.script, arguments.arguments)


def _options(arguments: argparse.Namespace) -> Options:
    from llmos.apps.shell.operator import ensure
    from llmos.apps.shell.shell import Start
    from llmos.apps.shell.start import Options
    from llmos.cli.inputs import mount_list
    from llmos.cli.who import who

    config, expert = who(arguments)

    def reach(progress: Progress, asker: Callable[[Ask], bool] | None) -> Machine:
        from llmos.connect import connect

        kernel = connect(config, progress=progress, asker=asker, trace=arguments.trace)
        if sys.stdin.isatty() and arguments.verb == "shell":
            progress("looking for apps", 0, 0)
            ensure(kernel, config)
        return kernel

    def again(asker: Callable[[Ask], bool] | None) -> Machine | None:
        from llmos.attach import attach

        return attach(config.machine.state, asker=asker)

    start = Start(
        config=config, expert=expert, mounts=mount_list(arguments.mount, arguments.trust, config),
        grants=arguments.grant, max_tokens=arguments.max_tokens, seed=arguments.seed,
        temperature=arguments.temperature,
    )  # fmt: skip
    return Options(start=start, reach=reach, again=again, plain=arguments.plain)
