"""Lines of JSON to and from a child: the stdio transport of MCP, for children that misbehave.

What: gives the `mcp` package its two streams of messages over a child's pipes.
Invariant: no line, however long or strange, costs more than `MAX_REPLY_BYTES` of memory, reaches a log or ends
    the connection. A reply that is too long or garbled becomes an error to the call that it belongs to.
Interface: `async with stdio(child) as (read, write)`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCMessage, jsonrpc_message_adapter
from mcp_types.jsonrpc import ErrorData

from llmos.drivers.mcp.meta import MAX_REPLY_BYTES
from llmos.drivers.mcp.process import Child

MAX_NOISE_BYTES = 64 << 20  # between two messages; who prints more never answers
TOO_LARGE = -32901  # our codes for replies that could not be taken; JSON-RPC leaves them to implementations
GARBLED = -32902

_CHUNK = 1 << 16
_WITH_END = re.compile(rb"[^\n]*\n|[^\n]+")
_END = 512  # bytes of each end of a line that is too long
_ID_FIRST = re.compile(rb'\s*\{(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*(\d+)')
_ID_LAST = re.compile(rb'"id"\s*:\s*(\d+)\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*$')
_START = b'{"jsonrpc"'

Read = MemoryObjectReceiveStream[SessionMessage | Exception]
Write = MemoryObjectSendStream[SessionMessage]


@asynccontextmanager
async def stdio(child: Child) -> AsyncIterator[tuple[Read, Write]]:
    """The two streams; leaving the block stops reading and writing, the child is its owner's to end."""
    inward, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write, outward = anyio.create_memory_object_stream[SessionMessage](0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_receive, child, inward)
        tasks.start_soon(_send, child, outward, inward)
        try:
            yield read, write
        finally:
            tasks.cancel_scope.cancel()
            for stream in (inward, read, write, outward):
                stream.close()


async def _send(child: Child, outward: MemoryObjectReceiveStream[SessionMessage], inward: Any) -> None:
    try:
        async for message in outward:
            line = message.message.model_dump_json(by_alias=True, exclude_unset=True)
            child.stdin.write(line.encode() + b"\n")
            await child.stdin.drain()
    except (ConnectionError, RuntimeError):  # its end of the pipe is gone: nobody will answer
        inward.close()


async def _receive(child: Child, inward: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
    noise = 0
    with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
        async with inward:
            async for line, size in _lines(child.stdout):
                message = _message(line, size)
                if message is not None:
                    noise = 0
                    await inward.send(SessionMessage(message))
                    continue
                noise += size
                if noise > MAX_NOISE_BYTES:
                    return


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[tuple[bytes, int]]:
    """Each line with its true size; of a line that is too long, its two ends."""
    line, size = bytearray(), 0
    while chunk := await stream.read(_CHUNK):
        for piece in _WITH_END.findall(chunk):
            line += piece
            size += len(piece)
            if size > MAX_REPLY_BYTES:
                line = line[:_END] + line[_END:][-_END:]
            if piece.endswith(b"\n"):
                yield bytes(line), size
                line, size = bytearray(), 0
    if size:
        yield bytes(line), size


def _message(line: bytes, size: int) -> JSONRPCMessage | None:
    """The message in a line, an error in its place where it cannot be taken, or None for noise."""
    start = line.find(_START)
    if size > MAX_REPLY_BYTES:
        return _refusal(line, TOO_LARGE, f"a reply of {size} bytes, more than {MAX_REPLY_BYTES}")
    for candidate in (line, line[start:] if start > 0 else b""):
        with suppress(ValueError):
            if candidate:
                return jsonrpc_message_adapter.validate_json(candidate, by_name=False)
    return _refusal(line, GARBLED, "a reply that is not JSON-RPC") if start >= 0 else None


def _refusal(line: bytes, code: int, text: str) -> JSONRPCMessage | None:
    found = _ID_FIRST.match(line) or _ID_LAST.search(line[-_END:])
    if found is None:
        return None
    return JSONRPCError(jsonrpc="2.0", id=int(found[1]), error=ErrorData(code=code, message=text))
