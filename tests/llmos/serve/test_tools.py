"""Tools that the client carries out."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from llmos.abi.labels import UNTRUSTED, USER
from llmos.serve.asking import chat_options
from llmos.serve.protocol import ChatRequest, parse
from llmos.testing import call
from tests.llmos.serve.conftest import MODEL, Serve
from tests.llmos.serve.waiting import until

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
TIME = {"type": "function", "function": {"name": "time"}}
TOOLS: Any = [WEATHER, TIME]
ASK = {"role": "user", "content": "weather in Rome?"}


def script(window: str) -> str:
    if "sunny" in window:
        return "It is sunny."
    return "Let me see. " + call("weather", city="Rome") + "\n" + call("time")


def test_there_and_back(serve: Serve) -> None:
    served = serve(script)
    messages: list[Any] = [ASK]
    create = served.client.chat.completions.create
    choice = create(model=MODEL, messages=messages, tools=TOOLS).choices[0]
    assert choice.finish_reason == "tool_calls" and (choice.message.content or "").strip() == "Let me see."
    calls: Any = choice.message.tool_calls
    assert [(c.function.name, json.loads(c.function.arguments)) for c in calls] == [
        ("weather", {"city": "Rome"}),
        ("time", {}),
    ]
    assert len({c.id for c in calls}) == 2
    messages += [choice.message, *({"role": "tool", "tool_call_id": c.id, "content": "sunny"} for c in calls)]
    choice = create(model=MODEL, messages=messages, tools=TOOLS).choices[0]
    assert (choice.finish_reason, choice.message.content) == ("stop", "It is sunny.")
    until(served.idle)


def test_calls_in_a_stream(serve: Serve) -> None:
    served = serve(script)
    chunks = list(served.chat("weather?", tools=TOOLS, stream=True))
    said = "".join(c.choices[0].delta.content or "" for c in chunks)
    calls = [t for c in chunks for t in c.choices[0].delta.tool_calls or []]
    assert said.strip() == "Let me see." and "tool_call" not in said
    assert [(t.index, t.function.name) for t in calls] == [(0, "weather"), (1, "time")]
    assert json.loads(calls[0].function.arguments) == {"city": "Rome"}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_which_calls_are_wanted(serve: Serve) -> None:
    served = serve(script)

    def calls(**options: Any) -> list[str]:
        message = served.chat("weather?", tools=TOOLS, max_tokens=300, **options).choices[0].message
        return [c.function.name for c in message.tool_calls or []]

    assert calls(parallel_tool_calls=False) == ["weather"]
    assert calls(tool_choice="none") == []
    assert set(calls(tool_choice={"type": "function", "function": {"name": "time"}})) == {"time"}
    talk = serve("I would rather talk.")
    answer = talk.chat("weather?", tools=[TIME], tool_choice="required", max_tokens=60).choices[0]
    assert answer.message.content is None and answer.message.tool_calls[0].function.name == "time"
    assert talk.chat("weather?", tools=TOOLS).choices[0].message.content == "I would rather talk."


def _assistant(*ids: str) -> Any:
    made = [{"id": i, "type": "function", "function": {"name": "time", "arguments": "{}"}} for i in ids]
    return {"role": "assistant", "content": None, "tool_calls": made}


def _tool(call_id: str) -> Any:
    return {"role": "tool", "tool_call_id": call_id, "content": "noon"}


CONVERSATIONS: list[tuple[list[Any], str]] = [
    ([ASK, _tool("a")], "messages[1].tool_call_id"),
    ([ASK, _assistant("a"), _tool("b")], "messages[2].tool_call_id"),
    ([ASK, _assistant("a"), _tool("a"), _tool("a")], "messages[3].tool_call_id"),
    ([ASK, _assistant("a", "b"), _tool("a"), ASK], "messages[3]"),
    ([ASK, _assistant("a")], "messages"),
    ([ASK, _assistant("a", "a"), _tool("a")], "messages[1].tool_calls"),
    ([{**_assistant("a"), "role": "user", "content": "x"}, _tool("a")], "messages[0]"),
    ([{"role": "tool", "content": "noon"}], "messages[0].tool_call_id"),
]


def test_calls_and_their_answers_belong_together(serve: Serve) -> None:
    client = serve().client
    for messages, param in CONVERSATIONS:
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model=MODEL, messages=messages)
        assert caught.value.param == param


IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "gone"}}}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": {"type": "function"}}, "tool_choice"),
    ({"tools": [TIME, TIME]}, "tools"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
    ({"tools": [{"type": "function", "function": {"name": "auto"}}]}, "tools[0].function.name"),
    (
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}]},
        "tools[0].function.parameters",
    ),
    (
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"$ref": "http://x"}}}]},
        "tools[0].function.parameters",
    ),
    ({"functions": [{"name": "old"}]}, "functions"),
    ({"tools": [TIME] * 129}, "tools"),
]


def test_impossible_tools(serve: Serve) -> None:
    served = serve()
    for options, param in IMPOSSIBLE:
        with pytest.raises(openai.BadRequestError) as caught:
            served.chat(**options)
        assert caught.value.param == param


def test_the_labels_of_a_conversation() -> None:
    messages = [
        {"role": "system", "content": "s"},
        ASK,
        _assistant("a"),
        _tool("a"),
        {"role": "assistant", "content": "It is noon."},
        {"role": "user", "content": "thanks"},
    ]
    request = parse(ChatRequest, json.dumps({"model": MODEL, "messages": messages}).encode())
    built = chat_options(request)["messages"]
    assert [m.role for m in built] == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert [m.parts[0].label for m in built] == [USER, USER, USER, UNTRUSTED, UNTRUSTED, USER]
    assert built[2].calls[0].syscall == "time"
