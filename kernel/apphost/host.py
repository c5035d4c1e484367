"""The app host: from a syscall's name to the process that does it, and back to an outcome.

What: chooses the process of a call, bounds the call in time, lets it ask the model back.
Invariant: methods are safe from any thread and never block; what happens, happens on the loop. `call` ends in an
    `Outcome` whatever the app does; only cancelling its future ends it in another way.
Interface: `AppHost`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from llmos.abi.errors import (
    AppError,
    AppFailed,
    AppUnavailable,
    AskRefused,
    BadArguments,
    DeadlineExceeded,
    ManifestError,
)
from llmos.abi.labels import join
from llmos.abi.limits import MAX_APP_BYTES
from llmos.abi.manifest import Manifest, Syscall
from llmos.abi.settings import VARIABLE
from llmos.abi.signature import Reply
from llmos.drivers.mcp.meta import CallMeta
from llmos.drivers.mcp.source import Stdio
from llmos.kernel.apphost.asker import Asker
from llmos.kernel.apphost.inside import Inside
from llmos.kernel.apphost.manifests import Confirmed, app_environment, read_ours
from llmos.kernel.apphost.values import AppProcess, CallContext, Entry, Ours, Outcome
from llmos.kernel.apphost.worker import Worker

MAX_WORKERS = 64  # processes of apps at once: an agent that spawns agents must not fill the machine
SHARED = "apps"  # what `ps` calls the process of all stateless apps of ours

T = TypeVar("T")


class AppHost:
    """All apps of a machine.

    Args:
        loop: a running event loop in a thread of its own, which lives as long as this does.
        entries: the apps; two of one name are a ManifestError.
        folder: where confirmed listings and known manifests are kept; only the owner may read it.
        cache: where our apps look for models; None for the user's cache.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        entries: Iterable[Entry],
        folder: Path,
        cache: Path | None = None,
    ) -> None:
        self._loop = loop
        self._environment = app_environment() | ({} if cache is None else {"LLMOS_CACHE": str(cache)})
        self._entries: dict[str, Entry] = {}
        for entry in entries:
            if entry.name in self._entries:
                raise ManifestError(f"there are two apps called {entry.name!r}", do="rename one of them")
            self._entries[entry.name] = entry
        self._folder = folder
        self._confirmed = Confirmed(folder / "foreign")
        self._ours: asyncio.Task[dict[str, Manifest | AppError]] | None = None
        self._workers: dict[tuple[str, int], Worker] = {}
        self._inside: dict[str, Inside] = {}
        self._asking: dict[str, Callable[[str, Mapping[str, Any] | None], Awaitable[str]]] = {}

    # --- what there is ---

    def manifests(self) -> Future[dict[str, Manifest | AppError]]:
        """Every app's manifest, or why it has none. A foreign server is started the first time only."""
        return self._do(self._manifests())

    def confirm(self, name: str, fingerprint: str) -> Future[Manifest]:
        """Take what a foreign server lists now as confirmed, if it is what the owner saw.

        Raises (in the future): ManifestChanged where it lists something else again.
        """
        return self._do(self._confirm(name, fingerprint))

    async def _manifests(self) -> dict[str, Manifest | AppError]:
        found = dict(await self._read_ours())
        for entry in self._entries.values():
            if not isinstance(entry.source, Ours):
                try:
                    found[entry.name] = await self._foreign(entry)
                except AppError as error:
                    found[entry.name] = error
        return {name: found[name] for name in self._entries}

    async def _read_ours(self) -> dict[str, Manifest | AppError]:
        if self._ours is None or (self._ours.done() and self._ours.exception() is not None):
            ours = [entry for entry in self._entries.values() if isinstance(entry.source, Ours)]
            self._ours = self._loop.create_task(read_ours(ours, self._folder))
        return await asyncio.shield(self._ours)

    async def _manifest(self, name: str) -> Manifest:
        entry = self._entries.get(name)
        if entry is None:
            raise BadArguments(
                f"there is no app {name!r}", do=f"there are {', '.join(self._entries) or 'none'}"
            )
        if not isinstance(entry.source, Ours):
            return await self._foreign(entry)
        found = (await self._read_ours())[name]
        if isinstance(found, AppError):
            raise found
        return found

    async def _foreign(self, entry: Entry) -> Manifest:
        manifest = self._confirmed.get(entry)
        if manifest is None:
            worker = await self._worker(entry, 0)
            manifest = self._confirmed.put(entry, await worker.tools())
            if entry.stateful:
                await self._release([(entry.name, 0)])  # it was only asked what it offers
        return manifest

    async def _confirm(self, name: str, fingerprint: str) -> Manifest:
        entry = self._entries[name]
        tools = await (await self._worker(entry, 0)).tools()
        Manifest.of_mcp(name, tools, entry.effects).confirmed(fingerprint)
        return self._confirmed.put(entry, tools)

    # --- calls ---

    def call(self, syscall: str, arguments: Mapping[str, Any], context: CallContext) -> Future[Outcome]:
        """One call. Cancelling the future cancels the call in the app."""
        return self._do(self._outcome(syscall, arguments, context, query=False))

    def took_effect(self, syscall: str, context: CallContext) -> Future[Outcome]:
        """What came of the call with `context.key`, of a `retry="query"` syscall: its result, or `absent`."""
        return self._do(self._outcome(syscall, {}, context, query=True))

    async def _outcome(
        self, name: str, arguments: Mapping[str, Any], context: CallContext, *, query: bool
    ) -> Outcome:
        began = time.monotonic()
        label, error, reply = context.label, None, None
        try:
            manifest = await self._manifest(name.partition(".")[0])
            syscall = _find(manifest, name)
            label = join([context.label, syscall.label])
            if query and syscall.retry != "query":
                raise BadArguments(
                    f"{name} cannot be asked about a key", why=f"its retry is {syscall.retry!r}"
                )
            reply = await self._run(manifest, syscall, arguments, context, query)
        except AppError as failed:
            error = failed
        except Exception as bug:  # of ours; the kernel goes on
            kind = type(bug).__name__
            error = AppFailed(f"{name} could not be called", why=f"{kind}: {bug}", type=kind)
        seconds = time.monotonic() - began
        if error is not None:
            return Outcome(syscall=name, label=label, error=error, seconds=seconds)
        if reply is None:
            return Outcome(syscall=name, label=label, absent=True, seconds=seconds)
        return Outcome(syscall=name, label=label, value=reply.value, parts=reply.parts, seconds=seconds)

    async def _run(
        self,
        manifest: Manifest,
        syscall: Syscall,
        arguments: Mapping[str, Any],
        context: CallContext,
        query: bool,
    ) -> Reply | None:
        entry = self._entries[manifest.app]
        meta = CallMeta.model_validate(
            {
                "id": uuid.uuid4().hex,
                "pid": context.pid,
                "key": context.key,
                "integrity": context.label.integrity.name.lower(),
                "readers": context.label.readers and sorted(context.label.readers),
                "expert": context.expert,
                "volume": str(context.volume) if context.volume else None,
                "secrets": {
                    name: value for name, value in context.secrets.items() if name in manifest.secrets
                },
                "query": query,
            }
        )
        inside = self._inside_of(entry, manifest)
        deadline = context.deadline or syscall.deadline
        worker = None
        if inside is None:
            worker = await self._worker(entry, context.pid, manifest)
            await worker.ready(_patience(deadline))  # a start is not the call's fault, so not on its clock
        try:
            async with asyncio.timeout(deadline) as clock:
                self._asking[meta.id] = Asker(context, clock)
                if inside is not None:
                    return await inside.call(syscall, arguments, meta, self._asked, context.on_progress)
                assert worker is not None
                return await worker.call(syscall.tool, arguments, meta, context.on_progress)
        except TimeoutError:
            raise DeadlineExceeded(
                f"{syscall.name} took longer than {deadline:g} s",
                why="it was cancelled",
                do="ask for less at once",
            ) from None
        finally:
            self._asking.pop(meta.id, None)

    async def _asked(self, call: str, prompt: str, schema: Mapping[str, Any] | None) -> str:
        asker = self._asking.get(call)
        if asker is None:
            raise AskRefused("a question without a call", why="its call has ended, or it never had one")
        return await asker(prompt, schema)

    # --- processes ---

    def _inside_of(self, entry: Entry, manifest: Manifest) -> Inside | None:
        if not entry.inside or not isinstance(entry.source, Ours):
            return None
        if entry.name not in self._inside:
            self._inside[entry.name] = Inside(entry.source.name)
        inside = self._inside[entry.name]
        return None if inside.stuck else inside

    async def _worker(self, entry: Entry, pid: int, manifest: Manifest | None = None) -> Worker:
        source, check = entry.source, None
        if isinstance(source, Ours):
            assert manifest is not None
            name, agent = (entry.name, pid) if manifest.stateful else (SHARED, 0)
            here = {entry.name: manifest} if manifest.stateful else await self._shared()
            names = [self._entries[app].source.name for app in here]  # type: ignore[union-attr]
            memory = max(self._memory(app, one) for app, one in here.items())
            program = (sys.executable, "-m", "llmos.apps.serve", *names)
            said = {e.name: dict(e.settings) for e in self._entries.values() if e.settings}
            environment = {**self._environment, VARIABLE: json.dumps(said)}
            source, ours = Stdio(program, environment, memory=memory), True
        else:
            name, agent, ours = entry.name, pid if entry.stateful else 0, False

            async def check(connection: Any) -> None:
                manifest = self._confirmed.get(entry)
                if manifest is not None:
                    tools = await connection.tools()
                    again, connection.changed = connection.changed, True  # until it is what was confirmed
                    Manifest.of_mcp(entry.name, tools, entry.effects).confirmed(manifest.fingerprint)
                    connection.changed = again

        worker = self._workers.get((name, agent))
        if worker is None:
            if len(self._workers) >= MAX_WORKERS:
                raise AppUnavailable(
                    f"{name} cannot be started",
                    why=f"{MAX_WORKERS} app processes run",
                    do="end some agents first",
                )
            worker = Worker(name, source, ours=ours, agent=agent, on_ask=self._asked, check=check)
            self._workers[name, agent] = worker
        return worker

    async def _shared(self) -> dict[str, Manifest]:
        """The apps that share one process."""
        found = (await self._read_ours()).items()
        return {name: one for name, one in found if isinstance(one, Manifest) and not one.stateful}

    def _memory(self, name: str, manifest: Manifest) -> int:
        """Bytes that a process of an app may hold: the owner's word, else its own, else what most may."""
        return self._entries[name].max_memory or manifest.max_memory or MAX_APP_BYTES

    def ps(self) -> list[AppProcess]:
        """The app processes there are, from any thread."""
        return [worker.look() for worker in list(self._workers.values())]

    def release(self, pid: int) -> Future[None]:
        """End what belonged to an agent."""
        return self._do(self._release([key for key in list(self._workers) if key[1] == pid and pid]))

    def close(self) -> Future[None]:
        """End everything; the loop stays its owner's."""
        return self._do(self._release(None))

    async def _release(self, keys: list[tuple[str, int]] | None) -> None:
        chosen = list(self._workers) if keys is None else keys
        workers = [self._workers.pop(key) for key in chosen if key in self._workers]
        await asyncio.gather(*(worker.stop() for worker in workers), return_exceptions=True)

    def _do(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)


def _find(manifest: Manifest, name: str) -> Syscall:
    try:
        return manifest.syscall(name)
    except KeyError:
        names = ", ".join(one.name for one in manifest.syscalls)
        raise BadArguments(f"there is no syscall {name!r}", do=f"{manifest.app} has {names}") from None


def _patience(deadline: float) -> float:
    """Seconds that a call waits for a crashed app's restart."""
    return min(deadline, 30.0)
