"""Chats by the official client: whole, streamed, with choices, forms and log-probabilities."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.llmos.serve.conftest import MODEL, Serve
from tests.llmos.serve.waiting import until


def test_a_whole_answer(serve: Serve) -> None:
    served = serve()
    answer = served.chat()
    assert answer.object == "chat.completion" and answer.model == MODEL and answer.id.startswith("chatcmpl-")
    (choice,) = answer.choices
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "stop", None)
    assert (choice.message.role, choice.message.content) == ("assistant", "Hello there.")
    assert choice.message.tool_calls is None
    usage = answer.usage
    assert usage.completion_tokens == len("Hello there.")
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert served.chat().usage.prompt_tokens_details.cached_tokens > 0  # pages are found by content
    until(served.idle)


def test_a_stream_adds_up_to_the_whole(serve: Serve) -> None:
    served = serve("Grüße, 世界 🙂!")
    whole = served.chat().choices[0].message.content
    chunks = list(served.chat(stream=True, stream_options={"include_usage": True}))
    assert {c.object for c in chunks} == {"chat.completion.chunk"} and len({c.id for c in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert (
        "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole == "Grüße, 世界 🙂!"
    )
    *said, end, last = chunks
    assert all(c.usage is None and c.choices[0].finish_reason is None for c in said)
    assert end.choices[0].finish_reason == "stop"
    assert last.choices == [] and last.usage.completion_tokens == len(whole.encode())
    assert all(c.usage is None for c in served.chat(stream=True))


def test_the_bytes_of_a_stream(serve: Serve) -> None:
    served = serve("ab")
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "stream": True}
    request = urllib.request.Request(f"{served.server.url}/chat/completions", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=10) as reply:
        assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert reply.headers["x-request-id"].startswith("req_")
        *events, done, rest = reply.read().decode().split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    assert [json.loads(e.removeprefix("data: "))["object"] for e in events] == ["chat.completion.chunk"] * 4


def test_the_async_client(serve: Serve) -> None:
    served = serve()

    async def talk() -> str:
        async with openai.AsyncOpenAI(base_url=served.server.url, api_key="-", max_retries=0) as client:
            stream = await client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "hello"}], stream=True
            )
            return "".join([c.choices[0].delta.content or "" async for c in stream])

    assert asyncio.run(talk()) == "Hello there."


def test_limits_of_an_answer(serve: Serve) -> None:
    served = serve("one two three")
    for limit in ({"max_tokens": 5}, {"max_completion_tokens": 5}):
        choice = served.chat(**limit).choices[0]
        assert (choice.message.content, choice.finish_reason) == ("one t", "length")
    for stop in (" three", [" three", "nothing"]):
        choice = served.chat(stop=stop).choices[0]
        assert (choice.message.content, choice.finish_reason) == ("one two", "stop")
    streamed = list(served.chat(stop=" three", stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in streamed) == "one two"


def test_the_dials_are_taken(serve: Serve) -> None:
    served = serve()
    dials: dict[str, Any] = {
        "temperature": 0.7,
        "top_p": 0.9,
        "seed": -5,
        "frequency_penalty": 0,
        "user": "me",
    }
    assert served.chat(**dials, extra_body={"top_k": 40, "min_p": 0.1}).choices[0].message.content
    assert served.chat(temperature=1, top_p=0, logit_bias={}).choices[0].message.content


def test_several_choices(serve: Serve) -> None:
    served = serve()
    question = "long " * 400
    stream = served.chat(question, n=3, stream=True, temperature=1, stream_options={"include_usage": True})
    texts, ends, usage = ["", "", ""], [""] * 3, None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            ends[choice.index] = choice.finish_reason or ends[choice.index]
    assert texts == ["Hello there."] * 3 and ends == ["stop"] * 3
    assert usage.completion_tokens == 3 * len("Hello there.") and 2000 < usage.prompt_tokens < 2100
    assert served.kernel.engine.counters.tokens < 2400  # the question was computed once
    whole = served.chat(n=3)
    assert [(c.index, c.message.content) for c in whole.choices] == [(i, "Hello there.") for i in range(3)]
    until(served.idle)


def test_log_probabilities(serve: Serve) -> None:
    served = serve("aé")
    for tokens in (
        served.chat(logprobs=True).choices[0].logprobs.content,
        [
            t
            for c in served.chat(logprobs=True, stream=True)
            if c.choices[0].logprobs
            for t in c.choices[0].logprobs.content
        ],
    ):
        assert [t.bytes for t in tokens] == [[b] for b in "aé".encode()]
        assert tokens[0].token == "a" and all(t.logprob == 0.0 and t.top_logprobs == [] for t in tokens)


class Trip(BaseModel):
    city: str
    days: int


def test_json_of_a_schema(serve: Serve) -> None:
    served = serve('{"city": "Rome", "days": 3}')
    answer = served.client.chat.completions.parse(
        model=MODEL, messages=[{"role": "user", "content": "where?"}], response_format=Trip
    )
    assert answer.choices[0].message.parsed == Trip(city="Rome", days=3)
    free = serve("I would rather talk.")  # what it wants to say is no JSON: the grammar has it otherwise
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    said = free.chat(response_format=form).choices[0].message.content
    assert set(json.loads(said)) == {"ok"}


def test_json_objects(serve: Serve) -> None:
    served = serve('{"anything": [1, 2]}')
    said = served.chat(response_format={"type": "json_object"}).choices[0].message.content
    assert json.loads(said) == {"anything": [1, 2]}


def test_the_conversation_is_what_the_request_says(serve: Serve) -> None:
    windows: list[str] = []
    served = serve(lambda window: windows.append(window) or "Fine.")  # type: ignore[func-returns-value]
    messages: list[Any] = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]},
        {"role": "assistant", "content": "three"},
        {"role": "system", "content": "Be polite."},
        {"role": "user", "content": "<|im_end|> four", "name": "me"},
    ]
    served.client.chat.completions.create(model=MODEL, messages=messages)
    served.chat("and now?")
    first, second = windows[0], windows[-1]  # the engine tries out drafts in between
    order = [
        "system\nBe brief.",
        "user\none two",
        "assistant\nthree",
        "system\nBe polite.",
        "user\n<|im_end|> four",
    ]
    places = [first.index(f"<|im_start|>{text}") for text in order]
    assert places == sorted(places)
    assert "and now?" in second and "brief" not in second and "four" not in second


def test_models(serve: Serve) -> None:
    served = serve()
    assert [m.id for m in served.client.models.list()] == [MODEL, "all-minilm-l6-v2"]
    assert served.client.models.retrieve(MODEL).owned_by == "llmos"
    with pytest.raises(openai.NotFoundError):
        served.client.models.retrieve("gpt-9")
