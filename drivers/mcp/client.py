"""One connection to one MCP server.

What: speaks the protocol by the official `mcp` package over stdio or streamable HTTP, on the running loop.
Invariant: every call ends: with a `Reply`, or with an AppError, by its deadline. Nothing that a server sends
    (noise, floods, lies about its own results) raises anything else here. A server may only ask the model back
    where `on_ask` is given. What a server claims of its results' schema is not evaluated: its patterns would run
    in the kernel.
Interface: `await Connection.open(source, ...)` with `Stdio` or `Http`; `tools`, `call`, `running`, `close`, `kill`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, cast

import mcp_types as types
from mcp.client.session import ClientRequestContext, ClientSession
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel, TypeAdapter

from llmos.abi.errors import AppError, AppUnavailable, BadResult, DeadlineExceeded
from llmos.abi.signature import Reply
from llmos.drivers.mcp import stdio
from llmos.drivers.mcp.meta import ABSENT, CALL, ERROR, RUNNING, SCHEMA, CallMeta, error_from_wire
from llmos.drivers.mcp.process import Child
from llmos.drivers.mcp.reply import reply_of, text_of
from llmos.drivers.mcp.source import Http, Stdio

START_SECONDS = 30.0  # until a server has said hello: the first start of a packaged one may unpack itself
STOP_SECONDS = 1.0  # that a server may take to leave once its stdin is closed
MAX_PAGES = 32  # of a listing of tools

OnProgress = Callable[[float, float | None, str], None]
OnAsk = Callable[[str, str, Mapping[str, Any] | None], Awaitable[str]]
"""(id of the asking call, prompt, schema of the answer or None) -> the answer; raises AskRefused."""


for _name in ("mcp", "client"):  # its loggers; what servers send is not for the user's terminal
    logging.getLogger(_name).addHandler(logging.NullHandler())


class Connection:
    """An open connection; `changed` is True once the server said that its tools are others now."""

    def __init__(self, name: str, source: Stdio | Http, ours: bool, on_ask: OnAsk | None) -> None:
        self.name, self.source, self.ours = name, source, ours
        self.changed = False
        self.ending = ""  # why it is being killed, for the other calls in it
        self.child: Child | None = None
        self._on_ask = on_ask
        self._session: ClientSession | None = None
        self._over = False  # it has failed somebody
        self._stop = asyncio.Event()
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        name: str,
        source: Stdio | Http,
        *,
        ours: bool = False,
        on_ask: OnAsk | None = None,
        seconds: float = START_SECONDS,
    ) -> Connection:
        """Start or reach the server and say hello; AppUnavailable where that fails.

        Args:
            name: what messages call it.
            source: the program, or the URL.
            ours: one of our apps: it is told secrets and volume.
            on_ask: answers its questions to the model; without it they are refused.
            seconds: until it must have answered.
        """
        self = cls(name, source, ours, on_ask)
        self._task = asyncio.create_task(self._run(), name=f"mcp {name}")
        try:
            await asyncio.wait_for(asyncio.shield(self._ready), seconds)
        except TimeoutError:
            await self.kill()
            raise self._unavailable("it did not answer", f"no hello within {seconds:g} s") from None
        except BaseException:
            await self.kill()
            raise
        return self

    async def _run(self) -> None:
        """Own the transport and the session: their scopes have to be left where they were entered."""
        try:
            async with AsyncExitStack() as stack:
                read, write = await stack.enter_async_context(self._streams())
                session = ClientSession(
                    read,
                    write,
                    sampling_callback=self._sampled if self._on_ask else None,
                    message_handler=self._heard,
                    client_info=types.Implementation(name="llmos", version="1"),
                )
                await stack.enter_async_context(session)
                try:
                    await session.initialize()
                except MCPError as error:
                    if error.code != types.UNSUPPORTED_PROTOCOL_VERSION:
                        raise
                    await session.discover()  # a server that knows only the newer protocol
                self._session = session
                self._ready.set_result(None)
                await self._stop.wait()
        except Exception as error:
            if not self._ready.done():
                self._ready.set_exception(self._unavailable("it could not be reached", _plain(error)))
        finally:
            self._session = None
            if not self._ready.done():
                self._ready.set_exception(self._unavailable("it could not be reached", "it was stopped"))

    @asynccontextmanager
    async def _streams(self) -> AsyncIterator[tuple[Any, Any]]:
        if isinstance(self.source, Stdio):
            source = self.source
            self.child = await Child.start(source.program, source.env, source.folder, source.memory)
            try:
                async with stdio.stdio(self.child) as streams:
                    yield streams
            finally:
                await self.child.kill(STOP_SECONDS)
        else:
            from llmos.drivers.mcp.http import streams_of

            async with streams_of(self.source.url, self.source.headers) as streams:
                yield streams

    def _unavailable(self, what: str, why: str) -> AppUnavailable:
        self._over = True
        words = self.child.words() if self.child else ""
        said = f"{why}; its last words: {words[-500:]}" if words else why
        return AppUnavailable(f"{self.name}: {what}", why=said)

    @property
    def alive(self) -> bool:
        """Whether calls can be made."""
        gone = self.child is not None and self.child.code is not None
        return self._session is not None and not gone and not self._over

    async def tools(self, seconds: float = START_SECONDS) -> list[dict[str, Any]]:
        """Everything that the server lists, as it lists it; clears `changed`."""
        self.changed = False
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            params = types.PaginatedRequestParams(cursor=cursor) if cursor else None
            request = types.ListToolsRequest(params=params)
            page = cast(types.ListToolsResult, await self._send(request, types.ListToolsResult, seconds))
            found += [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in page.tools]
            cursor = page.next_cursor
            if not cursor:
                return found
        raise BadResult(f"{self.name} lists its tools on more than {MAX_PAGES} pages")

    async def call(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        meta: CallMeta,
        *,
        deadline: float | None,
        on_progress: OnProgress | None = None,
    ) -> Reply | None:
        """One call; None where `meta.query` asked for a key that never took effect. No news after the result.

        Raises:
            DeadlineExceeded: no result within `deadline` seconds (None: the caller sees to that); the server has
                been told to stop.
            AppUnavailable: the connection ended.
            BadResult: a result that is too large, garbled, or not what the protocol allows.
            AppError: what the app itself reports.
            asyncio.CancelledError: the caller was cancelled; the server has been told to stop.
        """

        over = False  # the package delivers news in tasks of their own, some of them after the result

        async def progress(done: float, total: float | None, message: str | None) -> None:
            if on_progress is not None and not over:
                on_progress(done, total, message or "")

        request = types.CallToolRequest(
            params=types.CallToolRequestParams(
                name=tool,
                arguments=dict(arguments),
                _meta=cast(types.RequestParamsMeta, {CALL: meta.to_wire(ours=self.ours)}),
            )
        )
        try:
            answer = await self._send(request, _RESULT, deadline, progress)
        finally:
            over = True
        result = cast(types.CallToolResult | types.InputRequiredResult, answer)
        if isinstance(result, types.InputRequiredResult):
            raise BadResult(
                f"{self.name} asks for input in the middle of a call", why="nobody is there to give it"
            )
        wire = result.meta or {}
        if result.is_error:
            raise error_from_wire(wire.get(ERROR), text_of(result))
        if meta.query and wire.get(ABSENT):
            return None
        return reply_of(self.name, result, ours=self.ours)

    async def running(self, seconds: float) -> set[str] | None:
        """The ids of calls that an app of ours is still at; None where it does not answer in time."""
        try:
            if not self.ours:
                await self._send(types.PingRequest(), types.EmptyResult, seconds)
                return set()
            answer = await self._send(_RunningRequest(), _Running, seconds)
        except AppError:
            return None
        return set(cast(_Running, answer).ids)

    async def _send(self, request: Any, answer: Any, seconds: float | None, progress: Any = None) -> Any:
        session = self._session
        if session is None or not self.alive:
            raise self._unavailable("it is gone", "its process ended")
        try:
            async with asyncio.timeout(seconds):
                return await session.send_request(request, answer, progress_callback=progress)
        except TimeoutError:
            raise DeadlineExceeded(f"{self.name} did not answer within {seconds:g} s") from None
        except MCPError as error:
            raise self._refused(error) from None
        except AppError:
            raise
        except Exception as error:  # whatever the package makes of a malformed answer
            raise BadResult(f"{self.name} answered against the protocol", why=_plain(error)) from None

    def _refused(self, error: MCPError) -> AppError:
        if error.code in (stdio.TOO_LARGE, stdio.GARBLED):
            return BadResult(f"{self.name} sent {error.message}", do="ask for less at once")
        if error.code == types.PARSE_ERROR:
            why = error.message.splitlines()[0]
            return BadResult(
                f"{self.name} sent a reply that cannot be taken", why=why, do="ask for less at once"
            )
        if (error.code, error.message) == (
            types.CONNECTION_CLOSED,
            "Connection closed",
        ):  # a peer has no such words
            return self._unavailable("it ended during the call", self.ending or "its connection closed")
        return error_from_wire(None, f"{self.name}: {error.message}")

    async def _sampled(self, context: ClientRequestContext, params: types.CreateMessageRequestParams) -> Any:
        wire = cast(Mapping[str, Any], params.meta or {})
        call = str(wire.get(CALL) or "")
        prompt = "\n".join(
            content.text
            for message in params.messages
            for content in message.content_as_list
            if isinstance(content, types.TextContent)
        )
        assert self._on_ask is not None
        try:
            answer = await self._on_ask(call, prompt, wire.get(SCHEMA))
        except AppError as error:
            return types.ErrorData(code=types.INVALID_REQUEST, message=str(error))
        content = types.TextContent(type="text", text=answer)
        return types.CreateMessageResult(role="assistant", content=content, model="llmos")

    async def _heard(self, message: object) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self.changed = True

    async def close(self) -> None:
        """Let the server leave in good order, then make sure that it has."""
        self._stop.set()
        if self._task is not None:
            await asyncio.wait([self._task])

    async def kill(self) -> None:
        """End it now, with everything that it started."""
        if self.child is not None:
            await self.child.kill()
        self._stop.set()
        if self._task is not None:
            if self.child is None:  # still on its way to a server, or over HTTP
                self._task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.wait([self._task], timeout=STOP_SECONDS)
            self._task.cancel()
            await asyncio.wait([self._task])


class _RunningRequest(types.Request[types.RequestParams | None, str]):
    """Our own request, to our own apps."""

    method: str = RUNNING
    params: types.RequestParams | None = None


class _Running(BaseModel):
    ids: list[str]


_RESULT: TypeAdapter[Any] = TypeAdapter(types.CallToolResult | types.InputRequiredResult)


def _plain(error: BaseException) -> str:
    """An error's first line; of a group, its first member's."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, AppError):
        return str(error)
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
