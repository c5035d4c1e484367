"""The processes of one request: spawned for it, read together, ended with it.

What: asks each question in a process of its own, and `n` choices of one question in forks of that process; merges
    what their turns tell.
Invariant: when the `async with` ends, however it ends, no sequence of it runs in the engine and no process of it is
    left. Who does not read holds up these turns alone.
Interface: `async with Answers(kernel, questions, copies) as answers`, then `await answers.next(seconds)`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING

from llmos.abi.errors import LLMOSError
from llmos.abi.events import Done, Event

if TYPE_CHECKING:
    from llmos.kernel.kernel import Kernel
    from llmos.kernel.process import Process
    from llmos.kernel.turn import Turn
    from llmos.serve.asking import Options

UNREAD = 64  # events of a request that wait here; more wait in their turns
NAME = "http"  # of these processes in `ps`


class Answers:
    """Lives on the kernel's loop."""

    def __init__(self, kernel: Kernel, questions: Sequence[Options], copies: int = 1) -> None:
        self._kernel, self._questions, self._copies = kernel, questions, copies
        self._events: asyncio.Queue[tuple[int, Event | Exception]] = asyncio.Queue(UNREAD)
        self._tasks: list[asyncio.Task[None]] = []
        self._processes: list[Process] = []
        self._open = len(questions) * copies

    async def __aenter__(self) -> Answers:
        try:
            for question in self._questions:
                self._begin(question)
        except BaseException:
            self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        try:
            await asyncio.wait(self._tasks)
        finally:
            self._end()

    def _begin(self, question: Options) -> None:
        """Ask one question in a process and its forks. The first reads it; its pages are there for the others, which
        begin when it has a word."""
        first = self._kernel.spawn(expert=NAME)
        self._processes.append(first)
        family = [first, *first.fork(self._copies - 1)]
        self._processes += family[1:]
        begun = asyncio.Event()
        for process in family:
            work = self._answer(
                len(self._tasks), process, question, None if process is first else begun, begun
            )
            self._tasks.append(asyncio.ensure_future(work))

    def _end(self) -> None:
        with suppress(LLMOSError):
            for process in self._processes:
                process.signal("KILL")

    async def next(self, seconds: float | None = None) -> tuple[int, Event] | None:
        """The next event and the number of its choice; None where `seconds` pass without one.

        Raises what ended a turn, an LLMOSError unless the mistake is ours.
        """
        try:
            async with asyncio.timeout(seconds):
                index, event = await self._events.get()
        except TimeoutError:
            return None
        if isinstance(event, Exception):
            raise event
        if isinstance(event, Done):
            self._open -= 1
        return index, event

    @property
    def over(self) -> bool:
        """Every choice has ended."""
        return self._open == 0

    async def _answer(
        self,
        index: int,
        process: Process,
        question: Options,
        ready: asyncio.Event | None,
        begun: asyncio.Event,
    ) -> None:
        """One choice, from its question to the end of its turn."""
        asking: asyncio.Task[Turn] | None = None
        try:
            if ready is not None:
                await ready.wait()
            asking = asyncio.ensure_future(process.aask(**question))
            turn = await asyncio.shield(asking)  # it goes on in its thread, whatever happens here
            async for event in turn:
                begun.set()
                await self._events.put((index, event))
        except Exception as e:  # whoever waits for events must learn of it
            await self._events.put((index, e))
        finally:
            begun.set()
            if asking is not None:
                await _stopped(asking)


async def _stopped(asking: asyncio.Task[Turn]) -> None:
    """Wait until a turn has ended; it is told to."""
    with suppress(LLMOSError):
        turn = await asking
        turn.cancel()
        await turn.aresult()
