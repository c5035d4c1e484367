"""Byte-pair encoding, with nothing to build before the first word.

What: the merge loop of both kinds of vocabulary in GGUF files: ranked merges over bytes (GPT-2's kind) and
    scored pieces over characters (SentencePiece's kind).
Invariant: equals the reference implementations id for id (tests bind it to `tokenizers` and to recorded ids
    of llama.cpp). Time is O(n log n) in a word's length, whatever the word.
Interface: `merge(symbols, rank)`; `BYTE_SYMBOLS`, `symbol_bytes` map bytes to GPT-2's printable alphabet and
    back.

Why not the library's own model: it wants all 151,000 tokens and merges as Python objects first, 0.4 s of
every start; two dictionaries of byte strings straight from the map take a seventh of that, and words are
remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush


def _alphabet() -> list[str]:
    """GPT-2's printable stand-in for each byte: itself where it prints, else one from 256 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(spare)) for b in range(256)]


_LETTERS = _alphabet()
_BYTE_OF = {letter: byte for byte, letter in enumerate(_LETTERS)}
# Letters to bytes as Latin-1 text. What is no letter of the alphabet goes where Latin-1 cannot follow.
_TO_LATIN = dict.fromkeys(range(256), "\uffff") | {ord(letter): chr(b) for letter, b in _BYTE_OF.items()}
BYTE_SYMBOLS = tuple(letter.encode() for letter in _LETTERS)  # of byte 0, 1, ... 255, as UTF-8


def symbol_bytes(token: bytes) -> bytes:
    """The bytes that a token in the printable alphabet stands for; other characters stand for themselves."""
    text = token.decode("utf-8", "replace")
    try:
        return text.translate(_TO_LATIN).encode("latin-1")
    except UnicodeEncodeError:
        pass  # it holds characters that are none of the alphabet's
    out = bytearray()
    for letter in text:
        byte = _BYTE_OF.get(letter)
        out += letter.encode() if byte is None else bytes((byte,))
    return bytes(out)


def merge(symbols: Sequence[bytes], rank: Callable[[bytes, bytes], float | None]) -> list[bytes]:
    """Join neighbours, the lowest `rank` first and of equals the leftmost, until no pair has one."""
    parts: list[bytes | None] = list(symbols)
    after = list(range(1, len(parts) + 1))
    before = list(range(-1, len(parts) - 1))
    heap: list[tuple[float, int, bytes, bytes]] = []
    for i in range(len(parts) - 1):
        left, right = symbols[i], symbols[i + 1]
        if (r := rank(left, right)) is not None:
            heap.append((r, i, left, right))
    heapify(heap)
    size = len(parts)
    while heap:
        _, i, left, right = heappop(heap)
        j = after[i]
        # An entry is stale once either side has been merged into something else.
        if parts[i] != left or j >= size or parts[j] != right:
            continue
        parts[i], parts[j] = (joined := left + right), None
        after[i] = k = after[j]
        if k < size:
            before[k] = i
            if (other := parts[k]) is not None and (r := rank(joined, other)) is not None:
                heappush(heap, (r, i, joined, other))
        if (
            (h := before[i]) >= 0
            and (other := parts[h]) is not None
            and (r := rank(other, joined)) is not None
        ):
            heappush(heap, (r, h, other, joined))
    return [part for part in parts if part is not None]
