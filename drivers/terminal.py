"""The terminal: what may be written to it, and how progress is drawn on it.

What: neutralises text that a model or a document wrote, draws bars, charts and tables.
Invariant: text that came from outside cannot move the cursor, change colours, set the clipboard or the
    window's title, or reorder what stands beside it.
Interface: `neutralise(text)`, `Bar(stream)` (a `Progress`), `chart(rows)`, `table(rows, room)`,
    `wrapped(text, room)`, `columns(text)`, `width()`, `dim(text)`.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TextIO

from llmos.abi.progress import Unit

# C0 without tab and newline, DEL, C1; the bidirectional overrides and isolates ("Trojan Source").
_HOSTILE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_REFRESH = 0.1  # seconds between two drawings of a bar
_LOG = 15.0  # seconds between two lines about one task in a log
_NARROW = 20  # columns: fewer are none to read in
_WORTH = 1.0  # seconds that a task must take to be worth a line in a log


def neutralise(text: str) -> str:
    """`text` with every control character but newline and tab made visible; safe piece by piece."""
    return _HOSTILE.sub(_visible, text)


def _visible(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)  # the control pictures: ESC becomes ␛
    return "\u2421" if code == 0x7F else "\ufffd"


def dim(text: str, stream: TextIO) -> str:
    """`text` in a fainter colour where `stream` shows colours and the user wants them."""
    return f"\x1b[2m{text}\x1b[0m" if stream.isatty() and not os.environ.get("NO_COLOR") else text


def chart(rows: Sequence[tuple[str, float]], *, width: int | None = None) -> list[str]:
    """A bar chart of (name, share in 0..1): one line a row, the whole width is a share of 1."""
    if width is None:
        width = shutil.get_terminal_size((80, 24)).columns
    names = [neutralise(name).replace("\n", "\u2424").replace("\t", "\u2409") for name, _ in rows]
    longest = max(map(columns, names), default=0)
    room = max(10, width - longest - 12)
    eighths = " ▏▎▍▌▋▊▉"
    lines = []
    for name, (_, share) in zip(names, rows, strict=True):
        full, part = divmod(round(min(max(share, 0.0), 1.0) * room * 8), 8)
        bar = "█" * full + eighths[part].strip()
        lines.append(f"{name}{' ' * (longest - columns(name))}  {share:6.1%}  {bar}".rstrip())
    return lines


@dataclass(slots=True)
class Bar:
    """Draws progress on one line of a terminal; in a log, writes a line now and then for what takes long."""

    stream: TextIO
    clock: Callable[[], float] = time.monotonic
    _task: str = ""
    _started: float = 0.0
    _drawn: float = 0.0
    _finished: bool = False
    _tty: bool = field(init=False)

    def __post_init__(self) -> None:
        self._tty = self.stream.isatty()

    def __call__(self, task: str, done: int, total: int, unit: Unit = "items", /) -> None:
        now = self.clock()
        finished = 0 < total <= done
        if task != self._task or (self._finished and not finished):
            self._end_line()
            self._task, self._started, self._finished = task, now, False
            self._drawn = 0.0 if self._tty else now
        took = now - self._started
        due = now - self._drawn >= (_REFRESH if self._tty else _LOG)
        if self._finished or not (due or (finished and (self._tty or took >= _WORTH))):
            self._finished = finished
            return
        self._drawn, self._finished = now, finished
        if self._tty:
            self.stream.write("\r\x1b[K" + self._line(task, done, total, unit, took))
        elif finished:
            self.stream.write(f"{neutralise(task)}: {_amount(total, unit)} in {took:.1f} s\n")
        else:
            of = f" of {_amount(total, unit)}" if total else ""
            self.stream.write(f"{neutralise(task)}: {_amount(done, unit)}{of} after {took:.0f} s\n")
        if finished:
            self._end_line()
        self.stream.flush()

    def close(self) -> None:
        """Leaves the cursor on a fresh line; safe to call twice."""
        self._end_line()
        self.stream.flush()

    def _end_line(self) -> None:
        if self._tty and self._drawn:
            self.stream.write("\n")
        self._drawn = 0.0

    def _line(self, task: str, done: int, total: int, unit: Unit, took: float) -> str:
        columns = shutil.get_terminal_size((80, 24)).columns
        rate = f" {_amount(round(done / took), unit)}/s" if took > 0.5 else ""
        left = f" {max(0, total - done) * took / done:.0f} s left" if took > 2 and 0 < done < total else ""
        head = neutralise(task)[: max(8, columns - 60)]
        if not total:
            return f"{head}  {_amount(done, unit)}{rate}"[: columns - 1]
        share = min(1.0, done / total)
        bar = "█" * round(share * 20)
        return f"{head}  {bar:░<20} {share:4.0%} of {_amount(total, unit)}{rate}{left}"[: columns - 1]


def _amount(number: int, unit: Unit) -> str:
    if unit == "items":
        return f"{number:,}"
    value = float(number)
    for name in ("B", "KB", "MB", "GB"):
        if value < 1000 or name == "GB":
            break
        value /= 1000
    return f"{value:.0f} {name}" if name == "B" else f"{value:.1f} {name}"


def table(rows: Iterable[Sequence[str]], room: int = 0) -> list[str]:
    """Columns padded to their widest cell, two spaces apart; the words of the last one stay within `room` columns,
    where that is given and leaves a few."""
    cells = [[neutralise(cell) for cell in row] for row in rows]
    widths = [max(map(columns, column)) for column in zip(*cells, strict=True)]
    before = sum(widths[:-1]) + 2 * (len(widths) - 1)
    lines = []
    for *row, last in cells:
        head = "".join(c + " " * (w - columns(c) + 2) for c, w in zip(row, widths, strict=False))
        for part in wrapped(last, room - before):
            lines.append((head + part).rstrip())
            head = " " * before
    return lines


def wrapped(text: str, room: int) -> list[str]:
    """The words of a text in lines of `room` columns; as it is where these are too few to read in."""
    if room < _NARROW or columns(text) <= room:
        return [text]
    lines = [""]
    for word in text.split():
        if lines[-1] and columns(lines[-1]) + 1 + columns(word) > room:
            lines.append("")
        lines[-1] += f"{' ' * bool(lines[-1])}{word}"
    return lines


def width() -> int:
    """The columns of the terminal that is written to; 0 where the output goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0


def columns(text: str) -> int:
    """How many columns a text takes: two for a Chinese character or an emoji, none for an accent that is put on."""
    if text.isascii():
        return len(text)
    from wcwidth import wcswidth

    found = wcswidth(text)
    return found if found >= 0 else len(text)
