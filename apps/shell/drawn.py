"""Where a shell's words go on a terminal.

What: finished blocks of answers as painted markdown above the line that is being typed, what is not finished right
    above that line, and everything else in between.
Invariant: what stands above is never drawn again. Only what is painted here writes colours or pictures; whatever comes
    from outside is neutralised first.
Interface: `Drawn(editor)`, a `Face`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llmos.abi.events import Call, Done, Event, PageOut, Result, Token
from llmos.apps.shell import pictures
from llmos.apps.shell.face import MOST_COLUMNS
from llmos.apps.shell.markdown import Blocks, painted
from llmos.apps.shell.transcript import call_line, citation_lines, ledger
from llmos.drivers.terminal import columns, neutralise

if TYPE_CHECKING:
    from llmos.apps.shell.editor import Editor


class Drawn:
    """See the module."""

    drawn = True

    def __init__(self, editor: Editor) -> None:
        self._editor = editor
        self._blocks = Blocks()
        self._live: Sequence[str] = ()
        self._cached: tuple[str, int, list[str]] = ("", 0, [])
        self.colour = not os.environ.get("NO_COLOR")

    @property
    def width(self) -> int:
        return max(min(shutil.get_terminal_size((80, 24)).columns, MOST_COLUMNS), 8)

    def say(self, *lines: str) -> None:
        self._editor.write("".join(f"{line}\n" for line in lines))

    def tell(self, event: Event, name: str = "") -> None:
        if isinstance(event, Token):
            for block in self._blocks.push(event.text):
                self._out(block)
            self._editor.redraw()
        elif isinstance(event, (Call, Result)):
            self._flush()
            self.say(self._dim(call_line(event)))
            for file in event.files if isinstance(event, Result) else ():
                self._picture(Path(file))
        elif isinstance(event, PageOut):
            self.say(
                self._dim(
                    f"paged out: {neutralise(event.source)} ({event.tokens} tokens): {neutralise(event.why)}"
                )
            )
        elif isinstance(event, Done):
            self._flush()
            self.say(*citation_lines(event.citations), self._dim(ledger(event)), "")

    def resume(self, text: str) -> None:
        self._flush()
        for block in self._blocks.push(text):
            self._out(block)
        self._editor.redraw()

    def confirm(self, lines: Sequence[str], question: str) -> bool:
        return self._editor.confirm(lines, question)

    def live(self, lines: Sequence[str]) -> bool:
        self._live = tuple(lines)
        self._editor.redraw()
        return True

    def above(self, rows: int) -> list[str]:
        """What stands right above the line that is typed, at most so many lines: what changes while one looks."""
        if rows < 1:
            return []
        if self._live:
            return [cut(line, self.width) for line in self._live[:rows]]
        tail, width = self._blocks.tail, self.width
        if not tail.strip():
            return []
        if self._cached[:2] != (tail, width):
            self._cached = (tail, width, painted(tail, width, colour=self.colour).split("\n"))
        return self._cached[2][-rows:]

    def _flush(self) -> None:
        self._out(self._blocks.close())
        self._editor.redraw()

    def _out(self, block: str) -> None:
        if block.strip():
            self.say(painted(block, self.width, colour=self.colour), "")

    def _picture(self, file: Path) -> None:
        how = pictures.protocol()
        text = None if how is None else pictures.escape(file, how, min(self.width, 80))
        if text is not None:
            self._editor.write(text)
        self.say(neutralise(str(file)))

    def _dim(self, text: str) -> str:
        return f"\x1b[2m{text}\x1b[0m" if self.colour else text


def cut(line: str, width: int) -> str:
    """As much of a line as so many columns hold."""
    line = line[:width]
    while columns(line) > width:
        line = line[:-1]
    return line
