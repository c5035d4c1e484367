"""The kernel's apps: those of the machine, in processes of their own, and the kernel's own two.

What: one name space of syscalls over the app host (`kernel.apphost`) and the system apps (`kernel.system`), and the
    values that a trap needs of a call.
Invariant: an app that cannot be described is left out and said in `broken`; it takes no other down. No secret is
    journalled or printed.
Interface: `Apps(kernel)`: `syscalls`, `broken`, `label_of`, `call`, `query`, `release`, `ps`, `close`.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmos.abi.app import syscalls_of
from llmos.abi.entries import entries
from llmos.abi.errors import AppError, AskRefused, ConfigError, LLMOSError
from llmos.abi.labels import STORE, USER, Label, join
from llmos.abi.limits import MAX_APP_BYTES
from llmos.abi.loading import GROUP
from llmos.abi.manifest import Manifest, Syscall
from llmos.kernel.apphost import AppHost, CallContext, Entry, Http, Ours, Stdio
from llmos.kernel.apphost.values import AppProcess, Outcome
from llmos.kernel.keeping import keep
from llmos.kernel.secret import resolve
from llmos.kernel.syscalls import error_told
from llmos.kernel.system import SYSTEM
from llmos.kernel.systemcall import SystemCall

if TYPE_CHECKING:
    from llmos.abi.config import AppConfig
    from llmos.kernel.journal.records import Intent
    from llmos.kernel.kernel import Kernel
    from llmos.kernel.process import Process


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call came to, as the journal keeps it: a value, or the type and message of an error."""

    value: Any
    error: dict[str, str] | None
    label: Label
    files: tuple[str, ...] = ()  # kept in the caller's working volume


class Apps:
    """Made by the kernel on first use, for it starts processes."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        config = kernel.config.apps
        named = [
            _entry(name, config.get(name), kernel.config.machine.state)
            for name in sorted(entries(GROUP).keys() | config.keys())  # windows are the same at every boot
        ]
        folder = kernel.config.machine.state / "apps"
        self._host = AppHost(kernel.loop.asyncio, named, folder, kernel.config.machine.cache)
        self._system = {Manifest.of(app).app: app(kernel) for app in SYSTEM}
        self.manifests: dict[str, Manifest] = {Manifest.of(app).app: Manifest.of(app) for app in SYSTEM}
        self.broken: dict[str, AppError] = {}
        for name, found in sorted(self._host.manifests().result().items()):
            if isinstance(found, Manifest):
                self.manifests[name] = found
            else:
                self.broken[name] = found
        self.syscalls: Mapping[str, Syscall] = {
            s.name: s for manifest in self.manifests.values() for s in manifest.syscalls
        }

    def label_of(self, syscall: str) -> Label:
        """The label of a syscall's description: who wrote what the model reads of it."""
        return STORE if self.manifests[syscall.partition(".")[0]].foreign else USER

    async def call(self, process: Process, syscall: Syscall, intent: Intent) -> Answer:
        """Make a call; whatever the app does, there is an answer."""
        name, _, method = syscall.name.partition(".")
        label = join(intent.labels.values())
        if name in self._system:
            return await self._system_call(
                name, method, SystemCall(process, intent.key, label), intent.arguments
            )
        context = self._context(process, name, intent.key, label)
        outcome = await asyncio.wrap_future(self._host.call(syscall.name, intent.arguments, context))
        return await self._answer(process, outcome, intent.call)

    async def query(self, process: Process, syscall: Syscall, key: str, number: int) -> Answer | None:
        """What came of call `number`, with that key, before a crash; None where it never took effect."""
        name, _, method = syscall.name.partition(".")
        if name in self._system:
            companion = dict(syscalls_of(type(self._system[name])))[method].query
            found = await self._system_call(name, companion, SystemCall(process, key, USER), {"key": key})
            return None if found.value is None and found.error is None else found
        context = self._context(process, name, key, USER)
        outcome = await asyncio.wrap_future(self._host.took_effect(syscall.name, context))
        return None if outcome.absent else await self._answer(process, outcome, number)

    def release(self, pid: int) -> None:
        """A process has ended: what its apps kept for it goes."""
        self._host.release(pid)

    def ps(self) -> list[AppProcess]:
        """The processes of apps."""
        return self._host.ps()

    def close(self) -> None:
        """End every app."""
        self._host.close().result()

    def _context(self, process: Process, app: str, key: str, label: Label) -> CallContext:
        return CallContext(
            pid=process.pid,
            key=key,
            label=label,
            expert=process.expert,
            volume=self._kernel.workspace(process.pid),
            secrets=self._kernel.secrets(self.manifests[app].secrets),
            on_ask=lambda prompt, schema: self._asked(process, label, prompt, schema),
        )

    async def _answer(self, process: Process, outcome: Outcome, number: int) -> Answer:
        """What an app's call came to; pictures and files go to the caller's working volume."""
        if outcome.error is not None:
            return Answer(None, error_told(outcome.error), outcome.label)
        if not outcome.parts:
            return Answer(outcome.value, None, outcome.label)
        folder = self._kernel.workspace(process.pid)
        text, files = await asyncio.to_thread(keep, outcome.parts, folder, number)
        return Answer(text, None, outcome.label, files)

    def _asked(
        self, process: Process, label: Label, prompt: str, schema: Mapping[str, Any] | None
    ) -> Future[str]:
        """An app puts a question to the model: a child of the caller answers, charged to it and under its labels."""
        return self._kernel.loop.start(self._consult(process, label, prompt, schema))

    async def _consult(
        self, process: Process, label: Label, prompt: str, schema: Mapping[str, Any] | None
    ) -> str:
        child = process.child(grants=(), mounted=False)  # the app says all that the answer is to stand on
        try:
            turn = await child.aask(prompt, label=label, schema=schema, detached=True)
            done = await turn.aresult()
            return done.answer
        except LLMOSError as e:
            raise AskRefused("the model did not answer", why=str(e)) from None
        finally:
            child.obey("KILL")
            self._kernel.reap(child)

    async def _system_call(
        self, name: str, method: str, call: SystemCall, arguments: Mapping[str, Any]
    ) -> Answer:
        app = self._system[name]
        try:
            value = await getattr(app, method)(**arguments, call=call)
            return Answer(value, None, join([call.label, *call.read]), tuple(call.files))
        except (LLMOSError, TimeoutError) as e:
            return Answer(None, error_told(e), call.label)


def _entry(name: str, config: AppConfig | None, state: Path) -> Entry:
    """An app as the host takes it: one of ours, or a foreign server that llmos.yaml names."""
    if config is None or (config.mcp is None and config.url is None):
        said = {} if config is None else config.settings
        memory = 0 if config is None else config.max_memory or 0
        if config is not None and config.app is not None:
            return Entry(
                name=name, source=Ours(config.app), inside=config.inside, settings=said, max_memory=memory
            )
        if name not in entries(GROUP):
            raise ConfigError(
                f"there is no app {name!r}", key=f"apps.{name}", why="it is not installed, and has no `mcp:`",
                do=f"installed are {', '.join(sorted(entries(GROUP))) or 'none'}",
            )  # fmt: skip
        inside = config is not None and config.inside
        return Entry(name=name, source=Ours(name), inside=inside, settings=said, max_memory=memory)
    source: Stdio | Http
    if config.url is not None:
        source = Http(config.url, resolve(config.headers, state))
    else:
        memory = config.max_memory or MAX_APP_BYTES
        source = Stdio(tuple(shlex.split(config.mcp or "")), resolve(config.env, state), memory=memory)
    return Entry(name=name, source=source, effects=dict(config.effects), stateful=config.stateful)
