"""A turn, and the clients that read it.

What: takes a turn's events once, keeps them, and gives each reader all of them from the first.
Invariant: the turn goes as fast as its fastest reader reads and no faster; it is cancelled when the last one leaves,
    unless it is detached. What is kept is bounded by the window.
Interface: `Reading(turn, forget)`: `parts(approves)`, `ask(doubt)`, `answered(call, argument, allowed)`, `keep`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmos.abi.errors import LLMOSError
from llmos.abi.events import Ask
from llmos.abi.wire import UNREAD, dump_event

if TYPE_CHECKING:
    from llmos.kernel.turn import Turn


@dataclass(slots=True, eq=False)
class _Reader:
    approves: bool
    at: int = 0


class Reading:
    """Lives on the loop."""

    def __init__(self, turn: Turn, forget: Callable[[], None]) -> None:
        self.turn = turn
        self.keep = False  # the turn goes on without readers: the kernel closes
        self._forget = forget
        self._parts: list[Any] = []
        self._readers: list[_Reader] = []
        self._over = False
        self._error: LLMOSError | None = None
        self._grown, self._moved = asyncio.Event(), asyncio.Event()
        self._doubts: dict[tuple[int, str], asyncio.Future[bool | None]] = {}
        self._pumping = asyncio.ensure_future(self._pump())

    async def parts(self, *, approves: bool) -> AsyncGenerator[Any, None]:
        """Every event, as it travels; raises what ended the turn. Close it when you leave.

        Args:
            approves: this reader answers what `Ask` events ask.
        """
        reader = _Reader(approves)
        self._readers.append(reader)
        try:
            while True:
                while reader.at == len(self._parts):
                    if self._error is not None:
                        raise self._error
                    if self._over:
                        return
                    self._grown.clear()
                    await self._grown.wait()
                yield self._parts[reader.at]
                reader.at += 1
                self._moved.set()
        finally:
            self._readers.remove(reader)
            if not any(other.approves for other in self._readers):
                for doubt in [d for d in self._doubts.values() if not d.done()]:
                    doubt.set_result(None)
            if not self._readers and not self.turn.detached and not self.keep:
                self.turn.cancel()
            self._moved.set()

    async def ask(self, doubt: Ask) -> bool | None:
        """What the first of the readers answers; None where none can."""
        if not any(reader.approves for reader in self._readers):
            return None
        key = doubt.number, doubt.argument
        answer = self._doubts[key] = asyncio.get_running_loop().create_future()
        try:
            return await answer
        finally:
            del self._doubts[key]

    def answered(self, call: int, argument: str, allowed: bool) -> None:
        """A reader has answered; the first answer counts."""
        answer = self._doubts.get((call, argument))
        if answer is not None and not answer.done():
            answer.set_result(allowed)

    async def _pump(self) -> None:
        try:
            async for event in self.turn:
                self._parts.append(dump_event(event))
                self._grown.set()
                while self._ahead():
                    self._moved.clear()
                    await self._moved.wait()
        except LLMOSError as error:
            self._error = error
        finally:
            self._over = True
            self._grown.set()
            self._forget()

    def _ahead(self) -> bool:
        """Every reader has as much waiting as it may have."""
        if self.turn.detached or not self._readers:
            return False
        return all(len(self._parts) - reader.at >= UNREAD for reader in self._readers)
