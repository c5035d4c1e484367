"""What goes over the wire, and the client at its end.

What: sends a reply, whole or as server-sent events, to a client that may be slow, silent or gone.
Invariant: work for a client that has left is cancelled; one that takes nothing for too long is let go.
Interface: `Out(send, seconds)`: `.whole`, `.events`, `.comment`, `.end`; `while_there(work, receive)`;
    `read_body(request, …)`; `RequestIds`, a middleware.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llmos.abi.errors import Cancelled
from llmos.serve.refusal import Refusal

Json = dict[str, Any]
_STREAM = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


class Stalled(Exception):
    """The client takes nothing."""


class Out:
    """The reply to one request. `send` waits while the client is behind."""

    def __init__(self, send: Send, seconds: float) -> None:
        self._send, self._seconds = send, seconds
        self.streaming = False

    async def whole(self, body: Json) -> None:
        """The reply in one piece."""
        response = JSONResponse(body)
        await self._start(list(response.raw_headers))
        await self._body(bytes(response.body), more=False)

    async def events(self, bodies: Iterable[Json]) -> None:
        """Some events of a stream, in one go."""
        await self._text("".join(f"data: {json.dumps(body, ensure_ascii=False)}\n\n" for body in bodies))

    async def comment(self, text: str) -> None:
        """Something that clients pass over: the stream is alive."""
        await self._text(f": {text}\n\n")

    async def end(self, last: str = "") -> None:
        """The end of a stream."""
        await self._text(last)
        await self._body(b"", more=False)

    async def _text(self, text: str) -> None:
        if not self.streaming:
            self.streaming = True
            await self._start(_STREAM)
        if text:
            await self._body(text.encode(), more=True)

    async def _start(self, headers: list[tuple[bytes, bytes]]) -> None:
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _body(self, data: bytes, *, more: bool) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await self._send({"type": "http.response.body", "body": data, "more_body": more})
        except TimeoutError:
            raise Stalled from None


async def while_there(work: asyncio.Task[None], receive: Receive) -> None:
    """Wait for `work`; cancel it, and wait for that, when the client leaves.

    Raises:
        Cancelled: somebody else has cancelled it.
    """
    leaving = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait((work, leaving), return_when=asyncio.FIRST_COMPLETED)
        left = leaving.done()
    finally:
        leaving.cancel()
        if not work.done():
            work.cancel()
    with suppress(asyncio.CancelledError):
        await work
        return
    if not left:
        raise Cancelled("the server is going down")


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def read_body(request: Request, limit: int, seconds: float) -> bytes:
    """The body of a request: at most `limit` bytes, within `seconds`. One that is too large is read on as far as is
    bearable: a client that is still writing would not read why it is refused."""
    data, size = bytearray(), 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                size += len(part)
                if size <= limit:
                    data += part
                elif size > 4 * limit:
                    break
    except TimeoutError:
        raise Refusal(408, f"The body of your request did not arrive within {seconds:g} s.") from None
    if size > limit:
        raise Refusal(
            413, f"The body of your request is too large: at most {limit} bytes are read.",
            code="request_too_large", headers={"connection": "close"},
        )  # fmt: skip
    return bytes(data)


class RequestIds:
    """Gives every reply an id of its own, which clients show in their errors."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = f"req_{secrets.token_hex(12)}"
            await send(message)

        await self._app(scope, receive, named)
