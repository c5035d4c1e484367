"""From messages to tokens: how a window is laid out.

What: renders the chat template, and tokenises what the template wrote and what people and documents wrote
    by different tokenizers.
Invariant: content never becomes a control token, whatever it spells; nothing is cut: what does not fit is
    left out as a whole by `fit`'s caller, or is an error.
Interface: `ChatPrompt(tokenizer, template)`; `.tokens(messages)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from llmos.drivers.weights import ChatTemplate, Tokenizer

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: Role
    text: str


class ChatPrompt:
    """A model's way to write a conversation down."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate) -> None:
        self._tokenizer, self._template = tokenizer, template

    def tokens(self, messages: Sequence[Message]) -> list[int]:
        """The window's tokens for `messages`, ready for the model to answer."""
        t = self._tokenizer
        pieces = self._template.render([{"role": m.role, "content": m.text} for m in messages])
        ids = [i for piece in t.encode_pieces(pieces) for i in piece]
        if t.add_bos and t.bos_id is not None and ids[:1] != [t.bos_id]:
            ids.insert(0, t.bos_id)
        return ids
