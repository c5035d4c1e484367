"""Output commit: a token reaches its reader once the journal holds it.

What: `ProcessStream`, a sequence's stream whose reader is a turn on the loop, and `OutputCommit`, which takes what a
    step made, journals it, and delivers it when it is durable: while the next step runs.
Invariant: nothing of a process is delivered before its record is on the disk. Tokens that the journal held already
    (`known`: the turn is resumed) are delivered, not written again; one that differs from what was known is
    written in its place.
Interface: `ProcessStream(pid, turn, position, known)` (iterate with `async for`), `OutputCommit(journal, loop)`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from llmos.abi.errors import LLMOSError
from llmos.abi.limits import MAX_UNREAD
from llmos.kernel.engine.sequence import Emitted, Item, Stream
from llmos.kernel.engine.sequence import Finished as StreamFinished
from llmos.kernel.journal.records import Body, Forced, Sampled

if TYPE_CHECKING:
    from llmos.kernel.journal import Journal
    from llmos.kernel.loop import Loop


class ProcessStream(Stream):
    """The tokens of turn `turn` of process `pid`; the first stands at `position` of its window."""

    def __init__(self, pid: int, turn: int, position: int, known: Sequence[int] = ()) -> None:
        super().__init__()
        self.pid, self.turn = pid, turn
        self.diverged: int | None = None  # position of the first token that is not what was known
        self._known = deque(known)
        self._position = position
        self._items: deque[Item] = deque()
        self._ready = asyncio.Event()

    def records(self, tokens: Sequence[Emitted]) -> list[Body]:
        """Engine side: what the journal has to learn of these tokens."""
        bodies: list[Body] = []
        for token in tokens:
            position, self._position = self._position, self._position + 1
            if self._known:
                if self._known.popleft() == token.id:
                    continue
                self.diverged = position
                self._known.clear()
            kind = Forced if token.logprob is None else Sampled
            last = bodies[-1] if bodies else None
            if isinstance(last, (Forced, Sampled)) and type(last) is kind:
                bodies[-1] = kind(self.turn, last.position, (*last.tokens, token.id))
            else:
                bodies.append(kind(self.turn, position, (token.id,)))
        return bodies

    @property
    def full(self) -> bool:
        return len(self._items) >= MAX_UNREAD

    def put(self, item: Item) -> None:
        """On the loop's thread."""
        self._items.append(item)
        self._ready.set()

    async def __aiter__(self) -> AsyncIterator[Emitted]:
        """Tokens; afterwards `finished` is set. Raises what ended the sequence."""
        while self.finished is None:
            while not self._items:
                self._ready.clear()
                await self._ready.wait()
            item = self._items.popleft()
            if len(self._items) == MAX_UNREAD - 1:
                self._wake()
            if isinstance(item, LLMOSError):
                raise item
            if isinstance(item, StreamFinished):
                self.finished = item
                return
            yield item


class OutputCommit:
    """What the engine calls at the end of each step, on its own thread."""

    def __init__(self, journal: Journal, loop: Loop) -> None:
        self._journal, self._loop = journal, loop
        self.last = 0  # the record that delivery waits for: also where a step had nothing new to write

    def __call__(self, items: Sequence[tuple[Stream, Item]]) -> None:
        """Journal the tokens of processes, and deliver everything: what has no process at once."""
        made: dict[int, tuple[ProcessStream, list[Item]]] = {}
        for stream, item in items:
            if isinstance(stream, ProcessStream):
                made.setdefault(id(stream), (stream, []))[1].append(item)
            else:
                stream.put(item)
        for stream, its in made.values():
            try:
                for body in stream.records([item for item in its if isinstance(item, Emitted)]):
                    self.last = self._journal.append(stream.pid, body)
            except LLMOSError as e:  # no record, no output: the turn ends with the reason
                stream.cancelled = True
                its[:] = [e]
        if made:
            batch = [(stream, item) for stream, its in made.values() for item in its]
            self._journal.after(self.last, lambda: self._loop.call(_deliver, batch))
            self._journal.commit()


def _deliver(batch: Sequence[tuple[Stream, Item]]) -> None:
    for stream, item in batch:
        stream.put(item)
