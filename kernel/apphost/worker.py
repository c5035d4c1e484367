"""One process of apps: started on first use, watched, restarted with back-off.

What: keeps at most one connection to one server, and ends it when a call will not stop.
Invariant: after a crash the next start waits twice as long as the last one did, until a call succeeds. A call
    that was given up is followed: if its code still runs after `GRACE_SECONDS`, or nobody
    there answers within `ANSWER_SECONDS`, its process is killed. So is one that ran out of memory and keeps it.
Interface: `await worker.call(...)`, `await worker.tools()`, `await worker.stop()`; loop thread only.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from llmos.abi.errors import AppError, AppFailed, AppUnavailable
from llmos.abi.signature import Reply
from llmos.drivers.mcp.meta import CallMeta
from llmos.drivers.mcp.source import Http, Stdio
from llmos.kernel.apphost.values import AppProcess, State

if TYPE_CHECKING:
    from llmos.drivers.mcp.client import Connection, OnAsk, OnProgress

GRACE_SECONDS = 1.0  # between the end of a call's time and the end of its process
ANSWER_SECONDS = 3.0  # until a process must say what it works on; on a busy machine that is not at once
FIRST_DELAY, LONGEST_DELAY = 0.25, 60.0  # seconds before a crashed app is started again

Check = Callable[["Connection"], Awaitable[None]]


class Worker:
    """A server's process, or the place where one will be."""

    def __init__(
        self,
        name: str,
        source: Stdio | Http,
        *,
        ours: bool,
        agent: int = 0,
        on_ask: OnAsk,
        check: Check | None,
    ) -> None:
        """`check` looks at every new or changed connection before it is used, and raises what is wrong with it."""
        self.name, self.source, self.ours, self.agent = name, source, ours, agent
        self.calls = self.active = self.restarts = 0
        self._on_ask, self._check = on_ask, check
        self._connection: Connection | None = None
        self._starting = asyncio.Lock()
        self._stopping = False
        self._failures = 0
        self._not_before = 0.0
        self._state: State = "new"
        self._words = ""
        self._opening: asyncio.Future[Connection] | None = None
        self._followers: set[asyncio.Task[None]] = set()

    def look(self) -> AppProcess:
        """Its line of `ps`; from any thread."""
        connection = self._connection
        child = connection.child if connection is not None and connection.alive else None
        return AppProcess(
            name=f"[{self.name}]",
            agent=self.agent,
            os_pid=child.pid if child else 0,
            state=self._state,
            calls=self.calls,
            active=self.active,
            restarts=self.restarts,
            memory=child.memory() if child else 0,
            words=child.words() if child else self._words,
        )

    async def ready(self, patience: float) -> None:
        """Until calls can be made; AppUnavailable where a crashed app's restart is further off than `patience`."""
        await self._ready(patience)

    async def call(
        self, tool: str, arguments: Mapping[str, Any], meta: CallMeta, on_progress: OnProgress | None
    ) -> Reply | None:
        """One call, without a deadline of its own."""
        connection = await self._ready(0.0)
        self.calls += 1
        self.active += 1
        try:
            reply = await connection.call(tool, arguments, meta, deadline=None, on_progress=on_progress)
        except asyncio.CancelledError:
            self._follow(self._see_it_end(connection, meta.id))
            raise
        except AppUnavailable:
            if not connection.alive:  # else the app itself said it: something that it needs is not there
                await self._lost(connection)
            raise
        except AppError as error:
            self._failures = 0
            if self.ours and isinstance(error, AppFailed) and error.type.endswith("MemoryError"):
                raise self._starved(connection, tool) from None
            raise
        finally:
            self.active -= 1
        self._failures = 0
        return reply

    def _starved(self, connection: Connection, tool: str) -> AppFailed:
        """What to say of a call that had no memory left."""
        assert isinstance(self.source, Stdio)
        self._follow(self._see_it_let_go(connection, self.source.memory))
        return AppFailed(
            f"{tool} ran out of memory",
            why=f"a process of an app may hold {self.source.memory >> 20} MiB (`max_memory` of an app in llmos.yaml)",
            do="ask for less at once",
            type="MemoryError",
        )

    async def tools(self) -> list[dict[str, Any]]:
        """What the server lists now, confirmed or not."""
        return await (await self._ready(LONGEST_DELAY, checked=False)).tools()

    async def _ready(self, patience: float, checked: bool = True) -> Connection:
        async with self._starting:
            if self._connection is not None and not self._connection.alive:
                await self._lost(self._connection)
            if self._connection is None:
                await self._start(patience, checked)
            connection = self._connection
            assert connection is not None
            if connection.changed and checked and self._check is not None:
                await self._check(connection)
            return connection

    async def _start(self, patience: float, checked: bool) -> None:
        delay = self._not_before - asyncio.get_running_loop().time()
        if delay > patience:
            raise AppUnavailable(
                f"{self.name} ended {self._failures} times and is not started again yet",
                why=f"its last words: {self._words[-500:]}" if self._words else "",
                do=f"try again in {delay:.0f} s",
            )
        if delay > 0:
            self._state = "waiting"
            await asyncio.sleep(delay)
        self._state = "starting"
        self._opening = asyncio.ensure_future(self._open())
        try:
            connection = await self._opening
        except AppUnavailable as error:
            self._words = error.why
            self._back_off()
            raise
        except asyncio.CancelledError:
            if self._stopping:
                raise AppUnavailable(f"{self.name} was ended while it started") from None
            self._state = "new"
            raise
        if self._failures:
            self.restarts += 1
        try:
            if checked and self._check is not None:
                await self._check(connection)
        except BaseException:
            await connection.close()
            self._state = "stopped"
            raise
        self._connection, self._state = connection, "ready"

    async def _open(self) -> Connection:
        # Most of a second at the first time, so not before an app is used and not on the loop.
        client = await asyncio.to_thread(importlib.import_module, "llmos.drivers.mcp.client")
        on_ask = self._on_ask if self.ours else None
        opened: Connection = await client.Connection.open(
            self.name, self.source, ours=self.ours, on_ask=on_ask
        )
        return opened

    async def _lost(self, connection: Connection) -> None:
        """The process ended or has to end by force: the next start waits."""
        if self._connection is not connection:
            return
        self._connection = None
        if connection.child is not None:
            self._words = connection.child.words()
        self._back_off()
        await connection.kill()

    def _back_off(self) -> None:
        delay = min(FIRST_DELAY * 2**self._failures, LONGEST_DELAY)
        self._failures += 1
        self._not_before = asyncio.get_running_loop().time() + delay
        self._state = "waiting"

    def _follow(self, watch: Coroutine[Any, Any, None]) -> None:
        """See to what a call leaves behind."""
        task = asyncio.get_running_loop().create_task(watch)
        self._followers.add(task)
        task.add_done_callback(self._followers.discard)

    async def _see_it_let_go(self, connection: Connection, memory: int) -> None:
        """A process that keeps its memory used up can do nothing more for anybody; what it holds while other calls are
        under way may be theirs."""
        await asyncio.sleep(GRACE_SECONDS)
        while self.active and connection.alive:
            await asyncio.sleep(GRACE_SECONDS)
        if connection.alive and connection.child is not None and connection.child.private() > memory // 2:
            connection.ending = "another call had used up its memory"
            await self._lost(connection)

    async def _see_it_end(self, connection: Connection, call: str) -> None:
        """A call that was given up really ends."""
        await asyncio.sleep(GRACE_SECONDS)
        if not connection.alive:
            return
        running = await connection.running(ANSWER_SECONDS)
        if running is None or call in running:
            connection.ending = "another call in it would not stop"
            await self._lost(connection)

    async def stop(self) -> None:
        """End the process in good order."""
        for task in list(self._followers):
            task.cancel()
        self._stopping = True
        if self._opening is not None:
            self._opening.cancel()
        async with self._starting:
            connection, self._connection, self._state = self._connection, None, "stopped"
            if connection is not None:
                await connection.close()
