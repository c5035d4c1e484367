"""The socket.

What: listens, lets clients in, knows which turns they read, and goes down in good order.
Invariant: the socket is this user's alone; a stale one is in nobody's way. When it closes, turns and processes stay as
    they stand.
Interface: `Gate(kernel)`: `reading(turn)`, `readings`, `draining`, `drain`, `stopping`, `close`.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

from llmos.abi import wire
from llmos.abi.events import Ask
from llmos.kernel.gate.client import Client
from llmos.kernel.gate.reading import Reading

if TYPE_CHECKING:
    from llmos.kernel.kernel import Kernel
    from llmos.kernel.turn import Turn


class Gate:
    """Listens from construction to `close`, in the folder of a kernel that keeps its state.

    Args:
        stopping: set when a client has asked for the end.
        frame_bytes: of the longest line that is read.
    """

    def __init__(
        self,
        kernel: Kernel,
        *,
        stopping: threading.Event | None = None,
        frame_bytes: int = wire.MAX_FRAME_BYTES,
    ) -> None:
        self.kernel, self.path = kernel, kernel.state / "socket"
        self.readings: dict[tuple[int, int], Reading] = {}
        self.draining = False
        self.stopping = stopping or threading.Event()
        self._clients: set[Client] = set()
        kernel.loop.run(self._start(frame_bytes))
        kernel.reader = self._ask

    def __enter__(self) -> Gate:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Send the clients away; their turns and processes stay as they stand."""
        self.kernel.loop.run(self._close())

    def reading(self, turn: Turn) -> Reading:
        """Who reads that turn; made with the first."""
        key = turn.pid, turn.number
        if key not in self.readings:
            self.readings[key] = Reading(turn, partial(self._forget, key))
        return self.readings[key]

    def _forget(self, key: tuple[int, int]) -> None:
        self.readings.pop(key, None)

    async def drain(self, now: bool = False) -> None:
        """Take no more questions, and set `stopping` when those under way are answered; at once with `now`."""
        self.draining = True
        while not now and any(p.state != "stopped" and p.current is not None for p in self.kernel.table):
            await asyncio.sleep(0.05)
        self.stopping.set()

    async def _start(self, frame_bytes: int) -> None:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.path.parent.chmod(0o700)
            self.path.unlink(missing_ok=True)  # a killed kernel's: the journal's lock says that none is alive
            with wire.address(self.path) as address:
                listening.bind(address)
            self.path.chmod(0o600)
            self._server = await asyncio.start_unix_server(self._accept, sock=listening, limit=frame_bytes)
        except BaseException:
            listening.close()
            raise

    async def _close(self) -> None:
        self._server.close()
        for reading in self.readings.values():
            reading.keep = True
        await asyncio.sleep(0)  # who was accepted at this moment is a client now
        while self._clients:
            for client in self._clients:
                client.stays = True
                client.task.cancel()
            await asyncio.gather(*(client.task for client in self._clients), return_exceptions=True)
            await asyncio.sleep(0)
        self.path.unlink(missing_ok=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Client(self, reader, writer)
        self._clients.add(client)
        try:
            await client.serve(count=len(self._clients))
        except asyncio.CancelledError:
            if not client.stays:
                raise
        finally:
            self._clients.discard(client)

    async def _ask(self, turn: Turn | None, doubt: Ask) -> bool | None:
        reading = None if turn is None else self.readings.get((turn.pid, turn.number))
        return None if reading is None else await reading.ask(doubt)
