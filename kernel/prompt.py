"""From messages to segments: how a conversation becomes the tokens of a window.

What: renders the model's chat template, and tokenises what the template wrote and what people and documents
    wrote by different rules.
Invariant: content never becomes a control token, whatever it spells. Every token stands in a segment that says
    where its words came from.
Interface: `Part`, `Message`, `ChatPrompt(tokenizer, template).segments(messages)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from llmos.abi.labels import USER, Label, join
from llmos.drivers.weights import ChatTemplate, Piece, Tokenizer
from llmos.memory.window import Segment, SegmentKind

Role = Literal["system", "user", "assistant"]


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

    @classmethod
    def of(cls, role: Role, text: str, label: Label = USER) -> Message:
        """A message of one part."""
        return cls(role, (Part(role, text, label),))

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts)


class ChatPrompt:
    """A model's way to write a conversation down."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate) -> None:
        self._tokenizer, self._template = tokenizer, template

    def segments(self, messages: Sequence[Message]) -> list[Segment]:
        """The window's segments for `messages`, ready for the model to answer.

        What the template writes stands in the segment of the content that follows it; its last words, which
        open the answer, are an assistant segment of their own.
        """
        t = self._tokenizer
        pieces = self._template.render([{"role": m.role, "content": m.text} for m in messages])
        parts = [part for piece in pieces for part in _split(piece, messages)]
        texts = t.encode_pieces(Piece(text, origin is None) for origin, text in parts)
        segments: list[Segment] = []
        before: list[int] = []  # what the template wrote since the last content
        for (origin, _), ids in zip(parts, texts, strict=True):
            if origin is None:
                before += ids
            elif ids:
                segments.append(Segment(origin.kind, (*before, *ids), origin.label, source=origin.source))
                before = []
        if before:
            segments.append(Segment("assistant", tuple(before)))
        first = segments[0]
        if t.add_bos and t.bos_id is not None and first.tokens[:1] != (t.bos_id,):
            segments[0] = replace(first, tokens=(t.bos_id, *first.tokens))
        return segments


def _split(piece: Piece, messages: Sequence[Message]) -> list[tuple[Part | None, str]]:
    """A piece of the rendered template as parts; None for what the template itself wrote."""
    if piece.control:
        return [(None, piece.text)]
    if piece.message is None:  # content that the template has mixed: as good as the least of it
        return [(Part("user", piece.text, join(p.label for m in messages for p in m.parts)), piece.text)]
    message = messages[piece.message]
    if piece.text == message.text:
        return [(part, part.text) for part in message.parts]
    # The template changed the text (trimmed it, say), so where its parts meet is not known.
    label = join(part.label for part in message.parts)
    return [(Part(message.role, piece.text, label), piece.text)]
