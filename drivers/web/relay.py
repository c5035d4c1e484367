"""The way out of Chromium's network namespace: a SOCKS5 relay that asks the gate about every connection.

What: takes connections on a listening socket, reads whom they want to reach, has the gate resolve and judge it, and
    copies bytes between both ends. Chromium asks by name and resolves nothing itself.
Invariant: it connects to addresses that the gate gave for this very connection. Connections, their bytes and the
    seconds of a handshake are bounded.
Interface: `async with Relay(listening, gate) as relay`; `relay.refused` (host and reason, newest last), `relay.budget`
    (bytes that may still come in; whoever begins something new sets it).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import deque
from contextlib import suppress
from types import TracebackType

from llmos.drivers.web.addresses import Gate
from llmos.drivers.web.errors import AddressRefused, PageFailed, PageTooLarge, WebError

MAX_CONNECTIONS = 256
HANDSHAKE_SECONDS = 15.0
BUDGET = 96 << 20  # bytes that one call may let in: a heavy page has 10 MiB, a download at most 64
_CHUNK = 1 << 16
_OK, _FAILED, _NOT_ALLOWED, _NO_COMMAND = b"\x00", b"\x05", b"\x02", b"\x07"


class Relay:
    """One relay a browser."""

    def __init__(self, listening: socket.socket, gate: Gate) -> None:
        self.gate = gate
        self.refused: deque[tuple[str, WebError]] = deque(maxlen=32)
        self.budget = BUDGET
        self._listening = listening
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._take, sock=self._listening)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._open) >= MAX_CONNECTIONS:
            writer.close()
            return
        self._open.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, EOFError, TimeoutError):
            pass  # one of both sides has gone
        except asyncio.CancelledError:
            pass  # the relay closes; asyncio would log a cancelled handler as a failure
        finally:
            self._open.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            wanted = await _handshake(reader, writer)
            if wanted is None:
                return
            try:
                ends = await self._connect(*wanted)
            except WebError as error:
                self.refused.append((wanted[0], error))
                refused = isinstance(error, AddressRefused)
                await _answer(writer, _NOT_ALLOWED if refused else _FAILED)
                return
            except OSError as error:
                why = error.strerror or str(error)
                self.refused.append((wanted[0], PageFailed(f"{wanted[0]} does not answer", why=why)))
                await _answer(writer, _FAILED)
                return
        far_reader, far_writer = ends
        try:
            await _answer(writer, _OK)
            up = asyncio.create_task(self._copy(reader, far_writer, counted=False))
            down = asyncio.create_task(self._copy(far_reader, writer, counted=True))
            try:
                await asyncio.wait((up, down))
            finally:
                up.cancel()
                down.cancel()
                await asyncio.gather(up, down, return_exceptions=True)
        finally:
            far_writer.close()

    async def _connect(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        failed: OSError = OSError("no address")
        for address in await self.gate.addresses(host, port):
            try:
                return await asyncio.open_connection(address, port)
            except OSError as error:
                failed = error
        raise failed

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, counted: bool) -> None:
        with suppress(OSError):
            while data := await source.read(_CHUNK):
                if counted:
                    self.budget -= len(data)
                    if self.budget < 0:
                        self.refused.append(
                            (
                                "",
                                PageTooLarge(
                                    f"more than {BUDGET >> 20} MiB came in", do="open something smaller"
                                ),
                            )
                        )
                        sink.transport.abort()
                        return
                sink.write(data)
                await sink.drain()
            if sink.can_write_eof():
                sink.write_eof()


async def _handshake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, int] | None:
    """Host and port that the other side wants to reach; None where it speaks something else."""
    version, methods = await reader.readexactly(2)
    await reader.readexactly(methods)
    if version != 5:
        return None
    writer.write(b"\x05\x00")
    version, command, _, kind = await reader.readexactly(4)
    if kind == 1:
        host = str(ipaddress.IPv4Address(await reader.readexactly(4)))
    elif kind == 4:
        host = str(ipaddress.IPv6Address(await reader.readexactly(16)))
    elif kind == 3:
        length = (await reader.readexactly(1))[0]
        host = (await reader.readexactly(length)).decode("ascii", "replace").removesuffix(".").lower()
    else:
        return None
    port = int.from_bytes(await reader.readexactly(2), "big")
    if version != 5 or command != 1:
        await _answer(writer, _NO_COMMAND)
        return None
    return host, port


async def _answer(writer: asyncio.StreamWriter, code: bytes) -> None:
    writer.write(b"\x05" + code + b"\x00\x01" + bytes(6))
    await writer.drain()
