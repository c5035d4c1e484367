"""What free text must not hold: patterns of bytes, kept out token by token.

What: `Unsaid` follows a text and takes out of a mask the tokens that would complete one of its patterns.
Invariant: a text from which no token was taken that was out of the mask holds no pattern, wherever its tokens meet;
    a token is out only where it completes one.
Interface: `Pattern`; `Words(tokens, control)`, a vocabulary in order; `Unsaid(patterns, words)`: `.start`,
    `.after(state, token)`, `.withhold(state, mask)`.

llguidance could do the same with the complement of a regular expression, but behind a complement it cannot see that
the plain words of a vocabulary are all allowed, and walks through them for every mask: milliseconds. Here a mask costs
what its state withholds, mostly nothing: a token is out where it begins with the rest of a pattern that the text is in.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Pattern = tuple[str, ...]
"""Letters, with any blanks between one part and the next."""

BLANKS = b" \t\n\r\f\v"


class Words:
    """The tokens of a vocabulary in the order of their bytes."""

    def __init__(self, tokens: Sequence[bytes], control: Sequence[int]) -> None:
        """`tokens` by id; those of `control` are no text, and empty ones are nothing."""
        none = frozenset(control)
        self.text = [b"" if i in none else token for i, token in enumerate(tokens)]
        ids = sorted((i for i, token in enumerate(self.text) if token), key=self.text.__getitem__)
        self._ids, self._sorted = np.array(ids, np.int64), [self.text[i] for i in ids]
        self._all = b"\0".join(self._sorted)

    def beginning(self, prefix: bytes) -> NDArray[np.int64]:
        """The ids of the tokens that begin with `prefix`."""
        low = bisect_left(self._sorted, prefix)
        high = bisect_left(self._sorted, prefix + b"\xff" * 8, low)
        return self._ids[low:high]

    def holding(self, part: bytes) -> Iterator[int]:
        """The ids of the tokens that hold `part`."""
        if part in self._all:  # rarely, so the others need not be looked at one by one
            yield from (int(i) for i, token in zip(self._ids, self._sorted, strict=True) if part in token)


class Unsaid:
    """Patterns that a text must not hold.

    A state is a set of places in patterns, as the bits of an integer: the text so far ends with all that stands before
    that place. Blanks are a place that may be stayed at or skipped; the last place of a pattern has no way on.
    Source of the method: Baeza-Yates and Gonnet 1992, A New Approach to Text Searching.
    """

    def __init__(self, patterns: Sequence[Pattern], words: Words) -> None:
        self._words = words
        self._places: list[bytes] = []  # the bytes that lead on from each; none from a pattern's end
        self._blank = self._end = self.start = 0
        for parts in patterns:
            self.start |= 1 << len(self._places)
            for i, part in enumerate(parts):
                if i:
                    self._blank |= 1 << len(self._places)
                    self._places.append(BLANKS)
                self._places += [bytes([byte]) for byte in part.encode()]
            self._end |= 1 << len(self._places)
            self._places.append(b"")
        self._on = [0] * 256  # by byte: the places that it leads on from
        for place, on in enumerate(self._places):
            for byte in on:
                self._on[byte] |= 1 << place
        self._whole = {
            i
            for first in {parts[0].encode() for parts in patterns}
            for i in words.holding(first)
            if self.after(self.start, i) is None
        }
        self._withheld: dict[int, tuple[NDArray[np.int64], NDArray[np.uint32]]] = {}

    def after(self, state: int, token: int) -> int | None:
        """The state behind `token`; None where it completes a pattern. A control token is no text."""
        for byte in self._words.text[token]:
            state = self._step(state, byte) | self.start
            if state & self._end:
                return None
        return state

    def withhold(self, state: int, mask_W: NDArray[np.uint32]) -> None:
        """Take out of `mask_W` (bit i of word j for token 32 j + i) what would complete a pattern."""
        if state not in self._withheld:
            self._withheld[state] = self._out(state)
        at, keep = self._withheld[state]
        mask_W[at] &= keep

    def _step(self, state: int, byte: int) -> int:
        led = state & self._on[byte]
        led = (led & self._blank) | (led & ~self._blank) << 1
        return led | (led & self._blank) << 1

    def _out(self, state: int) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
        """The words of a mask in which tokens are withheld, and what is left of each."""
        out, under_way = [np.array(sorted(self._whole), np.int64)], [(b"", state & ~self.start)]
        while under_way:
            prefix, places = under_way.pop()
            for byte in {byte for place in _bits(places) for byte in self._places[place]}:
                longer = prefix + bytes([byte])
                tokens, led = self._words.beginning(longer), self._step(places, byte)
                if led & self._end:
                    out.append(tokens)
                elif len(tokens):
                    under_way.append((longer, led))
        ids = np.unique(np.concatenate(out))
        at, first = np.unique(ids // 32, return_index=True)
        bits = np.left_shift(np.uint32(1), (ids % 32).astype(np.uint32))
        return at, ~np.bitwise_or.reduceat(bits, first) if len(ids) else bits


def _bits(places: int) -> Iterator[int]:
    while places:
        lowest = places & -places
        yield lowest.bit_length() - 1
        places ^= lowest
