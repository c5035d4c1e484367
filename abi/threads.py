"""Blocking work beside an event loop.

What: runs one function in a thread of its own and waits for it on the loop.
Invariant: a caller that is cancelled stops waiting at once; the thread runs on, but keeps no process alive.
Interface: `await in_thread(work, ended)`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[[], T], ended: Callable[[], None]) -> T:
    """What `work` returns or raises; `ended` is called in its thread once it has run to its end."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[T | None, BaseException | None]] = loop.create_future()

    def tell(result: T | None, error: BaseException | None) -> None:
        if not done.done():
            done.set_result((result, error))

    def run() -> None:
        try:
            outcome: tuple[T | None, BaseException | None] = (work(), None)
        except BaseException as error:
            outcome = (None, error)
        finally:
            ended()
        with suppress(RuntimeError):  # the loop has closed: nobody listens
            loop.call_soon_threadsafe(tell, *outcome)

    threading.Thread(target=run, name="syscall", daemon=True).start()
    result, error = await done
    if error is not None:
        raise error
    return result  # type: ignore[return-value]  # None only where T has it
