"""Apps behind the MCP protocol, by the official `mcp` package.

What: lists the apps' syscalls as tools and runs their calls: sync methods in threads, async ones on the loop.
Invariant: every `tools/call` is answered: by a checked result, or by an error with its type, without a
    traceback. A cancelled call is cancelled in the app; which ones still run can be asked.
Interface: `serve(names)` blocks until stdin ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

from llmos.abi.app import DECLARED, App, syscalls_of
from llmos.abi.errors import AppError, AppUnavailable, BadArguments, LLMOSError
from llmos.abi.loading import load
from llmos.abi.manifest import Manifest, Syscall, check_names
from llmos.abi.signature import Reply, Signature
from llmos.apps.serve.conversation import Conversation, Conversations
from llmos.apps.serve.wire import error_result, meta_of, result_of, tool_of
from llmos.drivers.mcp.call import RunningCall
from llmos.drivers.mcp.meta import RUNNING, CallMeta

Context = ServerRequestContext[Any, Any]


@dataclass(slots=True)
class _Served:
    """One app in this process; its instance is made by its first call."""

    kind: type[App]
    manifest: Manifest
    signatures: dict[str, tuple[str, Signature]]  # full name -> method, signature
    instance: App | None = None

    @classmethod
    def of(cls, kind: type[App]) -> _Served:
        manifest = Manifest.of(kind)
        found = {}
        for method, _ in syscalls_of(kind):
            signature = Signature.read(kind.app_name, getattr(kind, method))
            found[signature.name] = (method, signature)
        return cls(kind, manifest, found)

    def companion(self, syscall: Syscall) -> tuple[str, Signature]:
        """The method that knows what came of a key."""
        name = getattr(getattr(self.kind, self.signatures[syscall.name][0]), DECLARED).query
        if not name:
            raise BadArguments(
                f"{syscall.name} cannot be asked about a key", why=f"its retry is {syscall.retry!r}"
            )
        return name, Signature.read(self.manifest.app, getattr(self.kind, name))

    def method(self, name: str) -> Callable[..., Any]:
        if self.instance is None:
            try:
                self.instance = self.kind()
            except (Exception, SystemExit) as error:
                why = f"{type(error).__name__}: {error}"
                raise AppUnavailable(f"{self.manifest.app} cannot start", why=why) from error
        return cast(Callable[..., Any], getattr(self.instance, name))


@dataclass(slots=True)
class _Apps:
    """What this process serves: the apps that could be loaded, and why the others could not."""

    served: dict[str, _Served]
    broken: dict[str, LLMOSError] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)
    conversations: Conversations = field(default_factory=Conversations)

    def find(self, name: str) -> tuple[_Served, Syscall]:
        for served in self.served.values():
            if name in served.signatures:
                return served, served.manifest.syscall(name)
        if len(self.broken) == 1 or name.partition(".")[0] in self.broken:
            error = self.broken.get(name.partition(".")[0]) or next(iter(self.broken.values()))
            raise AppUnavailable(error.what, why=error.why, do=error.do)
        raise BadArguments(f"there is no syscall {name!r}", do="list them first")

    async def list_tools(self, _: Context, __: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        tools = [tool_of(call) for served in self.served.values() for call in served.manifest.syscalls]
        return types.ListToolsResult(tools=tools)

    async def call_tool(
        self, context: Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult | types.InputRequiredResult:
        async def work(conversation: Conversation) -> types.CallToolResult:
            try:
                served, syscall = self.find(params.name)
                reply = await self._run(
                    conversation, served, syscall, params.arguments or {}, meta_of(params)
                )
                return result_of(syscall, reply)
            except AppError as error:
                return error_result(error)

        try:
            return await self.conversations.follow(context, params, work)
        except AppError as error:
            return error_result(error)

    async def list_running(self, _: Context, __: types.RequestParams) -> dict[str, Any]:
        return {"ids": sorted(self.running)}

    async def _run(
        self,
        conversation: Conversation,
        served: _Served,
        syscall: Syscall,
        arguments: Mapping[str, Any],
        meta: CallMeta,
    ) -> Reply | None:
        name, signature = served.signatures[syscall.name]
        if meta.query:
            name, signature = served.companion(syscall)
            arguments = {"key": meta.key}
        method = served.method(name)

        async def progress(done: float, total: float | None, message: str) -> None:
            await conversation.context.session.report_progress(done, total, message or None)

        async def ask(prompt: str, schema: Mapping[str, Any] | None) -> str:
            return await conversation.ask(meta, prompt, schema)

        call = RunningCall(meta, served.kind.secrets, progress, ask)
        self.running.add(meta.id)
        try:
            reply = await signature.invoke(
                method, arguments, call, ended=lambda: self.running.discard(meta.id)
            )
            await call.flush()
            return None if meta.query and reply == Reply() else reply
        finally:
            call.cancelled = True


def serve(names: Sequence[str]) -> None:
    """Serve until stdin ends. One app that cannot be loaded is an error; among several it fails alone."""
    apps = _Apps({})
    for name in names:
        try:
            served = _Served.of(load(name))
            check_names([one.manifest for one in (*apps.served.values(), served)])
            apps.served[served.manifest.app] = served
        except LLMOSError as error:
            if len(names) == 1:
                raise
            apps.broken[name] = error
    server: Server[Any] = Server(
        "llmos " + " ".join(apps.served),
        version="1",
        instructions="\n\n".join(filter(None, (one.manifest.doc for one in apps.served.values()))),
        on_list_tools=apps.list_tools,
        on_call_tool=apps.call_tool,
    )
    server.add_request_handler(RUNNING, types.RequestParams, apps.list_running)

    async def run() -> None:
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())
        for served in apps.served.values():
            if served.instance is not None:
                served.instance.close()

    asyncio.run(run())
