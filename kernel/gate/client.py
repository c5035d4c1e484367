"""A client of the gate, and what it asks for.

What: its hello, its requests side by side, and tidying up when it has gone.
Invariant: a frame that is none, too large, or of another version ends that client with an error that says so. A request
    has at most `UNREAD` parts under way, so a client that does not read one turn still reads the others.
Interface: `Client(gate, reader, writer)`: `serve`; for the verbs: `process`, `own`, `release`, and `Request`: `part`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from llmos.abi import wire
from llmos.abi.errors import ConfigError, EngineError, LLMOSError, ProcessError
from llmos.abi.limits import MAX_OPEN
from llmos.abi.wire import UNREAD, VERSION, Frame
from llmos.kernel.gate.verbs import VERBS

if TYPE_CHECKING:
    from llmos.kernel.gate.reading import Reading
    from llmos.kernel.gate.server import Gate
    from llmos.kernel.process import Process

MAX_CLIENTS = 128  # a shell, some programs, some scripts; each may hold a frame in memory
MAX_REQUESTS = 4096  # of one client at once: as many as there can be processes
HELLO_S = 10.0  # within which a client must say who it is

log = logging.getLogger("llmos.gate")


class Client:
    """One connection, and what was begun through it."""

    def __init__(self, gate: Gate, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.gate, self.kernel = gate, gate.kernel
        self.approves = False
        self.stays = False  # what it spawned outlives it: the kernel closes
        self._owned: set[int] = set()  # what it spawned, and asked nothing detached
        self._known: dict[int, Process] = {}  # what it has named, also those that ended
        task = asyncio.current_task()
        assert task is not None
        self.task: asyncio.Task[Any] = task
        self._reader, self._writer = reader, writer
        self._requests: dict[int, Request] = {}
        self._sending = asyncio.Lock()

    async def serve(self, *, count: int) -> None:
        """From its hello to its end; with this one there are `count` clients."""
        try:
            wire.check_peer(self._writer.get_extra_info("socket"))
            if count > MAX_CLIENTS:
                raise ProcessError(
                    f"{MAX_CLIENTS} clients are attached to this kernel", do="end some of them"
                )
            async with asyncio.timeout(HELLO_S):
                await self._hello()
            while (frame := await self._next()) is not None:
                self._take(frame)
        except LLMOSError as error:  # what it sent was no frame: nothing after it can be trusted
            with suppress(OSError):
                await self.send({"error": wire.dump_error(error)})
        except (OSError, TimeoutError):
            pass
        finally:
            await self._leave()

    async def send(self, frame: Frame) -> None:
        """Hand a frame over; waits while the client does not read. EngineError: it is too large."""
        line = wire.pack(frame)
        async with self._sending:
            self._writer.write(line)
            await self._writer.drain()

    async def _next(self) -> Frame | None:
        try:
            line = await self._reader.readline()
        except ValueError:
            raise EngineError(
                "a message is too large for the kernel's socket",
                do="mount large texts instead of sending them",
            ) from None
        return wire.unpack(line) if line.endswith(b"\n") else None

    async def _hello(self) -> None:
        frame = await self._next()
        if frame is None:
            return
        if frame.get("llmos") != VERSION:
            raise ConfigError(
                f"the kernel speaks version {VERSION} of its protocol, the client {str(frame.get('llmos'))[:20]}",
                do="use one version of llmos for both: `llmos down`, then `llmos up`",
            )
        self.approves = frame.get("approves") is True
        kernel = self.kernel
        await self.send(
            {
                "llmos": VERSION, "version": version("llmos"), "pid": os.getpid(), "window": kernel.window,
                "config": kernel.config.model_dump(mode="json"), "weights": kernel.runner.identity,
                "boot_s": kernel.boot_s,
            }
        )  # fmt: skip

    def _take(self, frame: Frame) -> None:
        number = frame.get("id")
        if not isinstance(number, int):
            raise EngineError("a message has no id", do="number each request")
        request = self._requests.get(number)
        if "verb" in frame:
            if request is not None or len(self._requests) >= MAX_REQUESTS:
                raise EngineError(
                    f"request {number} cannot begin", why="one with that id is under way, or too many are",
                    do="use each id once, and wait for answers",
                )  # fmt: skip
            self._requests[number] = Request(self, number, frame["verb"], frame.get("with", {}))
        elif request is not None:  # else it is over already
            request.take(frame)

    def process(self, pid: int) -> Process:
        """The process with that pid, also where it has ended; NoSuchProcess."""
        known = self._known
        if pid not in known:
            if len(known) >= MAX_OPEN:
                self._known = known = {p.pid: p for p in known.values() if p.exit is None}
                self._owned &= known.keys()
            known[pid] = self.kernel.process(pid)
        return known[pid]

    def own(self, process: Process) -> None:
        """The client has spawned that process, which ends with it."""
        self._known[process.pid] = process
        self._owned.add(process.pid)

    def release(self, pid: int) -> None:
        """That process does not end with this client."""
        self._owned.discard(pid)

    def done(self, number: int) -> None:
        """A request is over."""
        self._requests.pop(number, None)

    async def _leave(self) -> None:
        """The client has gone: its requests end, and what it alone wanted ends with it."""
        try:
            tasks = [request.task for request in self._requests.values()]
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
            if not self.stays:
                for process in [self._known[pid] for pid in self._owned]:
                    if process.exit is None:
                        process.signal("KILL")
        finally:  # also where the gate closes meanwhile
            self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


class Request:
    """One thing that a client asked for, until it is answered."""

    def __init__(self, client: Client, number: int, verb: object, given: object) -> None:
        self.client, self.gate, self.kernel = client, client.gate, client.kernel
        self.reading: Reading | None = None  # of the turn whose events it streams
        self.process = client.process
        self._number = number
        self._credit, self._more = UNREAD, asyncio.Event()
        self.task = asyncio.ensure_future(self._run(verb, given))
        self.task.add_done_callback(partial(_log, number))

    async def part(self, value: object) -> None:
        """Send a part of the answer, when the client has room for it."""
        while self._credit <= 0:
            self._more.clear()
            await self._more.wait()
        self._credit -= 1
        await self.client.send({"id": self._number, "part": value})

    def take(self, frame: Frame) -> None:
        """What the client says about a request that is under way."""
        match frame:
            case {"more": int(count)}:
                self._credit += count
                self._more.set()
            case {"call": int(call), "argument": str(argument), "allowed": bool(allowed)}:
                if self.reading is not None and self.client.approves:
                    self.reading.answered(call, argument, allowed)
            case {"leave": True}:
                self.task.cancel()
            case _:
                raise EngineError("a message about a request says nothing", do="send `more` or `leave`")

    async def _run(self, verb: object, given: object) -> None:
        try:
            end = {"value": await self._call(verb, given)}
        except asyncio.CancelledError:
            self.client.done(self._number)
            raise
        except (LLMOSError, TimeoutError) as error:
            end = {"error": wire.dump_error(error)}
        except Exception as error:  # a fault of ours ends the request, not the client or the kernel
            if not isinstance(error, OSError):
                log.exception("request %s failed", verb)
            end = {"error": wire.dump_error(error)}
        self.client.done(self._number)
        with suppress(OSError):
            try:
                await self.client.send({"id": self._number, **end})
            except EngineError as error:
                await self.client.send({"id": self._number, "error": wire.dump_error(error)})

    async def _call(self, verb: object, given: object) -> object:
        if not isinstance(verb, str) or verb not in VERBS:
            raise ProcessError(f"there is no verb {str(verb)[:40]!r}", do=f"use one of {', '.join(VERBS)}")
        if not isinstance(given, Mapping):
            raise ProcessError(f"`with` of {verb} is no object", do="name its arguments")
        return await VERBS[verb](self, given)


def _log(number: int, task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("request %s", number, exc_info=error)
