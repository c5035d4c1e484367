"""A mailbox: what other processes have sent, and not yet been read.

What: a bounded queue of letters on the kernel's loop; a sender waits while it is full.
Invariant: a letter is in the journal before it can be received, and its taking before it is handed over.
Interface: `put(letter, timeout)`, `take(timeout)`, `close()`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

from llmos.abi.errors import MailboxFull, NoSuchProcess
from llmos.abi.limits import MAX_MAIL
from llmos.kernel.journal.state import Mail


class Mailbox:
    """The box of process `pid`."""

    def __init__(self, pid: int, letters: Iterable[Mail] = ()) -> None:
        self._pid = pid
        self._letters = deque(letters)
        self._changed = asyncio.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._letters)

    async def put(self, send: Callable[[], Awaitable[Mail]], timeout: float | None = None) -> None:
        """Put in the letter that `send` makes once there is room.

        Raises:
            MailboxFull: there was none for `timeout` seconds.
            NoSuchProcess: its owner ended meanwhile.
        """
        async with self._changed:
            try:
                room = self._changed.wait_for(lambda: self._closed or len(self._letters) < MAX_MAIL)
                await asyncio.wait_for(room, timeout)
            except TimeoutError:
                raise MailboxFull(
                    f"the mailbox of process {self._pid} is full", why=f"{MAX_MAIL} letters wait in it",
                    do="let it receive first",
                ) from None  # fmt: skip
            if self._closed:
                raise NoSuchProcess(f"process {self._pid} has ended")
            self._letters.append(await send())
            self._changed.notify_all()

    async def take(self, took: Callable[[Mail], Awaitable[object]], timeout: float | None = None) -> Mail:
        """The oldest letter, once there is one; `took` is told before it is handed over.

        Raises:
            TimeoutError: there was none for `timeout` seconds.
        """
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(lambda: bool(self._letters)), timeout)
            await took(self._letters[0])
            letter = self._letters.popleft()
            self._changed.notify_all()
            return letter

    async def close(self) -> None:
        """Its owner has ended: nobody waits any longer."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()
