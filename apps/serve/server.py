"""Apps behind the MCP protocol, by the official `mcp` package.

What: lists the apps' syscalls as tools and runs their calls: sync methods in threads, async ones on the loop.
Invariant: every `tools/call` is answered: by a checked result, or by an error with its type, without a
    traceback. A cancelled call is cancelled in the app; which ones still run can be asked.
Interface: `serve(names)` blocks until stdin ends.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError, NoBackChannelError
from pydantic import ValidationError

from llmos.abi.app import DECLARED, App, Part, Text, syscalls_of
from llmos.abi.errors import AppError, AppUnavailable, AskRefused, BadArguments, BadResult, LLMOSError
from llmos.abi.loading import load
from llmos.abi.manifest import Manifest, Syscall, check_names
from llmos.abi.signature import Reply, Signature
from llmos.drivers.mcp.call import RunningCall
from llmos.drivers.mcp.meta import (
    ABSENT,
    CALL,
    ERROR,
    MAX_REPLY_BYTES,
    RUNNING,
    SCHEMA,
    CallMeta,
    error_to_wire,
)

ANSWER_TOKENS = 512  # that a question to the model asks for at most; the kernel has its own limits

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

    def find(self, name: str) -> tuple[_Served, Syscall]:
        for served in self.served.values():
            if name in served.signatures:
                return served, served.manifest.syscall(name)
        if len(self.broken) == 1 or name.partition(".")[0] in self.broken:
            error = self.broken.get(name.partition(".")[0]) or next(iter(self.broken.values()))
            raise AppUnavailable(error.what, why=error.why, do=error.do)
        raise BadArguments(f"there is no syscall {name!r}", do="list them first")

    async def list_tools(self, _: Context, __: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        tools = [_tool(call) for served in self.served.values() for call in served.manifest.syscalls]
        return types.ListToolsResult(tools=tools)

    async def call_tool(self, context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        try:
            served, syscall = self.find(params.name)
            meta = _meta(params)
            reply = await self._run(context, served, syscall, params.arguments or {}, meta)
            return _result(syscall, reply)
        except AppError as error:
            wire = cast(Any, {ERROR: error_to_wire(error)})
            content: list[types.ContentBlock] = [types.TextContent(type="text", text=str(error))]
            return types.CallToolResult(content=content, is_error=True, _meta=wire)

    async def list_running(self, _: Context, __: types.RequestParams) -> dict[str, Any]:
        return {"ids": sorted(self.running)}

    async def _run(
        self,
        context: Context,
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
            await context.session.report_progress(done, total, message or None)

        async def ask(prompt: str, schema: Mapping[str, Any] | None) -> str:
            return await _ask(context, meta, prompt, schema)

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


async def _ask(context: Context, meta: CallMeta, prompt: str, schema: Mapping[str, Any] | None) -> str:
    content = types.TextContent(type="text", text=prompt)
    wire = {CALL: meta.id} | ({SCHEMA: schema} if schema else {})
    request = types.CreateMessageRequest(
        params=types.CreateMessageRequestParams(
            messages=[types.SamplingMessage(role="user", content=content)],
            max_tokens=ANSWER_TOKENS,
            _meta=cast(types.RequestParamsMeta, wire),
        )
    )
    try:
        answer = await context.session.send_request(request, types.CreateMessageResult)
    except NoBackChannelError:
        raise AskRefused("this client takes no questions", why="its connection goes one way") from None
    except MCPError as error:
        raise AskRefused(f"the question was not answered: {error.message}") from None
    except ValidationError:
        raise AskRefused("the question was answered against the protocol") from None
    if not isinstance(answer.content, types.TextContent):
        raise AskRefused("the question was answered by something else than text")
    return answer.content.text


def _meta(params: types.CallToolRequestParams) -> CallMeta:
    try:
        return CallMeta.model_validate((params.meta or {}).get(CALL) or {})
    except ValidationError:
        raise BadArguments(f"`_meta` has a {CALL!r} that is none") from None


def _tool(call: Syscall) -> types.Tool:
    result = call.result
    if result is not None:
        definitions = {"$defs": result["$defs"]} if "$defs" in result else {}
        inner = {key: value for key, value in result.items() if key != "$defs"}
        result = {"type": "object", "properties": {"result": inner}, "required": ["result"], **definitions}
    return types.Tool(
        name=call.name,
        description=call.description,
        input_schema=call.parameters,
        output_schema=result,
        annotations=types.ToolAnnotations(
            read_only_hint=call.effect in ("none", "read", "fetch"),
            destructive_hint=call.effect not in ("none", "read", "fetch", "send"),
            idempotent_hint=call.retry in ("safe", "keyed"),
            open_world_hint=call.effect in ("fetch", "send", "pay"),
        ),
    )


def _result(syscall: Syscall, reply: Reply | None) -> types.CallToolResult:
    if reply is None:
        return types.CallToolResult(content=[], _meta=cast(Any, {ABSENT: True}))
    if syscall.result is None:
        content = [_content(part) for part in reply.parts]
        structured = None
    else:
        text = reply.value if isinstance(reply.value, str) else json.dumps(reply.value, ensure_ascii=False)
        content = [types.TextContent(type="text", text=text)]
        structured = {"result": reply.value}
    result = types.CallToolResult(content=content, structured_content=structured)
    size = len(result.model_dump_json(by_alias=True, exclude_none=True))
    if size > MAX_REPLY_BYTES:
        raise BadResult(
            f"{syscall.name} returned {size} bytes",
            why=f"at most {MAX_REPLY_BYTES} are taken",
            do="ask for less",
        )
    return result


def _content(part: Part) -> types.ContentBlock:
    if isinstance(part, Text):
        return types.TextContent(type="text", text=part.text)
    data = base64.b64encode(part.data).decode()
    name = getattr(part, "name", "")
    if not name:
        return types.ImageContent(type="image", data=data, mime_type=part.mime)
    held = types.BlobResourceContents(uri=f"file:///{name}", blob=data, mime_type=part.mime)
    return types.EmbeddedResource(type="resource", resource=held)


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
