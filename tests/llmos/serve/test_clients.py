"""Clients that leave, dawdle, crowd, or are not who should come."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from llmos.abi.errors import ConfigError
from llmos.serve.gate import read_keys
from llmos.serve.server import Limits, Server, listen
from tests.llmos.serve.conftest import MODEL, Serve, Served
from tests.llmos.serve.test_errors import CHAT, post
from tests.llmos.serve.waiting import until

LONG = "word " * 1500
KEY = "a-key-that-is-long-enough"


def raw(served: Served, *, narrow: bool = False, **options: Any) -> socket.socket:
    """A connection on which a chat has been asked for and nothing is read yet; a narrow one has small buffers."""
    client = socket.socket()
    if narrow:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        served.server._socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDBUF, 4096
        )  # those it accepts inherit it
    client.settimeout(20)
    client.connect(("127.0.0.1", served.server.port))
    body = json.dumps(CHAT | options).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
    client.sendall(head.encode() + body)
    return client


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_its_sequence(serve: Serve, stream: bool) -> None:
    served = serve(LONG)
    served.gate.close()
    client = raw(served, stream=stream, max_tokens=7000, n=2)
    served.gate.let(20)
    until(lambda: served.gate.steps >= 20)
    assert [p.state for p in served.kernel.ps()] != [] and served.kernel.engine._sequences
    client.close()
    served.gate.open()
    until(served.idle)
    assert served.kernel.engine.counters.emitted < 3000  # of 14,000
    assert served.chat("next", max_tokens=4).choices[0].message.content == "word"


def test_breaking_off_an_async_stream(serve: Serve) -> None:
    served = serve(LONG)

    async def some() -> str:
        async with openai.AsyncOpenAI(base_url=served.server.url, api_key="-") as client:
            messages: Any = [{"role": "user", "content": "x"}]
            async with await client.chat.completions.create(
                model=MODEL, messages=messages, stream=True, max_tokens=7000
            ) as stream:
                async for chunk in stream:
                    if chunk.choices[0].delta.content:
                        return chunk.choices[0].delta.content
        return ""

    assert asyncio.run(some()) == "w"
    until(served.idle)
    assert served.kernel.engine.counters.emitted < 7000


def test_leaving_the_queue(serve: Serve) -> None:
    served = serve(limits=Limits(running=1, waiting=1))
    served.gate.close()
    first, second = raw(served), raw(served)
    until(lambda: _queued(served) == 1)
    second.close()
    until(lambda: _queued(served) == 0)
    third = raw(served)
    served.gate.open()
    for client in (first, third):
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        client.close()
    until(served.idle)


def _queued(served: Served) -> int:
    places = served.server._service._places
    return served.server._service._limits.waiting - places._seats


def test_more_than_bearable(serve: Serve) -> None:
    served = serve(limits=Limits(running=2, waiting=2))
    served.gate.close()
    inside = [raw(served) for _ in range(4)]
    until(lambda: _queued(served) == 2)
    with pytest.raises(openai.RateLimitError) as caught:
        served.chat()
    assert caught.value.code == "rate_limit_exceeded" and caught.value.response.headers["retry-after"] == "1"
    assert [m.id for m in served.client.models.list()]  # what costs nothing is answered
    served.gate.open()
    for client in inside:
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        client.close()
    assert served.chat().choices[0].message.content == "Hello there."


def test_waiting_has_an_end(serve: Serve) -> None:
    served = serve(limits=Limits(running=1, wait_seconds=0.1))
    served.gate.close()
    client = raw(served)
    until(lambda: len(served.kernel.ps()) == 1)
    with pytest.raises(openai.RateLimitError, match=r"within 0\.1 s"):
        served.chat()
    client.close()


def test_twenty_streams_together(serve: Serve) -> None:
    def script(window: str) -> str:
        name = window.rpartition("user\n")[2].partition("<")[0]
        return f"I am {name}. " * 20

    served = serve(script)
    begin = threading.Barrier(20)

    def talk(number: int) -> str:
        begin.wait(20)
        stream = served.chat(f"number {number}", stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(talk, range(20)))
    assert answers == [f"I am number {n}. " * 20 for n in range(20)]
    assert (
        served.kernel.engine.counters.steps < served.kernel.engine.counters.emitted / 2
    )  # they shared steps
    until(served.idle)


def test_a_slow_reader_holds_up_nobody_else(serve: Serve) -> None:
    served = serve(LONG)
    emitted = served.kernel.engine.counters
    with raw(served, narrow=True, stream=True, max_tokens=4000) as slow:
        until(lambda: emitted.emitted > 500)
        until(lambda: _stands(lambda: emitted.emitted))
        assert emitted.emitted < 3800  # its process waits for it; how much sockets hold differs
        for _ in range(3):
            assert served.chat("quick", max_tokens=9).choices[0].message.content == "word word"
        data = b""
        while b"[DONE]" not in data[-100:]:
            part = slow.recv(65536)
            assert part
            data += part
    chunks = [json.loads(line[6:]) for line in data.split(b"\n") if line.startswith(b"data: {")]
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == LONG[:4000]


def _stands(value: Callable[[], int]) -> bool:
    before = value()
    time.sleep(0.5)
    return value() == before


def test_a_client_that_takes_nothing_is_let_go(serve: Serve) -> None:
    served = serve(LONG, limits=Limits(stalled_seconds=0.3))
    with raw(served, narrow=True, stream=True, max_tokens=7000):
        until(lambda: served.kernel.engine.counters.emitted > 500)
        until(served.idle)
        assert served.kernel.engine.counters.emitted < 6800
        assert served.chat(max_tokens=4).choices[0].message.content == "word"


def test_a_quiet_stream_says_that_it_lives(serve: Serve) -> None:
    served = serve(limits=Limits(quiet_seconds=0.1))
    served.gate.close()
    client = raw(served, stream=True)
    data = b""
    while data.count(b": nothing yet\n\n") < 2:
        data += client.recv(4096)
    client.close()
    stream = served.chat(stream=True)
    served.gate.open()
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "Hello there."


def test_going_down(serve: Serve) -> None:
    served = serve(LONG)
    served.gate.close()
    served.gate.let(5)
    stream = served.chat(stream=True, max_tokens=7000)
    waiting = raw(served, max_tokens=7000)
    until(lambda: len(served.kernel.ps()) == 2)
    served.server.stop()
    served.gate.open()
    with pytest.raises(openai.APIError, match="going down"):
        list(stream)
    assert waiting.recv(100).startswith(b"HTTP/1.1 503")
    waiting.close()
    served.server.close()
    until(served.idle)
    with listen(port=served.server.port) as again, Server(served.kernel, again) as server:  # the port is free
        assert server.url == served.server.url
        assert served.chat(max_tokens=4).choices[0].message.content == "word"


# -- who may come ------------------------------------------------------------------------------------------------


def test_keys(serve: Serve) -> None:
    served = serve(keys=(KEY, KEY + "-2"))
    assert served.chat().choices[0].message.content == "Hello there."
    for key, code in ((KEY + "-2", None), ("wrong", "invalid_api_key"), (KEY[:-1], "invalid_api_key")):
        client = served.client.with_options(api_key=key)
        if code is None:
            assert client.models.list().data
            continue
        with pytest.raises(openai.AuthenticationError) as caught:
            client.models.list()
        assert caught.value.code == code and key not in str(caught.value)
    status, reply = post(served, b"{}")
    assert status == 401 and reply["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://example.org"},
        {"origin": "null"},
        {"host": "example.org:8080"},
        {"host": "127.0.0.1.example.org"},
        {"host": "[bad"},
        {"host": ""},
    ],
)
def test_web_pages_are_not_the_user(serve: Serve, headers: dict[str, str]) -> None:
    served = serve()
    status, reply = post(served, json.dumps(CHAT).encode(), **headers)
    assert status in (400, 403)
    assert served.kernel.engine.counters.steps == 0
    if status == 403:
        assert reply["error"]["code"] == "forbidden"


def test_this_machine_by_its_names(serve: Serve) -> None:
    served = serve()
    for headers in ({"host": "localhost:1"}, {"host": "[::1]:8080"}, {"origin": "http://localhost:3000"}):
        assert post(served, json.dumps(CHAT).encode(), **headers)[0] == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "no.such.host.invalid"])
def test_no_other_address_without_a_key(host: str) -> None:
    with pytest.raises(ConfigError, match=r"without a key|no address"):
        listen(host, 0)


def test_addresses(serve: Serve) -> None:
    served = serve()
    with pytest.raises(ConfigError, match="cannot listen"):
        listen(port=served.server.port)
    with listen("0.0.0.0", 0, keyed=True) as open_, pytest.raises(ConfigError, match="without a key"):
        Server(served.kernel, open_)
    with listen("localhost", 0) as local, pytest.raises(ConfigError, match="shorter than 16"):
        Server(served.kernel, local, keys=["short"])


def test_key_files(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    with pytest.raises(ConfigError, match="cannot be read"):
        read_keys(file)
    file.touch(0o600)
    with pytest.raises(ConfigError, match="holds no key"):
        read_keys(file)
    file.write_text(f"{KEY}\n\n  {KEY}-2 \n")
    assert read_keys(file) == [KEY, f"{KEY}-2"]
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="others may read"):
        read_keys(file)


def test_two_requests_on_one_connection(serve: Serve) -> None:
    served = serve()
    connection = http.client.HTTPConnection("127.0.0.1", served.server.port, timeout=20)
    for _ in range(2):
        connection.request("POST", "/v1/chat/completions", json.dumps(CHAT))
        reply = connection.getresponse()
        assert reply.status == 200 and json.loads(reply.read())["object"] == "chat.completion"
    connection.close()
