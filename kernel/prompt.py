"""From messages to segments: how a conversation becomes the tokens of a window.

What: renders the model's chat template, and tokenises what the template wrote and what people and documents
    wrote by different rules.
Invariant: content never becomes a control token, whatever it spells. Every token stands in a segment that says
    where its words came from.
Interface: `Part`, `Message`, `ChatPrompt(tokenizer, template)`: `.segments(messages, tools)` for a whole window,
    `.results(parts, told)` for what follows an answer that made calls, `.frame` around a result, `.going_on(text)`
    where the user says more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from llmos.abi.errors import TemplateError
from llmos.abi.events import Call
from llmos.abi.labels import USER, Label, join
from llmos.drivers.weights import ChatTemplate, Piece, Tokenizer
from llmos.kernel.stubs import stub
from llmos.memory.window import Segment, SegmentKind

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a message that has one origin."""

    kind: SegmentKind
    text: str
    label: Label = USER
    source: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation: the texts of its parts, one after the other."""

    role: Role
    parts: tuple[Part, ...]
    calls: tuple[Call, ...] = ()  # that an assistant's message made; tool messages behind it answer them

    @classmethod
    def of(cls, role: Literal["system", "user", "assistant"], text: str, label: Label = USER) -> Message:
        """A message of one part."""
        return cls(role, (Part(role, text, label),))

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts)

    @property
    def given(self) -> dict[str, Any]:
        """The message as templates take it."""
        made = [
            {"type": "function", "function": {"name": c.syscall, "arguments": dict(c.arguments)}}
            for c in self.calls
        ]
        return {"role": self.role, "content": self.text, **({"tool_calls": made} if made else {})}


class ChatPrompt:
    """A model's way to write a conversation down."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate) -> None:
        self._tokenizer, self._template = tokenizer, template

    def segments(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = (), label: Label = USER
    ) -> list[Segment]:
        """The window's segments for `messages`, ready for the model to answer.

        What the template writes stands in the segment of the content that follows it; its last words, which
        open the answer, are an assistant segment of their own.

        Args:
            tools: descriptions of syscalls, as templates take them. They are written by our own hand, not by the
                template: models fill in the heads of functions better than schemas (see stubs.py).
            label: of these descriptions.
        """
        if tools:
            messages = _with_tools(messages, tools, label)
        pieces = self._template.render([m.given for m in messages])
        segments = self._tokenised(
            [p for piece in pieces for p in _split(piece, messages, label)], _blank(messages)
        )
        t, first = self._tokenizer, segments[0]
        if t.add_bos and t.bos_id is not None and first.tokens[:1] != (t.bos_id,):
            segments[0] = replace(first, tokens=(t.bos_id, *first.tokens))
        return segments

    def results(self, results: Sequence[Part], told: Sequence[Part] = ()) -> list[Segment]:
        """What follows in the window when an answer has made calls: the end of that answer, their results with what
        the model is `told` behind them, and the opening of the next answer. Its first token ends an answer as the
        model itself would."""
        said = [Message.of("user", "?"), Message.of("assistant", "!")]
        given = [Message("tool", (part,)) for part in results]
        given[-1] = replace(given[-1], parts=(*given[-1].parts, *told))
        for role in ("tool", "user"):  # a template without a place for results has them from the user
            try:
                pieces = self._template.render([{"role": m.role, "content": m.text} for m in said]
                    + [{"role": role, "content": m.text} for m in given])  # fmt: skip
                break
            except TemplateError:
                if role == "user":
                    raise
        return self._behind(pieces, said, given)

    @cached_property
    def frame(self) -> tuple[str, str]:
        """What stands around the result of one call, up to the answer."""
        segments = self.results([Part("result", "?")])
        text = b"".join(self._tokenizer.token_bytes(token) for s in segments for token in s.tokens)
        before, _, behind = text.decode("utf-8", "replace").rpartition("?")
        return before, behind

    def going_on(self, text: str, label: Label = USER) -> list[Segment]:
        """What follows in the window when the user answers an answer: the end of that answer, `text`, and the opening
        of the next."""
        said, given = (
            [Message.of("user", "?"), Message.of("assistant", "!")],
            [Message.of("user", text, label)],
        )
        return self._behind(self._template.render([m.given for m in (*said, *given)]), said, given)

    def _behind(
        self, pieces: Sequence[Piece], said: Sequence[Message], given: Sequence[Message]
    ) -> list[Segment]:
        """What stands behind the answer, the last of `said`."""
        answer = max(i for i, piece in enumerate(pieces) if piece.message == len(said) - 1)
        parts = [p for piece in pieces[answer + 1 :] for p in _split(piece, [*said, *given], USER)]
        return self._tokenised(parts, _blank(given))

    def _tokenised(self, parts: Sequence[tuple[Part | None, str]], also: Label) -> list[Segment]:
        """`also`: of what stands somewhere among these parts."""
        t = self._tokenizer
        texts = t.encode_pieces(Piece(text, origin is None) for origin, text in parts)
        segments: list[Segment] = []
        before: list[int] = []  # what the template wrote since the last content
        for (origin, _), ids in zip(parts, texts, strict=True):
            if origin is None:
                before += ids
            elif ids:
                label = join([origin.label, also])
                segments.append(Segment(origin.kind, (*before, *ids), label, source=origin.source))
                before = []
        if before:
            segments.append(Segment("assistant", tuple(before), also))
        return segments


TOOLS = """You help the user by calling functions. To call one, write a JSON object with its name and its arguments between these words:
<tool_call>
{"name": <name>, "arguments": <arguments>}
</tool_call>
Take the values from the user's words: names in full, numbers in the unit that the parameter asks for. Leave an optional argument out unless the user speaks of it. If no function does what the user asks for, answer in your own words without a call.

The functions:

"""  # noqa: E501 - lines as the model reads them. The form of a call is Hermes's, as most small models know it.


def _with_tools(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], label: Label
) -> list[Message]:
    """`messages` with the syscall table at the end of the system message. What is the same for all processes
    stands first, so that its pages are shared."""
    heads = [tool["function"] for tool in tools]
    table = "\n\n".join(stub(f["name"], f["description"], f["parameters"]) for f in heads)
    parts = (Part("system", TOOLS), Part("syscall", table, label))
    if messages and messages[0].role == "system":
        system, rest = messages[0], messages[1:]
        return [Message("system", (*system.parts, Part("system", "\n\n"), *parts)), *rest]
    return [Message("system", parts), *messages]


def _blank(messages: Sequence[Message]) -> Label:
    """Of messages that are nothing but blanks. These cannot be told from the template's own, so their label is
    everybody's."""
    return join(p.label for m in messages if not m.text.strip() for p in m.parts if p.text)


def _split(piece: Piece, messages: Sequence[Message], tools: Label) -> list[tuple[Part | None, str]]:
    """A piece of the rendered template as parts; None for what the template itself wrote."""
    if piece.control:
        return [(None, piece.text)]
    if piece.message is None:  # tools, or content that the template has mixed: as good as the least of it
        label = join([tools, *(p.label for m in messages for p in m.parts)])
        return [(Part("syscall", piece.text, label), piece.text)]
    message = messages[piece.message]
    if piece.text == message.text:
        return [(part, part.text) for part in message.parts]
    # The template changed the text (trimmed it, say), so where its parts meet is not known. An answer that is nothing
    # but calls has no parts: it is as good as what was read before it.
    parts = message.parts or tuple(p for m in messages[: piece.message] for p in m.parts)
    kind: SegmentKind = message.parts[0].kind if message.parts else "assistant"
    source = message.parts[0].source if message.parts else ""
    return [(Part(kind, piece.text, join(part.label for part in parts), source), piece.text)]
