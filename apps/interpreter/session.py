"""One Python that keeps its variables, in a sandbox.

What: starts the loop (`guest.py`) behind all layers, hands it cells, brings files in and out.
Invariant: a cell ends in time: it is interrupted at its limit, and where it does not obey the whole session is killed.
    What comes out of the sandbox is parsed strictly, is bounded, and is text that cannot mislead a terminal.
Interface: `Session(limits, volume)`: `run(code, cancelled)` -> `Cell`; `close`. SandboxMissing, SandboxEnded,
    SandboxFull.
"""

from __future__ import annotations

import base64
import json
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from llmos.drivers.sandbox import Limits, Mirror, Sandbox, SandboxEnded, SandboxFull, clean
from llmos.drivers.sandbox.layout import packages
from llmos.drivers.sandbox.mirror import Changes

MAX_FRAME = 16 << 20  # bytes of an answer; the loop keeps far below
GRACE_S = 2.0  # for a cell that was interrupted at its limit
CANCEL_GRACE_S = 0.5  # for one that nobody waits for any more: who gave it up kills us all soon after
POLL_S = 0.05
_PNG = b"\x89PNG\r\n\x1a\n"


class _Answer(BaseModel):
    """A frame from the loop; whoever runs in the sandbox can write one."""

    model_config = ConfigDict(extra="forbid", strict=True)

    output: str
    value: str | None
    error: str | None
    figures: list[str]
    interrupted: bool


@dataclass(frozen=True, slots=True)
class Cell:
    """What came of a cell. `error` is a traceback, `figures` are PNG; `stopped`: it was interrupted at its limit."""

    number: int
    output: str
    value: str | None
    error: str | None
    stopped: bool
    figures: tuple[bytes, ...]
    changes: Changes


class Session:
    """A running Python; one cell at a time."""

    def __init__(self, limits: Limits, volume: Path) -> None:
        source = files("llmos.apps.interpreter").joinpath("guest.py").read_text()
        python = str(Path(sys.executable).resolve())
        self.number = 0
        self._limits = limits
        self._heard = bytearray()
        self._sandbox = Sandbox([python, "-I", "-S", "-c", source, *map(str, packages())], limits)
        try:
            self._mirror = Mirror(self._sandbox, volume)
            self._sandbox.begin()
        except BaseException:
            self._sandbox.end()
            raise

    @property
    def ended(self) -> bool:
        """Whether its variables are gone."""
        return self._sandbox.ended

    def close(self) -> None:
        """End it."""
        self._sandbox.end()
        self._mirror.close()

    def run(self, code: str, cancelled: Callable[[], bool] = lambda: False) -> Cell:
        """Run one cell.

        Raises:
            SandboxEnded: the session is gone, with all variables; files are as they were then.
            SandboxFull: the working volume does not fit the sandbox; nothing was run.
        """
        self._mirror.push()
        self.number += 1
        data = code.encode("utf-8", "surrogatepass")
        try:
            self._sandbox.send(
                struct.pack(">III", self.number, self._limits.output, len(data)) + data, GRACE_S
            )
            answer = self._answer(cancelled)
        except SandboxEnded as error:
            self._sandbox.end()
            with suppress(SandboxFull):
                self._mirror.pull()
            self.close()
            raise SandboxEnded(
                "the Python session has ended, all its variables are gone", why=error.why or error.what,
                do=f"{error.do}; begin again, files are kept" if error.do else "begin again, files are kept",
            ) from None  # fmt: skip
        return Cell(
            number=self.number,
            output=clean(answer.output),
            value=None if answer.value is None else clean(answer.value),
            error=None if answer.error is None else clean(answer.error),
            stopped=answer.interrupted,
            figures=tuple(_pictures(answer.figures)),
            changes=self._mirror.pull(),
        )

    def _answer(self, cancelled: Callable[[], bool]) -> _Answer:
        began = time.monotonic()
        end = began + self._limits.seconds
        interrupted = False
        while True:
            if (answer := self._frame()) is not None:
                return answer
            now = time.monotonic()
            given_up = cancelled()
            if now >= end or (given_up and not interrupted):
                if interrupted:
                    raise SandboxEnded(
                        "the cell did not stop",
                        why=f"after {self._limits.seconds:g} s it was interrupted, and ran on",
                    )
                self._sandbox.interrupt()
                interrupted, end = True, now + (CANCEL_GRACE_S if given_up else GRACE_S)
            data = self._sandbox.receive(POLL_S)
            if data is None:
                raise self._sandbox.gone()
            self._heard += data
            if len(self._heard) > MAX_FRAME + 4:
                raise _garbled()

    def _frame(self) -> _Answer | None:
        """The answer that has come, None while it has not."""
        if len(self._heard) < 4:
            return None
        (size,) = struct.unpack(">I", self._heard[:4])
        if size > MAX_FRAME:
            raise _garbled()
        if len(self._heard) < 4 + size:
            return None
        data = bytes(self._heard[4 : 4 + size])
        del self._heard[: 4 + size]
        try:
            return _Answer.model_validate(json.loads(data))
        except (ValidationError, ValueError, RecursionError):
            raise _garbled() from None


def _pictures(figures: list[str]) -> Iterator[bytes]:
    """Those of the loop's pictures that are some."""
    for figure in figures:
        with suppress(ValueError):
            data = base64.b64decode(figure, validate=True)
            if data.startswith(_PNG):
                yield data


def _garbled() -> SandboxEnded:
    return SandboxEnded(
        "the Python session was ended",
        why="a cell wrote into the pipe by which it is answered",
        do="leave it alone",
    )
