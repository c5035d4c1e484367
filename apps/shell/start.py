"""From options to a running shell.

What: puts link, face and shell together for a terminal, for a pipe, and for a script.
Invariant: on a terminal the prompt stands before the model is loaded; what ends the loading ends the shell, with its
    message. The terminal is left as it was found.
Interface: `shell(options)`, `script(options, path, arguments)` -> exit codes; `Options`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmos.abi.events import Ask
from llmos.apps.shell.face import Face, Plain
from llmos.apps.shell.link import Again, Change, Link
from llmos.apps.shell.shell import Shell, Start
from llmos.drivers.terminal import neutralise, table

if TYPE_CHECKING:
    from llmos.abi.machine import Machine
    from llmos.abi.progress import Progress

HISTORY = "shell_history"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Args:
    start: what the foreground process is made of.
    reach: boots or attaches, given a progress and whoever approves values.
    again: attaches, given whoever approves; None where no kernel runs.
    plain: never draw.
    """

    start: Start
    reach: Callable[[Progress, Callable[[Ask], bool] | None], Machine]
    again: Callable[[Callable[[Ask], bool] | None], Machine | None]
    plain: bool = False


def shell(options: Options) -> int:
    """A conversation, until the person leaves or the input ends.

    Raises:
        LLMOSError: the kernel cannot be reached.
    """
    person = sys.stdin.isatty() and sys.stderr.isatty()
    if person and sys.stdout.isatty() and not options.plain and os.environ.get("TERM", "dumb") != "dumb":
        return _drawn(options)
    face = Plain(asks=person)
    with _Running(options, face) as running:
        if person:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # in place of one that repeats it
            running.greet()
        else:
            _ = running.link.kernel  # who pipes a question in wants to know first
        from llmos.apps.shell.script import converse

        code = converse(running.shell, prompt=person)
        if person:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # who leaves may be in a hurry
        return code


def script(options: Options, path: Path, arguments: Sequence[str]) -> int:
    """Carry a script out.

    Raises:
        LLMOSError: what it failed with.
    """
    from llmos.apps.shell.script import follow, read

    lines = read(path)
    face = Plain(asks=sys.stdin.isatty() and sys.stderr.isatty())
    with _Running(options, face) as running:
        return follow(running.shell, path, lines, arguments)


def _drawn(options: Options) -> int:
    from llmos.apps.shell.editor import Editor

    editor = Editor(options.start.config.machine.state / HISTORY)
    with _Running(options, editor.face) as running:
        running.failed, running.lost = editor.leave, editor.dismiss
        running.greet()
        code = editor.run(running.shell)
        if running.link.state == "failed":
            _ = running.link.kernel  # raises what it was
        return code


class _Running:
    """A shell with its kernel, from the beginning to the end."""

    def __init__(self, options: Options, face: Face) -> None:
        self.failed: Callable[[], None] = lambda: None
        self.lost: Callable[[], None] = lambda: None
        policy = options.start.config.policy.ask
        asker = self._approve if policy == "shell" else None
        again: Again = lambda: options.again(asker)  # noqa: E731
        self.link = Link(lambda progress: options.reach(progress, asker), again, self._changed)
        self.shell = Shell(self.link, face, options.start)

    def __enter__(self) -> _Running:
        self.link.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        from llmos.apps.shell import sandboxed

        self.shell.leaving = True
        sandboxed.close(self.shell)
        if self.link.state == "loading" and kind is None:  # nobody waits for a model that nobody wants
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
        self.link.close()

    def greet(self) -> None:
        """What one sees first."""
        self.shell.say("Ask anything. /help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves.")

    def _approve(self, doubt: Ask) -> bool:
        return self.shell.approve(doubt)

    def _changed(self, state: Change) -> None:
        shell = self.shell
        if state == "failed":
            self.failed()
        elif state == "lost":
            self.lost()
            shell.say(
                "the kernel has gone: `llmos up` starts it again, and this shell goes on with it; nothing is lost"
            )
        elif state == "back":
            shell.recover()
        elif self.link.attached:
            _who_is_there(shell)


def _who_is_there(shell: Shell) -> None:
    """Processes that a running kernel has already."""
    there = [line for line in shell.kernel.ps() if line.state != "zombie"]
    if there:
        rows = [
            (f"  {line.pid}", line.state, f"{line.turn} turns", neutralise(line.name)) for line in there[:20]
        ]
        more = [f"  and {len(there) - 20} more: /ps"] if len(there) > 20 else []
        shell.say("This kernel has processes already; /fg PID goes on with one:", *table(rows), *more)
