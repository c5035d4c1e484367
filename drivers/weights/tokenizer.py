"""Text to token ids and back.

What: one tokenizer over two views of text. Content (documents, what a user or an app wrote) goes through
    `encode`, which knows no added tokens at all; pieces of a chat template go through `encode_control`,
    which does.
Invariant: no id of `control_ids` ever comes out of `encode`, whatever the text: a `<|im_end|>` or
    `<tool_call>` in a document is a few letters. (Turning special tokens off is not enough: `<tool_call>`
    would still be one token.)
Interface: `encode`, `encode_control`, `encode_pieces`, `decode`, `stream`, `token_bytes`, and the special
    ids.
Do not: put template text and content into one string before encoding.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


class Vocabulary(Protocol):
    """What a file format provides: encoding of plain text, and the bytes of each token."""

    size: int

    def encode(self, text: str, *, start: bool) -> list[int]:
        """Ids of plain text; `start` where a vocabulary that puts a space before the first word does so."""
        ...

    def token_bytes(self, token: int) -> bytes:
        """The bytes of an ordinary token."""
        ...


@dataclass(frozen=True, slots=True)
class Added:
    """A token matched as literal text in template pieces. `control`: it has no text when decoded."""

    text: str
    control: bool = True
    eats_left: bool = False  # also swallows the whitespace before it
    eats_right: bool = False


class PieceLike(Protocol):
    """A piece of a rendered template (see `template.Piece`)."""

    @property
    def text(self) -> str: ...
    @property
    def control(self) -> bool: ...


@dataclass(slots=True)
class Tokenizer:
    """See the module. Thread-safe: encoding only reads, and remembers words in one dictionary."""

    vocabulary: Vocabulary
    added: Mapping[int, Added]
    eos_ids: frozenset[int]
    bos_id: int | None = None
    add_bos: bool = False
    space_prefix: bool = False  # a space is put before the first word, and taken away by `decode`
    _pattern: re.Pattern[str] | None = field(init=False, default=None)
    _by_text: dict[str, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._by_text = {token.text: i for i, token in self.added.items() if token.text}
        # Longest first: of two tokens that begin at the same place the longer wins.
        texts = sorted(self.added.values(), key=lambda t: -len(t.text))
        parts = [
            (r"\s*" if t.eats_left else "") + f"({re.escape(t.text)})" + (r"\s*" if t.eats_right else "")
            for t in texts
            if t.text
        ]
        self._pattern = re.compile("|".join(parts)) if parts else None

    @property
    def vocab_size(self) -> int:
        """Number of ids, added ones included."""
        return self.vocabulary.size

    @property
    def control_ids(self) -> frozenset[int]:
        """The ids that content can never become."""
        return frozenset(self.added)

    def control_id(self, text: str) -> int | None:
        """The id of an added token by its text, e.g. `<tool_call>`."""
        return self._by_text.get(text)

    def encode(self, text: str) -> list[int]:
        """Ids of content. Lone surrogates, which no tokenizer takes, become U+FFFD."""
        return self.vocabulary.encode(_clean(text), start=self.space_prefix)

    def encode_control(self, text: str) -> list[int]:
        """Ids of template text: added tokens are recognised. Never give it what came from outside."""
        return self._control(_clean(text), self.space_prefix)

    def encode_pieces(self, pieces: Iterable[PieceLike]) -> list[list[int]]:
        """Ids of each piece of a rendered template, as one text would have them at its joints."""
        out: list[list[int]] = []
        start = self.space_prefix
        for piece in pieces:
            text = _clean(piece.text)
            ids = self._control(text, start) if piece.control else self.vocabulary.encode(text, start=start)
            if ids:
                start = self.space_prefix and ids[-1] in self.added
            out.append(ids)
        return out

    def _control(self, text: str, start: bool) -> list[int]:
        if self._pattern is None:
            return self.vocabulary.encode(text, start=start)
        ids: list[int] = []
        at = 0
        for found in self._pattern.finditer(text):
            if found.start() > at:
                ids += self.vocabulary.encode(text[at : found.start()], start=start)
            ids.append(self._by_text[found[found.lastindex or 0]])
            at, start = found.end(), self.space_prefix
        if at < len(text):
            ids += self.vocabulary.encode(text[at:], start=start)
        return ids

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token stands for; an added token's are its own text."""
        found = self.added.get(token)
        return self.vocabulary.token_bytes(token) if found is None else found.text.encode()

    def visible_bytes(self, token: int) -> bytes:
        """As `token_bytes`, but control tokens have none. Ids outside the vocabulary neither."""
        found = self.added.get(token)
        if found is not None:
            return b"" if found.control else found.text.encode()
        return self.vocabulary.token_bytes(token) if 0 <= token < self.vocab_size else b""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, control tokens left out; bytes that are not UTF-8 become U+FFFD."""
        stream = self.stream()
        return "".join([stream.push(i) for i in ids]) + stream.flush()

    def stream(self) -> Stream:
        """A decoder that is fed one id after another."""
        return Stream(self)


class Stream:
    """Incremental decoding: what is not yet whole UTF-8 is held back until it is, or until `flush`."""

    __slots__ = ("_decoder", "_skip_space", "_tokenizer")

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._skip_space = tokenizer.space_prefix

    def push(self, token: int) -> str:
        """The text that became whole by this token; may be empty."""
        text = self._decoder.decode(self._tokenizer.visible_bytes(token))
        if self._skip_space and text:
            self._skip_space = False
            return text.removeprefix(" ")
        return text

    def flush(self) -> str:
        """What is still held back, broken characters as U+FFFD. The stream can be used again."""
        text = self._decoder.decode(b"", True)
        self._decoder.reset()
        return text


def _clean(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
