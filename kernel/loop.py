"""The kernel's asyncio thread: turns, apps and sockets live on it.

What: one event loop on a thread of its own, and the ways in from other threads.
Invariant: nothing on it blocks: retrieval and tokenising of long texts go to worker threads. What was started
    on it is cancelled and waited for when it closes.
Interface: `Loop()`, `start(coroutine) -> Future`, `run(coroutine) -> value`, `call(function, *args)`, `close()`,
    `closing`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from llmos.abi.errors import EngineError

T = TypeVar("T")


class Loop:
    """Any thread may call any method."""

    def __init__(self) -> None:
        self.closing = False  # what is cancelled from now on is cancelled because the kernel closes
        self.asyncio = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.asyncio.run_forever, name="llmos-loop", daemon=True)
        self._thread.start()

    @property
    def here(self) -> bool:
        """Whether the caller stands on the loop's own thread."""
        return threading.current_thread() is self._thread

    def start(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run a coroutine on the loop."""
        try:
            return asyncio.run_coroutine_threadsafe(work, self.asyncio)
        except RuntimeError:
            work.close()
            raise EngineError("the kernel is closed", do="open a new one") from None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for what it returns."""
        return self.start(work).result()

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Have the loop call a function soon; in order. Nothing happens once the loop is closed."""
        if not self.asyncio.is_closed():
            self.asyncio.call_soon_threadsafe(function, *arguments)

    def close(self) -> None:
        """Cancel what runs, wait for it, stop the thread. Idempotent."""
        if self.asyncio.is_closed():
            return
        self.closing = True
        self.run(_cancel_all())
        self.asyncio.call_soon_threadsafe(self.asyncio.stop)
        self._thread.join()
        self.asyncio.run_until_complete(self.asyncio.shutdown_default_executor())
        self.asyncio.close()


async def _cancel_all() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
