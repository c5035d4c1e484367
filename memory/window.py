"""The window: a process's context, its RAM.

What: typed segments of tokens under one hard budget, laid out in the order in which the model reads them.
Invariant: `used <= budget`, always; nothing is cut: what does not fit raises WindowOverflow and changes
    nothing. Segments keep their order of arrival, so what was computed for the beginning of a window stays true
    when something is added to its end.
Interface: `Window(budget)`, `.add(segment)`, `.remove(segment)`, `.fits(tokens)`, `.used`, `.free`, `.taint`,
    `.segments`, `.tokens`, `.offset(segment)`. Pure Python; the pages of a segment are the kernel's affair.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from llmos.abi.errors import WindowOverflow
from llmos.abi.labels import USER, Label, join

SegmentKind = Literal["system", "user", "assistant", "syscall", "result", "knowledge"]


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """A stretch of the window.

    Args:
        kind: what it is.
        tokens: token ids, control tokens of the template included.
        label: where its bytes came from and who may read them.
        pin: it never leaves.
        value: what it is worth to the question at hand; the least valuable knowledge leaves first.
        source: for people: a file and position, a syscall's name, or "".
    """

    kind: SegmentKind
    tokens: tuple[int, ...] = field(repr=False)
    label: Label = USER
    pin: bool = False
    value: float = 0.0
    source: str = ""

    def __len__(self) -> int:
        return len(self.tokens)


class Window:
    """Segments under a hard budget of tokens."""

    def __init__(self, budget: int) -> None:
        if budget < 1:
            raise ValueError("a window needs room for at least one token")
        self.budget = budget
        self._segments: list[Segment] = []
        self._used = 0

    def __len__(self) -> int:
        return len(self._segments)

    def __iter__(self) -> Iterator[Segment]:
        return iter(self._segments)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """All segments, in the order in which the model reads them."""
        return tuple(self._segments)

    @property
    def used(self) -> int:
        """Tokens in the window."""
        return self._used

    @property
    def free(self) -> int:
        """Tokens that still fit."""
        return self.budget - self._used

    @property
    def tokens(self) -> list[int]:
        """The whole window as the model reads it."""
        return [token for segment in self._segments for token in segment.tokens]

    @property
    def taint(self) -> Label:
        """The label of anything that is written after reading this window."""
        return join(segment.label for segment in self._segments)

    def fits(self, tokens: int) -> bool:
        """Whether so many more tokens fit."""
        return tokens <= self.free

    def add(self, *segments: Segment) -> None:
        """Put segments into the window, all or none.

        Raises:
            WindowOverflow: they do not fit; the window is as before.
            ValueError: one is in the window already, or is given twice.
        """
        size = sum(len(segment) for segment in segments)
        if not self.fits(size):
            raise self._overflow(segments, size)
        if len({id(s) for s in (*self._segments, *segments)}) != len(self._segments) + len(segments):
            raise ValueError("a segment stands in a window once")
        self._segments.extend(segments)
        self._used += size

    def remove(self, segment: Segment) -> None:
        """Take a segment out. ValueError: it is pinned, or not in the window."""
        if segment.pin:
            raise ValueError(f"a pinned {segment.kind} segment never leaves the window")
        del self._segments[self._index(segment)]
        self._used -= len(segment)

    def offset(self, segment: Segment) -> int:
        """The place of a segment's first token. ValueError: it is not in the window."""
        return sum(len(before) for before in self._segments[: self._index(segment)])

    def _index(self, segment: Segment) -> int:
        for index, present in enumerate(self._segments):
            if present is segment:
                return index
        raise ValueError(f"no such {segment.kind} segment in this window")

    def _overflow(self, segments: Iterable[Segment], size: int) -> WindowOverflow:
        kinds = " and ".join(dict.fromkeys(segment.kind for segment in segments))
        most = max(self._segments, key=len, default=None)
        held = f", {len(most)} of them by the largest, a {most.kind} segment" if most is not None else ""
        knowledge = sum(len(s) for s in self._segments if s.kind == "knowledge")
        do = "retrieve fewer passages" if knowledge else "shorten the text"
        return WindowOverflow(
            f"{size} tokens of {kinds} do not fit the window",
            why=f"{self._used} of its {self.budget} tokens are used{held}; {self.free} are free",
            do=f"{do}, or give the process a larger window",
        )
