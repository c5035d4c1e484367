"""Cutting bytes into what a model can read and what it cannot.

What: stretches of bytes that are text and come back from the model's tokens as they were, and the rest between them.
Invariant: the blocks, joined, are the bytes; the tokens of a block, turned to bytes, are the block. Nothing is assumed
    of a tokenizer: one that changes text (case, accents, blanks) reads none of what it would change.
Interface: `cut(data, tokenizer) -> [Block]`, `spelled(tokens, tokenizer)`, `start(tokenizer)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmos.drivers.weights import Tokenizer

PIECE = 1 << 13  # bytes that are looked at together
SMALLEST = 128  # bytes: a shorter stretch of text among others is not worth a beginning of its own


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of bytes; with tokens where a model can read it."""

    data: bytes
    tokens: tuple[int, ...] = ()


def cut(data: bytes, tokenizer: Tokenizer) -> list[Block]:
    """The blocks of `data`."""
    joined: list[tuple[bytearray, bool]] = []
    for piece, text in _pieces(data, tokenizer):
        if joined and joined[-1][1] == text:
            joined[-1][0].extend(piece)
        else:
            joined.append((bytearray(piece), text))
    merged: list[tuple[bytearray, bool]] = []
    for stretch, text in joined:
        text = text and (len(stretch) >= SMALLEST or len(joined) == 1)
        if merged and not text and not merged[-1][1]:
            merged[-1][0].extend(stretch)
        else:
            merged.append((stretch, text))
    return [Block(bytes(s), _tokens(bytes(s), tokenizer) if text else ()) for s, text in merged]


def spelled(tokens: Sequence[int], tokenizer: Tokenizer) -> bytes:
    """The bytes of tokens."""
    known = tokenizer.vocab_size  # a model may have a wider output than there are tokens
    return b"".join(tokenizer.token_bytes(token) if token < known else b"" for token in tokens)


def start(tokenizer: Tokenizer) -> int:
    """The token that documents begin behind: a separator of documents, else what begins or ends a text."""
    found = tokenizer.control_id("<|endoftext|>")
    if found is None:
        found = tokenizer.bos_id
    return min(tokenizer.eos_ids, default=0) if found is None else found


def _pieces(data: bytes, tokenizer: Tokenizer) -> Iterator[tuple[bytes, bool]]:
    """Pieces in order, and whether each is text."""
    at = 0
    while at < len(data):
        end = _end(data, at)
        yield from _halves(data[at:end], tokenizer)
        at = end


def _end(data: bytes, at: int) -> int:
    """Where a piece that begins at `at` ends: behind a line if there is one, and never within a character."""
    if len(data) - at <= PIECE:
        return len(data)
    end = data.rfind(b"\n", at, at + PIECE) + 1
    return end if end > at else _character(data, at + PIECE)


def _character(data: bytes, at: int) -> int:
    """`at`, or a little before it, where a character of UTF-8 begins."""
    for back in range(4):
        if data[at - back] & 0xC0 != 0x80:
            return at - back
    return at


def _halves(piece: bytes, tokenizer: Tokenizer) -> Iterator[tuple[bytes, bool]]:
    """A piece that is no text may have a half that is one."""
    if _tokens(piece, tokenizer):
        yield piece, True
    elif len(piece) < 2 * SMALLEST:
        yield piece, False
    else:
        middle = _character(piece, len(piece) // 2)
        yield from _halves(piece[:middle], tokenizer)
        yield from _halves(piece[middle:], tokenizer)


def _tokens(data: bytes, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Tokens that spell `data`, or none. No space is put before it, whatever the vocabulary's habit."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return ()
    tokens = tokenizer.vocabulary.encode(text, start=False)
    return tuple(tokens) if spelled(tokens, tokenizer) == data else ()
