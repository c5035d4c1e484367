"""Servers over HTTP: the same calls, the same bounds."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmos.abi.errors import AppError, DeadlineExceeded
from llmos.drivers.mcp.client import Connection
from llmos.drivers.mcp.meta import CallMeta
from llmos.drivers.mcp.source import Http

SERVER = Path(__file__).with_name("web_server.py")


@pytest.fixture(params=["json", "events"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with subprocess.Popen(
        [sys.executable, str(SERVER), request.param], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}/mcp"
        server.kill()


def test_calls_over_http(url: str) -> None:
    async def run() -> None:
        connection = await Connection.open("web", Http(url, {"Authorization": "Bearer x"}))
        assert {tool["name"] for tool in await connection.tools()} == {"echo", "flood"}
        reply = await connection.call("echo", {"text": "hi"}, CallMeta(), deadline=10)
        assert reply is not None
        assert reply.value == {"result": "hi"}
        with pytest.raises(AppError) as caught:
            await connection.call("flood", {"megabytes": 40}, CallMeta(), deadline=20)
        assert not isinstance(caught.value, DeadlineExceeded)
        again = await connection.call("echo", {"text": "still there"}, CallMeta(), deadline=10)
        assert again is not None
        await connection.close()

    asyncio.run(run())
