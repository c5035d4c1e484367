"""A turn: one question to an agent, and all that follows until its answer.

What: the reader's end. An iterator (or async iterator) of events while the model writes, and the answer,
    citations, usage and timings afterwards. What makes the events is `kernel.execution`.
Invariant: the last event is one `Done`, or an error is raised. Reading `answer` and the rest waits for the end. Who
    stops reading half-way cancels the turn; who reads slowly slows its own process only.
Interface: iterate, `answer`, `value`, `citations`, `usage`, `timings`, `reason`, `confidence`, `tree`, `cancel`;
    `aresult`.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from llmos.abi.errors import AnswerCut
from llmos.abi.events import Citation, Done, Event, StopReason, ThoughtTree, Timings, Usage
from llmos.abi.limits import MAX_UNREAD

if TYPE_CHECKING:
    import asyncio


class Turn:
    """Made by `Process.ask`. One reader at a time; `cancel` from any thread."""

    def __init__(
        self,
        pid: int,
        number: int,
        cancel: Callable[[], None],
        *,
        returns: Any = None,
        detached: bool = False,
    ) -> None:
        """`detached`: nobody reads along, so the turn does not wait for its reader."""
        self.pid, self.number, self.detached = pid, number, detached
        self._cancel, self._returns = cancel, returns
        self._queue: queue.SimpleQueue[Event | BaseException] = queue.SimpleQueue()
        self._drained: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self._done: Done | None = None
        self._error: BaseException | None = None

    # -- the reader's side ---------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Event]:
        try:
            while not self._over:
                yield self._take(self._queue.get())
        finally:
            if not self._over:
                self.cancel()

    async def __aiter__(self) -> AsyncIterator[Event]:
        try:
            while not self._over:
                yield self._take(await self._next())
        finally:
            if not self._over:
                self.cancel()

    def cancel(self) -> None:
        """Stop; what was written so far becomes the answer. Any thread, any time."""
        self._cancel()

    @property
    def result(self) -> Done:
        """The last event; waits for it."""
        while not self._over:
            self._take(self._queue.get())
        return self._result()

    async def aresult(self) -> Done:
        """The same for async programs."""
        while not self._over:
            self._take(await self._next())
        return self._result()

    @property
    def answer(self) -> str:
        return self.result.answer

    @property
    def value(self) -> Any:
        """The answer as the type that `ask(..., returns=...)` named.

        Raises:
            AnswerCut: the answer reached its token limit or was cancelled before it was whole.
        """
        if self._returns is None:
            return self.answer
        try:
            return TypeAdapter(self._returns).validate_json(self.answer)
        except ValidationError as e:
            raise AnswerCut(
                f"the answer is no {getattr(self._returns, '__name__', self._returns)}",
                why=f"it ended by {self.reason!r}: {e.errors(include_url=False)[0]['msg']}",
                do="raise `max_tokens`",
            ) from None

    @property
    def reason(self) -> StopReason:
        return self.result.reason

    @property
    def citations(self) -> tuple[Citation, ...]:
        return self.result.citations

    @property
    def usage(self) -> Usage:
        return self.result.usage

    @property
    def timings(self) -> Timings:
        return self.result.timings

    @property
    def confidence(self) -> float | None:
        """How likely the answer is right, 0 to 1; None where the turn did not think."""
        return self.result.confidence

    @property
    def tree(self) -> ThoughtTree | None:
        """How the turn came to its answer; None where it did not think."""
        return self.result.tree

    @property
    def _over(self) -> bool:
        return self._done is not None or self._error is not None

    def _result(self) -> Done:
        if self._error is not None:
            raise self._error
        assert self._done is not None
        return self._done

    def _take(self, item: Event | BaseException) -> Event:
        if self._queue.qsize() == MAX_UNREAD - 1:
            self._drained()
        if isinstance(item, BaseException):
            self._error = item
            raise item
        if isinstance(item, Done):
            self._done = item
        return item

    async def _next(self) -> Event | BaseException:
        import asyncio  # a tenth of a second that programs which only wait do not need

        while True:
            with self._lock:
                if not self._queue.empty():
                    return self._queue.get()
                ready = asyncio.Event()
                self._waiter = asyncio.get_running_loop(), ready
            await ready.wait()

    # -- the kernel's side ---------------------------------------------------------------------------------------

    def on_drained(self, call: Callable[[], None]) -> None:
        """`call` runs, on the reader's thread, when a full queue has room again."""
        self._drained = call

    @property
    def full(self) -> bool:
        """The reader is too far behind to be given more."""
        return self._queue.qsize() >= MAX_UNREAD

    def put(self, item: Event | BaseException) -> None:
        """Hand over an event; the last is `Done` or an error."""
        with self._lock:
            self._queue.put(item)
            waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter[0].is_closed():
            waiter[0].call_soon_threadsafe(waiter[1].set)
