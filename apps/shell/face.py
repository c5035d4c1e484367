"""Where a shell's words go: the plain way.

What: a line after the other, to two streams: answers, and what is about them.
Invariant: no cursor moves, no colour, nothing is drawn twice: what a screen reader, a dumb terminal, a pipe or a file
    can take. What came from outside reaches a terminal neutralised.
Interface: `Face` (the protocol), `Plain(out, notes)`.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import Protocol, TextIO

from llmos.abi.events import Call, Done, Event, Result, Token
from llmos.apps.shell.transcript import call_line, citation_lines, ledger
from llmos.drivers.terminal import neutralise

MOST_COLUMNS = 200


class Face(Protocol):
    """Any thread may call any method."""

    @property
    def width(self) -> int:
        """Columns."""

    @property
    def colour(self) -> bool:
        """Whether lines may be painted."""

    @property
    def drawn(self) -> bool:
        """Whether it is looked at: bars and pictures make sense."""

    def say(self, *lines: str) -> None:
        """Lines about something; they are safe, and may be painted where `colour` is."""

    def tell(self, event: Event, name: str = "") -> None:
        """What a turn tells; `name` where it is not the foreground's."""

    def resume(self, text: str) -> None:
        """Another turn comes to the foreground, which has said `text` so far."""

    def confirm(self, lines: Sequence[str], question: str) -> bool:
        """Ask the person for a yes; False where there is none, or for anything but a clear one."""

    def live(self, lines: Sequence[str]) -> bool:
        """Show lines in the place of those before, until there are none; False where that cannot be."""


class Plain:
    """See the module."""

    colour = drawn = False

    def __init__(self, out: TextIO | None = None, notes: TextIO | None = None, *, asks: bool = False) -> None:
        """`asks`: there is a person at standard input."""
        self.out, self.notes, self._asks = out or sys.stdout, notes or sys.stderr, asks
        self._last = ""

    @property
    def width(self) -> int:
        return max(min(shutil.get_terminal_size((80, 24)).columns, MOST_COLUMNS), 20)

    def say(self, *lines: str) -> None:
        self._line()
        self.out.flush()
        self.notes.write("".join(f"{line}\n" for line in lines))
        self.notes.flush()

    def tell(self, event: Event, name: str = "") -> None:
        if isinstance(event, Token) and event.text:
            self.out.write(neutralise(event.text) if self.out.isatty() else event.text)
            self.out.flush()
            self._last = event.text
        elif isinstance(event, (Call, Result)):
            self.say(call_line(event))
            self.say(*map(neutralise, event.files if isinstance(event, Result) else ()))
        elif isinstance(event, Done):
            if not self._last.endswith("\n"):
                self.out.write("\n")
            self._last = "\n"
            self.say(*citation_lines(event.citations), ledger(event))

    def resume(self, text: str) -> None:
        if text:
            self.out.write(neutralise(text) if self.out.isatty() else text)
            self.out.flush()
            self._last = text

    def confirm(self, lines: Sequence[str], question: str) -> bool:
        if not self._asks:
            return False
        self.say(*lines)
        self.notes.write(question)
        self.notes.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    def live(self, lines: Sequence[str]) -> bool:
        return False

    def _line(self) -> None:
        """On a terminal, notes do not begin in the middle of an answer's line."""
        if self._last and not self._last.endswith("\n") and self.out.isatty():
            self.out.write("\n")
            self._last = "\n"
