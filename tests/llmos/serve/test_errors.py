"""Bad requests: each in the protocol's shape, with its code, and the server goes on."""

from __future__ import annotations

import http.client
import json
from typing import Any

import openai
import pytest

from llmos.serve.server import Limits
from tests.llmos.serve.conftest import MODEL, Serve, Served
from tests.llmos.serve.waiting import until

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "x"}]}


def post(
    served: Served, body: bytes, path: str = "/v1/chat/completions", method: str = "POST", **headers: str
) -> tuple[int, Any]:
    """Status and JSON of what comes back for exactly these bytes."""
    connection = http.client.HTTPConnection("127.0.0.1", served.server.port, timeout=20)
    try:
        connection.request(method, path, body, {"content-type": "application/json", **headers})
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())
    finally:
        connection.close()


BODIES: list[tuple[Any, str | None, str | None]] = [
    (b"", None, None),
    (b"{", None, None),
    (b"[]", None, None),
    (b"\xff\xfe", None, None),
    (b"[" * 100_000, None, None),
    (b'{"model": "\\ud800"}', None, None),
    ({}, "missing_required_parameter", "model"),
    ({"model": MODEL}, "missing_required_parameter", "messages"),
    (CHAT | {"model": 5}, "invalid_type", "model"),
    (CHAT | {"messages": []}, "invalid_value", "messages"),
    (CHAT | {"messages": "x"}, "invalid_type", "messages"),
    (CHAT | {"messages": [{"role": "user"}]}, "missing_required_parameter", "messages[0].content"),
    (CHAT | {"messages": [{"role": "king", "content": "x"}]}, "invalid_value", "messages[0].role"),
    (CHAT | {"messages": [{"role": "user", "content": 5}]}, "invalid_type", "messages[0].content"),
    (
        CHAT | {"messages": [{"role": "user", "content": "x", "y": 1}]},
        "unknown_parameter",
        "messages[0].y",
    ),
    (CHAT | {"temperature": "hot"}, "invalid_type", "temperature"),
    (CHAT | {"temperature": 2.5}, "invalid_value", "temperature"),
    (b'{"temperature": NaN}', None, None),
    (CHAT | {"top_p": -1}, "invalid_value", "top_p"),
    (CHAT | {"n": 0}, "invalid_value", "n"),
    (CHAT | {"n": 17}, "invalid_value", "n"),
    (CHAT | {"n": True}, "invalid_type", "n"),
    (CHAT | {"max_tokens": 0}, "invalid_value", "max_tokens"),
    (CHAT | {"max_tokens": 1.5}, "invalid_type", "max_tokens"),
    (CHAT | {"max_tokens": 5, "max_completion_tokens": 5}, "invalid_value", "max_tokens"),
    (CHAT | {"stop": ["a"] * 5}, "invalid_value", "stop"),
    (CHAT | {"stop": ""}, "invalid_value", "stop"),
    (CHAT | {"stream": "yes"}, "invalid_type", "stream"),
    (CHAT | {"stream_options": {"include_usage": True}}, "invalid_value", "stream_options"),
    (CHAT | {"top_logprobs": 2}, "invalid_value", "top_logprobs"),
    (CHAT | {"logit_bias": {"5": 1}}, "unsupported_parameter", "logit_bias"),
    (CHAT | {"presence_penalty": 1}, "unsupported_parameter", "presence_penalty"),
    (CHAT | {"store": True}, "unsupported_parameter", "store"),
    (CHAT | {"wings": 2}, "unknown_parameter", "wings"),
    (CHAT | {"response_format": {"type": "xml"}}, "invalid_value", "response_format.type"),
    (CHAT | {"response_format": {"type": "json_schema"}}, "invalid_value", "response_format.json_schema"),
]


def test_bodies_that_do_not_fit(serve: Serve) -> None:
    served = serve()
    for body, code, param in BODIES:
        status, reply = post(served, body if isinstance(body, bytes) else json.dumps(body).encode())
        error = reply["error"]
        assert status == 400 and set(error) == {"message", "type", "param", "code"}, body
        assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, param), body
        assert error["message"].endswith("."), body
    assert served.chat().choices[0].message.content == "Hello there."


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        ({"type": "string", "pattern": "^(?=a)b"}, True),  # not regular: no grammar can hold it
        ({"$ref": "#/nowhere"}, False),
        ({"type": "string", "pattern": "("}, False),
        ({"type": "no such type"}, False),
    ],
)
def test_schemas_that_cannot_be_kept(serve: Serve, schema: Any, strict: bool) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": strict}}
    with pytest.raises(openai.BadRequestError) as caught:
        serve().chat(response_format=form)
    assert str(caught.value.param).startswith("response_format") and caught.value.code == "invalid_value"


def test_pictures(serve: Serve) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    messages: Any = [{"role": "user", "content": [{"type": "text", "text": "what is this?"}, picture]}]
    with pytest.raises(openai.BadRequestError, match="reads text only: image parts") as caught:
        serve().client.chat.completions.create(model=MODEL, messages=messages)
    assert caught.value.param == "messages[0].content[1].type"


@pytest.mark.parametrize("stream", [False, True])
def test_too_long(serve: Serve, stream: bool) -> None:
    served = serve()
    for options in ({"text": "long " * 5000}, {"text": "short", "max_tokens": 8192}):
        with pytest.raises(openai.BadRequestError, match="do not fit the window") as caught:
            served.chat(**options, stream=stream)
        assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")
    until(served.idle)


def test_models_and_paths(serve: Serve) -> None:
    served = serve()
    for model in ("gpt-9", "all-minilm-l6-v2"):
        with pytest.raises(openai.NotFoundError) as caught:
            served.client.chat.completions.create(model=model, messages=[{"role": "user", "content": "x"}])
        assert caught.value.code == "model_not_found" and MODEL in str(caught.value)
    for path, method, status in (
        ("/v1/nothing", "POST", 404),
        ("/", "GET", 404),
        ("/v1/chat/completions", "GET", 405),
        ("/v1/models", "POST", 405),
    ):
        found, reply = post(served, b"", path, method)
        assert found == status and reply["error"]["message"] == f"Invalid URL ({method} {path})"


def test_huge_bodies(serve: Serve) -> None:
    served = serve(limits=Limits(body_bytes=100_000))
    assert post(served, json.dumps(CHAT).encode())[0] == 200
    for size in (100_001, 1_000_000):
        status, reply = post(served, b" " * size)
        assert (status, reply["error"]["code"]) == (413, "request_too_large")
    with pytest.raises(openai.APIStatusError) as caught:
        served.chat("x" * 200_000)
    assert caught.value.status_code == 413
    assert served.chat().choices[0].message.content == "Hello there."


def test_bodies_that_never_arrive(serve: Serve) -> None:
    served = serve(limits=Limits(body_seconds=0.2))
    connection = http.client.HTTPConnection("127.0.0.1", served.server.port, timeout=20)
    connection.putrequest("POST", "/v1/chat/completions")
    connection.putheader("content-length", "100")
    connection.endheaders()
    connection.send(b"{")
    reply = connection.getresponse()
    assert reply.status == 408 and json.loads(reply.read())["error"]["type"] == "invalid_request_error"
    connection.close()


def test_a_mistake_of_ours(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    def script(window: str) -> str:
        raise RuntimeError("the secret inside")

    served = serve(script)
    with pytest.raises(openai.InternalServerError) as caught:
        served.chat()
    assert caught.value.status_code == 500 and caught.value.type == "server_error"
    until(served.idle)

    broken = serve()
    broken.kernel.spawn = None  # type: ignore[assignment, method-assign]
    with pytest.raises(openai.InternalServerError, match="had an error while processing") as caught:
        broken.chat()
    assert "NoneType" not in str(caught.value) and "NoneType" in caplog.text


def test_an_error_in_mid_stream(serve: Serve) -> None:
    served = serve("Hello there.")
    served.gate.close()
    served.gate.let(4)
    stream = served.chat(stream=True)
    for process in served.kernel.table:
        process.signal("KILL")
    until(lambda: not served.kernel.ps())
    served.gate.open()
    with pytest.raises(openai.APIError, match="stopped on the server"):
        list(stream)
    assert served.chat().choices[0].message.content == "Hello there."
