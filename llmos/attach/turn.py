"""A turn that another process runs.

What: the reader's end of `kernel.turn.Turn`, fed by a connection.
Invariant: as the real one: who reads slowly slows this turn only, who stops half-way cancels it, and who lets go of it
    without reading cancels it too, unless it is detached.
Interface: that of `Turn`.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable
from typing import Any

from llmos.abi import wire
from llmos.abi.errors import LLMOSError
from llmos.abi.events import Ask, Event
from llmos.abi.wire import Frame
from llmos.attach.connection import STEP, Connection
from llmos.kernel.turn import Turn

EVERYTHING = 1 << 30  # room, once all that was written so far is wanted

Asker = Callable[[Ask], bool]


class RemoteTurn(Turn):
    """Made by `RemoteProcess.ask` and `current`."""

    def __init__(self, connection: Connection, pid: int, asker: Asker | None, **more: Any) -> None:
        super().__init__(pid, 0, self._stop, **more)
        self._connection, self._asker = connection, asker
        self._begun = threading.Event()
        self._refused: Exception | None = None
        self._request = 0
        self._taken = 1  # the kernel's first part is the number

    def start(self, verb: str, given: dict[str, Any]) -> bool:
        """Begin to read; whether there is such a turn. Raises what refuses it."""
        mine = weakref.ref(self)  # a turn that its reader has dropped is not kept by the connection

        def take(frame: Frame) -> None:
            if (turn := mine()) is not None:
                turn._frame(frame)

        self._request = self._connection.begin(verb, take, given)
        try:
            self._begun.wait()
        except BaseException:
            self._connection.leave(self._request)
            raise
        if self._refused is not None:
            raise self._refused
        return self.number > 0

    def __del__(self) -> None:
        if getattr(self, "_request", 0) and not self._over:
            self._connection.leave(self._request)

    def _frame(self, frame: Frame) -> None:
        """On the connection's thread: what the kernel says about this turn."""
        match frame:
            case {"part": {"turn": number}}:
                self.number = int(number)
                self._begun.set()
            case {"part": part}:
                try:
                    event = wire.load_event(part)
                except LLMOSError as error:
                    self.put(error)
                    return
                if isinstance(event, Ask) and self._asker is not None:
                    threading.Thread(target=self._approve, args=(event, self._asker), daemon=True).start()
                self.put(event)
            case {"error": told}:
                end = wire.load_error(told)
                if self._begun.is_set():
                    self.put(end)
                else:
                    self._refused = end
                    self._begun.set()
            case _:
                self._begun.set()

    def _approve(self, doubt: Ask, asker: Asker) -> None:
        allowed = False
        try:
            allowed = bool(asker(doubt))
        finally:
            self._say(call=doubt.number, argument=doubt.argument, allowed=allowed)

    def _stop(self) -> None:
        if not self._over:
            self._say(more=EVERYTHING)
            with contextlib.suppress(LLMOSError):
                self._connection.begin("cancel", lambda _: None, {"pid": self.pid, "turn": self.number})

    def _take(self, item: Event | BaseException) -> Event:
        self._taken += 1
        if self._taken % STEP == 0:
            self._say(more=STEP)
        return super()._take(item)

    def _say(self, **what: Any) -> None:
        with contextlib.suppress(LLMOSError):  # a kernel that has gone: the next event says so
            self._connection.send({"id": self._request, **what})
