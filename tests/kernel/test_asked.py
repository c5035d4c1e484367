"""The user's last words are read back from a window, in whatever form a template writes it."""

from __future__ import annotations

import pytest

from llmos.abi.events import Call
from llmos.abi.labels import STORE, UNTRUSTED, USER, Label
from llmos.drivers.weights import ChatTemplate
from llmos.kernel.asked import asked_in
from llmos.kernel.engine.scripted import byte_tokenizer
from llmos.kernel.layout import Layout
from llmos.kernel.prompt import ChatPrompt, Message, Part

TOOL = {"name": "f", "description": "Does it.", "parameters": {"type": "object", "properties": {}}}
TOOLS = [{"type": "function", "function": TOOL}]
CALLED = [
    Message("assistant", (), (Call(1, "f", {}),)),
    Message("tool", (Part("result", "It is done.", UNTRUSTED),)),
]
FIRST, ANSWER, LAST = (
    Message.of("user", "I am Ann."),
    Message.of("assistant", "Hello."),
    Message.of("user", "And?"),
)


def laid_out(prompt: ChatPrompt, messages: list[Message]) -> Layout:
    return Layout.of(prompt.segments(messages, TOOLS), prompt._tokenizer)


@pytest.mark.parametrize("head", [[], [Message.of("system", "You are a clerk.")]])
@pytest.mark.parametrize(
    ("messages", "question", "answered"),
    [
        ([FIRST], "I am Ann.", False),
        ([FIRST, ANSWER, LAST], "And?", False),
        ([FIRST, *CALLED], "I am Ann.", True),
        ([FIRST, *CALLED, ANSWER, LAST, *CALLED], "And?", True),
    ],
)
def test_the_last_question_is_found(
    prompt: ChatPrompt, head: list[Message], messages: list[Message], question: str, answered: bool
) -> None:
    layout = laid_out(prompt, [*head, *messages])
    asked = asked_in(layout, prompt, prompt._tokenizer)
    assert asked is not None and asked.question == question
    assert "I am Ann." in asked.heard and "clerk" not in asked.heard and "Does it." not in asked.heard
    assert (asked.end < len(layout.tokens)) == answered


def test_without_the_users_words_there_is_no_question(prompt: ChatPrompt) -> None:
    layout = laid_out(prompt, [Message.of("system", "Say something.")])
    assert asked_in(layout, prompt, prompt._tokenizer) is None


WRITES_CALLS = """{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>{{ c.function.name }} {{ c.function.arguments | tojson }}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}<|im_start|>assistant
"""


@pytest.mark.parametrize(("read", "label"), [(UNTRUSTED, UNTRUSTED), (STORE, STORE), (USER, USER)])
def test_an_answer_of_calls_alone_is_as_good_as_what_was_read_before(read: Label, label: Label) -> None:
    prompt = ChatPrompt(byte_tokenizer(), ChatTemplate(WRITES_CALLS))
    made = Message("assistant", (), (Call(1, "f", {"x": "what it read"}),))
    messages = [Message.of("user", "Go."), Message("user", (Part("user", "Something.", read),)), made]
    segments = prompt.segments([*messages, Message("tool", (Part("result", "ok"),))])
    written = [s for s in segments if "what it read" in prompt._tokenizer.decode(s.tokens)]
    assert [s.label for s in written] == [label]
