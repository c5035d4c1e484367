"""Processes that a shell has to do with, and the turns of theirs that it reads.

What: reads each turn on a thread, tells whoever draws the foreground, keeps what the others say.
Invariant: a turn is read to its end whoever is in the foreground, so nothing waits for a person to look. What came
    while nobody looked is there when somebody does.
Interface: `Job(process, told)`: `read(turn)`, `busy`, `said`, `last`, `wait`, `interrupt`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from llmos.abi.errors import EngineError, LLMOSError
from llmos.abi.events import Done, Event, Token

if TYPE_CHECKING:
    from llmos.abi.machine import AnyProcess, AnyTurn

Told = Callable[["Job", "Event | BaseException"], None]


class Job:
    """One process. `told` is called on the reader's thread for everything that its turns tell."""

    def __init__(self, process: AnyProcess, told: Told, options: Mapping[str, Any] | None = None) -> None:
        self.process, self.pid, self.name = process, process.pid, process.expert or "agent"
        self.options = dict(options or {})  # of its questions, as its expert says
        self.asked = 0  # questions of this shell
        self.said = ""  # of the turn that runs
        self.unread: list[Event | BaseException] = []  # came while it was in the background
        self.last: Done | None = None
        self.failure: LLMOSError | None = None  # of the last turn
        self.number = 0  # of the last turn
        self._told = told
        self._turns: deque[AnyTurn] = deque()
        self._changed = threading.Condition()
        self._reading = False

    @property
    def busy(self) -> bool:
        """A turn of it runs or waits."""
        with self._changed:
            return self._reading

    @property
    def lost(self) -> bool:
        """Its last turn was not read to the end, for the kernel went."""
        return self.busy or isinstance(self.failure, EngineError)

    def read(self, turn: AnyTurn) -> None:
        """Read a turn, after those before it."""
        with self._changed:
            self._turns.append(turn)
            self.number = turn.number
            if not self._reading:
                self._reading = True
                threading.Thread(target=self._read, name=f"llmos-read-{self.pid}", daemon=True).start()

    def wait(self) -> None:
        """Until nothing of it is read any more."""
        with self._changed:
            while self._reading:
                self._changed.wait(0.2)  # so that Ctrl-C is heard

    def interrupt(self) -> bool:
        """Stop the turn that runs; whether one did."""
        with self._changed:
            turn = self._turns[0] if self._turns else None
        if turn is not None:
            turn.cancel()
        return turn is not None

    def _read(self) -> None:
        while True:
            with self._changed:
                if not self._turns:
                    self._reading = False
                    self._changed.notify_all()
                    return
                turn = self._turns[0]
            self.said, self.failure = "", None
            try:
                for event in turn:
                    if isinstance(event, Token):
                        self.said += event.text
                    elif isinstance(event, Done):
                        self.last = event
                    self._told(self, event)
            except BaseException as error:  # an error of the turn is its end, and told like one
                self.failure = error if isinstance(error, LLMOSError) else None
                self._told(self, error)
            with self._changed:
                self._turns.popleft()
