"""Remote models: what a sound endpoint gives, and that a bad one costs an error and nothing else."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from llmos.abi.app import Image
from llmos.abi.config import Config, RemoteConfig
from llmos.abi.errors import ConfigError
from llmos.drivers.remote import (
    Chat,
    Ended,
    Endpoint,
    Remote,
    RemoteError,
    RemoteGarbled,
    RemoteRefused,
    RemoteStalled,
    RemoteUnavailable,
    Said,
    Used,
    Wrote,
)
from llmos.drivers.remote.chat import Event
from llmos.drivers.web.addresses import Gate
from llmos.drivers.web.errors import AddressRefused
from llmos.drivers.yamlfile import check
from tests.drivers.remote.hostile import Answer, Request, Served, serving

KEY = "sk-very-secret"
HELLO = [{"role": "user", "content": "hello"}]
TOOL = {
    "type": "function",
    "function": {"name": "add", "description": "Add.", "parameters": {"type": "object", "properties": {}}},
}


def remote(server: Served, **options: Any) -> Remote:
    given = {"stall": 20.0, "seconds": 60.0, "retries": 0, **options}
    return Remote(Endpoint(name="far", url=server.url, model="m", key=KEY, **given))


def talk(at: Remote, **options: Any) -> list[Event]:
    async def all_of_it() -> list[Event]:
        return [event async for event in at.talk(Chat(messages=HELLO, **options))]

    return asyncio.run(all_of_it())


# -- what a sound endpoint gives ---------------------------------------------------------------------------------------


def test_words_come_as_they_are_said() -> None:
    with serving(lambda request: request.say("Good ", "morning")) as server:
        events = talk(remote(server), max_tokens=9, temperature=0.5, seed=3, stop=["x"])
    assert events == [Said("Good "), Said("morning"), Used(7, 2), Ended("stop")]
    (seen,) = server.seen
    assert seen.path == "/v1/chat/completions" and seen.headers["authorization"] == f"Bearer {KEY}"
    asked = {k: seen.json[k] for k in ("model", "messages", "max_tokens", "temperature", "seed", "stop")}
    assert asked == {
        "model": "m", "messages": HELLO, "max_tokens": 9, "temperature": 0.5, "seed": 3, "stop": ["x"]
    }  # fmt: skip


def test_no_word_waits_for_the_next() -> None:
    heard = threading.Event()
    in_time: list[bool] = []

    def answer(request: Request) -> None:
        request.begin()
        request.event(delta(content="Good"))
        in_time.append(heard.wait(30))
        request.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        request.event("[DONE]")

    async def listen() -> None:
        async for event in remote(server, stall=60.0).talk(Chat(messages=HELLO)):
            if isinstance(event, Said):
                heard.set()

    with serving(answer) as server:
        asyncio.run(listen())
    assert in_time == [True]


def test_an_endpoint_that_does_not_stream_is_understood() -> None:
    reply = {"choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}], "more": 1}
    with serving(lambda request: request.send(reply)) as server:
        assert talk(remote(server)) == [Said("Hi"), Ended("stop")]


def test_calls_are_put_together_from_fragments() -> None:
    def answer(request: Request) -> None:
        request.begin()
        pieces = [
            (0, {"id": "a", "function": {"name": "add", "arguments": '{"x"'}}),
            (1, {"id": "b", "function": {"name": "add", "arguments": ""}}),
            (0, {"function": {"arguments": ": 1}"}}),
        ]
        for index, piece in pieces:
            request.event({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": index, **piece}]}}]})
        request.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
        request.event("[DONE]")

    with serving(answer) as server:
        events = talk(remote(server), tools=[TOOL], choice="add")
        assert events == [Wrote("a", "add", {"x": 1}), Wrote("b", "add", {}), Ended("calls")]
        assert server.seen[0].json["tool_choice"] == {"type": "function", "function": {"name": "add"}}


def test_a_call_that_was_cut_off_is_none() -> None:
    def answer(request: Request) -> None:
        fragment = {"index": 0, "id": "a", "function": {"name": "add", "arguments": '{"x'}}
        request.begin()
        request.event({"choices": [{"index": 0, "delta": {"tool_calls": [fragment]}}]})
        request.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]})
        request.event("[DONE]")

    with serving(answer) as server:
        assert talk(remote(server), tools=[TOOL]) == [Ended("length")]


def test_pictures_are_seen_by_value() -> None:
    with serving(lambda request: request.say("A cat.")) as server:
        assert asyncio.run(remote(server).look(Image(b"png", "image/png"), "What is it?")) == "A cat."
    text, picture = server.seen[0].json["messages"][0]["content"]
    assert text == {"type": "text", "text": "What is it?"}
    assert picture["image_url"]["url"] == "data:image/png;base64," + base64.b64encode(b"png").decode()


def test_pictures_speech_and_vectors() -> None:
    def answer(request: Request) -> None:
        match request.path.removeprefix("/v1/"):
            case "images/generations":
                assert request.json["prompt"] == "a cat" and request.json["size"] == "64x64"
                request.send({"data": [{"b64_json": base64.b64encode(b"cat").decode()}]})
            case "audio/speech":
                request.send(json.dumps(request.json["input"]).encode(), mime="audio/wav")
            case "audio/transcriptions":
                assert b"RIFFsound" in request.body and b'name="language"\r\n\r\nen' in request.body
                request.send(
                    {"text": "hi", "language": "en", "segments": [{"start": 0.0, "end": 1, "text": "hi"}]}
                )
            case "embeddings":
                data = [
                    {"index": i, "embedding": [float(i), 1.0]} for i, _ in enumerate(request.json["input"])
                ]
                request.send({"data": data[::-1]})

    with serving(answer) as server:
        at = remote(server)
        assert asyncio.run(at.draw("a cat", size="64x64")) == b"cat"
        assert asyncio.run(at.say("hello")) == b'"hello"'
        heard = asyncio.run(at.hear(b"RIFFsound", language="en"))
        assert (heard.text, heard.language, heard.segments and heard.segments[0].end) == ("hi", "en", 1.0)
        assert asyncio.run(at.embed(["a", "b", "c"])) == [[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]]


def test_a_picture_that_is_named_by_an_address_goes_through_the_gate_without_the_key() -> None:
    def answer(request: Request) -> None:
        if request.path == "/cat.png":
            request.send(b"cat", mime="image/png")
        else:
            request.send({"data": [{"url": f"http://127.0.0.1:{server.server_port}/cat.png"}]})

    with serving(answer) as server:
        with pytest.raises(AddressRefused, match="this machine itself"):
            asyncio.run(remote(server).draw("a cat"))
        assert len(server.seen) == 1
        assert asyncio.run(remote(server).draw("a cat", gate=Gate(["127.0.0.1"]))) == b"cat"
        assert server.seen[-1].path == "/cat.png" and "authorization" not in server.seen[-1].headers


def test_an_overloaded_endpoint_is_asked_again() -> None:
    def answer(request: Request) -> None:
        if len(server.seen) == 1:
            request.send({"error": {"message": "slow down"}}, 429, retry_after="0")
        elif len(server.seen) == 2:
            request.send(b"oops", 502)
        else:
            request.say("Hi")

    with serving(answer) as server:
        assert talk(remote(server, retries=2))[0] == Said("Hi")
        assert len(server.seen) == 3


# -- what a bad one does ---------------------------------------------------------------------------------------------


def streamed(*events: Any, end: str = "[DONE]") -> Answer:
    def answer(request: Request) -> None:
        request.begin()
        for event in events:
            request.event(event)
        if end:
            request.event(end)

    return answer


def delta(**said: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": said, "finish_reason": None}]}


def calling(arguments: str, name: str | None = "add") -> Answer:
    call = {"index": 0, "id": "a", "function": {"name": name, "arguments": arguments}}
    return streamed(
        delta(tool_calls=[call]), {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
    )


def endless(request: Request) -> None:
    request.begin()
    while True:
        request.event(delta(content="x" * 60_000))


def one_line(request: Request) -> None:
    request.begin()
    while True:
        request.wfile.write(b"x" * 60_000)


def packed(request: Request) -> None:
    request.send(gzip.compress(b" " * (1 << 20)), content_encoding="gzip")


def another_protocol(request: Request) -> None:
    request.wfile.write(b"SSH-2.0-OpenSSH\r\n\r\n")
    request.close_connection = True


def cut(request: Request) -> None:
    request.begin(**{"content-length": "1000"})
    request.event(delta(content="x"))
    request.close_connection = True


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (lambda r: r.send(b"<html>hi</html>"), RemoteGarbled, "no JSON"),
        (lambda r: r.send(b"[" * 100_000), RemoteGarbled, "no JSON"),
        (lambda r: r.send(b"\xff\xfe{}"), RemoteGarbled, "no JSON"),
        (lambda r: r.send([1, 2]), RemoteGarbled, "the whole"),
        (lambda r: r.send({"choices": "none"}), RemoteGarbled, "choices"),
        (lambda r: r.send({"choices": [{"message": {"content": 7}}]}), RemoteGarbled, "content"),
        (lambda r: r.send({}), RemoteGarbled, "no reason why it ended"),
        (lambda r: r.send(b"<html>", mime="text/html"), RemoteGarbled, "broke off"),
        (streamed("{nonsense"), RemoteGarbled, "no JSON"),
        (streamed(delta(content=["a"])), RemoteGarbled, "content"),
        (streamed(delta(content="a"), end=""), RemoteGarbled, "broke off"),
        (streamed(delta(content="a")), RemoteGarbled, "did not end"),
        (streamed({"error": {"message": "no\x1b[2J\ntokens left"}}), RemoteRefused, "no.2J tokens left"),
        (streamed({"error": {"message": "x", "type": "server_error"}}), RemoteUnavailable, "x"),
        (streamed(delta(refusal="I will not.")), RemoteRefused, "I will not"),
        (streamed(delta(tool_calls=[{"index": 99, "function": {}}])), RemoteGarbled, "index"),
        (streamed(delta(tool_calls=[{"index": -1, "function": {}}])), RemoteGarbled, "index"),
        (calling("{"), RemoteGarbled, "is none"),
        (calling("[1]"), RemoteGarbled, "no JSON object"),
        (calling('{"x": NaN}'), RemoteGarbled, "is none"),
        (calling("{}", name=None), RemoteGarbled, "no name"),
        (calling('{"x": "' + "y" * (1 << 20) + '"}'), RemoteGarbled, "too large"),
        (endless, RemoteGarbled, "more than 8 MiB"),
        (one_line, RemoteGarbled, "one line"),
        (packed, RemoteGarbled, "packed by gzip"),
        (cut, RemoteGarbled, "broke off"),
        (lambda r: r.send({"error": {"message": "bad key"}}, 401), RemoteRefused, "401 Unauthorized: bad key"),
        (lambda r: r.send({"error": "no such model"}, 404), RemoteRefused, "no such model"),
        (lambda r: r.send(b"x" * (1 << 20), 400), RemoteRefused, "400 Bad Request"),
        (lambda r: r.send(b"", 307, location="http://example.org/"), RemoteRefused, "redirects are not followed"),
        (lambda r: r.send(b"", 503), RemoteUnavailable, "503"),
        (lambda r: r.send(b"", 799), RemoteRefused, "799"),
        (another_protocol, RemoteGarbled, "broke off"),
        (lambda r: setattr(r, "close_connection", True), RemoteGarbled, "broke off"),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_an_error(answer: Answer, kind: type[RemoteError], words: str) -> None:
    with serving(answer) as server:
        with pytest.raises(kind, match=words) as error:
            talk(remote(server))
        assert KEY not in str(error.value) and "\x1b" not in str(error.value) and len(str(error.value)) < 800
        assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("stall", "seconds", "words"), [(0.3, 60.0, "fell silent"), (60.0, 0.5, "did not answer in 0.5 s")]
)
@pytest.mark.parametrize("begun", [False, True])
def test_who_stalls_is_given_up(stall: float, seconds: float, words: str, begun: bool) -> None:
    def answer(request: Request) -> None:
        if begun:
            request.begin()
            request.event(delta(content="well"))
        server.over.wait()

    with serving(answer) as server, pytest.raises(RemoteStalled, match=words):
        talk(remote(server, stall=stall, seconds=seconds))


def test_who_drips_is_given_up() -> None:
    def answer(request: Request) -> None:
        request.begin()
        while not server.over.wait(0.05):
            request.event(delta(content="."))

    with serving(answer) as server, pytest.raises(RemoteStalled, match="did not answer in 1 s"):
        talk(remote(server, seconds=1.0))


def test_nobody_there() -> None:
    with serving(lambda request: None) as server:
        at = remote(server)
    with pytest.raises(RemoteUnavailable, match="cannot be reached"):
        talk(at)


def test_who_asks_to_wait_for_hours_is_not_waited_for() -> None:
    with serving(lambda request: request.send(b"", 429, retry_after="7200")) as server:
        with pytest.raises(RemoteUnavailable, match="429"):
            talk(remote(server, retries=5))
        assert len(server.seen) == 1


def test_who_stops_reading_hangs_up() -> None:
    gone: list[bool] = []

    def answer(request: Request) -> None:
        request.begin()
        try:
            while not server.over.is_set():
                request.event(delta(content="x" * 1000))
        except (BrokenPipeError, ConnectionResetError):
            gone.append(True)

    async def first() -> Event:
        events = remote(server).talk(Chat(messages=HELLO))
        event = await anext(events)
        await events.aclose()
        return event

    with serving(answer) as server:
        assert isinstance(asyncio.run(first()), Said)
        for _ in range(600):
            if gone:
                break
            server.over.wait(0.1)
        assert gone


Call = Callable[[Remote], Any]
DRAW: Call = lambda at: at.draw("a cat")  # noqa: E731
EMBED: Call = lambda at: at.embed(["a", "b"])  # noqa: E731


@pytest.mark.parametrize(
    ("call", "reply", "words"),
    [
        (DRAW, {"data": []}, "data"),
        (DRAW, {"data": [{}]}, "neither a picture"),
        (DRAW, {"data": [{"b64_json": "%%%"}]}, "no base64"),
        (DRAW, {"data": [{"b64_json": 5}]}, "b64_json"),
        (EMBED, {"data": [{"index": 0, "embedding": [1.0]}]}, "1 vectors for 2"),
        (EMBED, {"data": [{"index": i, "embedding": [1.0] * (i + 1)} for i in (0, 1)]}, "different lengths"),
        (EMBED, {"data": [{"index": i, "embedding": ["x"]} for i in (0, 1)]}, "embedding"),
        (EMBED, b'{"data": [{"index": 0, "embedding": [NaN]}]}', "no JSON"),
        (EMBED, b'{"data": [{"index": 0, "embedding": [1e999]}]}', "finite"),
        (lambda at: at.say("hi"), {"audio": "no"}, "no sound"),
        (lambda at: at.hear(b"x"), {"text": None}, "text"),
    ],
)  # fmt: skip
def test_media_that_are_none(call: Call, reply: Any, words: str) -> None:
    with serving(lambda request: request.send(reply)) as server, pytest.raises(RemoteGarbled, match=words):
        asyncio.run(call(remote(server)))


# -- configuration -----------------------------------------------------------------------------------------------------


def test_a_line_of_configuration() -> None:
    config = check({"remotes": {"far": {"url": "https://example.org/v1/", "key": "secret:far"}}}, Config)
    at = Endpoint.of("far", config.remotes["far"], KEY)
    assert (at.url, at.model, at.key) == ("https://example.org/v1", "far", KEY) and KEY not in repr(at)
    assert RemoteConfig(url="http://127.0.0.1:8080/v1", key="secret:mine").model == ""


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({}, "url"),
        ({"url": "ftp://example.org"}, "url"),
        ({"url": "https://me:pw@example.org/v1"}, "url"),
        ({"url": "https://example.org/v1", "key": KEY}, "key"),
        ({"url": "http://example.org/v1", "key": "secret:far"}, "https:// where there is a key"),
        ({"url": "https://example.org/v1", "stall": 0}, "stall"),
        ({"url": "https://example.org/v1", "retries": 99}, "retries"),
        ({"url": "https://example.org/v1", "timeout": 5}, "unknown key"),
    ],
)
def test_lines_that_are_refused(line: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check({"remotes": {"far": line}}, Config)
