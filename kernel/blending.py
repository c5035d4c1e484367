"""How knowledge stands in a window that is put together: stored passages in front, what is asked about last.

What: rewrites the messages of a window, and says where its pieces end.
Invariant: before the first passage stands only what does not change from turn to turn, so that what was computed behind
    it serves all turns. Passages stand whole, in the order of their documents, with words that depend on nothing
    else: the same ones make the same pieces whatever is asked.
Interface: `blended(messages, question, passages) -> (messages, passages as they stand, pieces)`,
    `in_pieces(messages, passages)`, `ends(window, pieces)`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING

from llmos.kernel import grounding
from llmos.kernel.prompt import Message, Part
from llmos.kernel.recompute import arrange
from llmos.memory.window import Segment

if TYPE_CHECKING:
    from llmos.memory.volume import Passage


def blended(
    messages: Sequence[Message], question: str, passages: Sequence[Passage]
) -> tuple[list[Message], list[Passage], int]:
    """The messages of a window with its passages where they can be put together.

    Args:
        messages: whose last one has the passages' parts, and the question behind them.
        passages: as retrieval ranked them.

    Returns:
        The messages, the passages in the order in which they stand there, and how many of them are pieces.
    """
    ordered = sorted(passages, key=lambda p: (p.source, p.chunk_id))
    texts = [grounding.whole_text(p) for p in ordered]
    first, last = arrange(question, ordered, list(map(len, texts)))
    made = _standing(messages, [ordered[i] for i in first], [ordered[i] for i in last])
    return made, [ordered[i] for i in (*first, *last)], len(first)


def in_pieces(messages: Sequence[Message], passages: Sequence[Passage]) -> list[Message]:
    """The messages of a window in which each of these passages, in this order, is a piece."""
    return _standing(messages, passages, ())


def _standing(
    messages: Sequence[Message], first: Sequence[Passage], last: Sequence[Passage]
) -> list[Message]:
    """Some passages in front of everything that changes, some before the question."""
    *before, asked = (part for part in messages[-1].parts if part.kind != "knowledge")
    made = [
        *messages[:-1],
        replace(messages[-1], parts=(*before, *map(_part, last), asked)),
    ]
    front = next(i for i, message in enumerate(made) if message.role == "user")
    documents = (Part("user", "Documents:\n\n"), *map(_part, first))
    made[front] = replace(made[front], parts=(*documents, *made[front].parts))
    return made


def _part(passage: Passage) -> Part:
    text = f"{grounding.whole_text(passage)}\n\n"
    return Part("knowledge", text, passage.label, f"{passage.source}, {passage.position}")


def ends(window: Iterable[Segment], pieces: int) -> tuple[int, ...]:
    """Where the pieces end: what stands before the first passage, and the first `pieces` passages. Nowhere, where the
    template has mixed what it was given."""
    segments = list(window)
    places = [i for i, segment in enumerate(segments) if segment.kind == "knowledge"][:pieces]
    if not places or len(places) < pieces or places != list(range(places[0], places[0] + pieces)):
        return ()
    all_ends = list(accumulate(map(len, segments)))
    return (all_ends[places[0] - 1], *(all_ends[i] for i in places)) if places[0] else ()
