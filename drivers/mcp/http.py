"""MCP over streamable HTTP, bounded.

What: the official package's HTTP transport over a client of ours that reads no reply without end.
Invariant: no reply costs more than `MAX_REPLY_BYTES`; only http and https are spoken; redirects stay on the
    server's own origin (the package sees to that); headers, which may hold secrets, are in no log.
Interface: `async with streams_of(url, headers) as (read, write)`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from mcp.client.streamable_http import streamable_http_client

from llmos.abi.errors import AppUnavailable
from llmos.drivers.mcp.meta import MAX_REPLY_BYTES

CONNECT_SECONDS = 10.0  # until a server accepts; how long it may be silent after that is the call's deadline


@asynccontextmanager
async def streams_of(url: str, headers: Mapping[str, str]) -> AsyncIterator[tuple[Any, Any]]:
    """The two streams of messages; AppUnavailable for a URL that is none."""
    if not url.startswith(("http://", "https://")):
        raise AppUnavailable(f"{url!r} is no address of a server", do="give an http or https URL")
    timeout = httpx2.Timeout(None, connect=CONNECT_SECONDS)
    async with (
        httpx2.AsyncClient(headers=dict(headers), timeout=timeout, transport=_Bounded()) as client,
        streamable_http_client(url, http_client=client, max_sse_event_size=MAX_REPLY_BYTES) as streams,
    ):
        yield streams


class _Bounded(httpx2.AsyncHTTPTransport):
    """Counts what a plain reply holds; streams of events are bounded event by event, by the package."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            response.stream = _Counted(response.stream)
        return response


class _Counted(httpx2.AsyncByteStream):
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for part in self._stream:
            size += len(part)
            if size > MAX_REPLY_BYTES:
                raise httpx2.StreamError(f"more than {MAX_REPLY_BYTES} bytes")  # ends this call alone
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()
