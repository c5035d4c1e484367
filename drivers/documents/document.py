"""What a parsed document is.

What: a `Document` is a title and ordered `Block`s; each block is verbatim text of one kind, under a path of
    headings, and knows for every line of its text the source line (or page) on which that line stands.
Invariant: blocks are in source order and hold all the text that the document shows; `len(places)` is the
    number of lines of `text`; no block is blank.
Interface: `Document`, `Block`, `describe` (a span as people write it: "lines 10-24", "page 3"),
    `to_json` and `from_json` (how a parse crosses a process border; never pickle).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

Kind = Literal["heading", "paragraph", "code", "table", "list"]
Unit = Literal["line", "page", "paragraph", "slide", "row", "chapter"]
KINDS: frozenset[str] = frozenset(get_args(Kind))


@dataclass(frozen=True, slots=True)
class Block:
    """A heading, paragraph, code block, table or list, with the source line or page of each of its lines."""

    kind: Kind
    text: str
    places: tuple[int, ...]
    path: tuple[str, ...] = ()  # the headings above it, outermost first; a heading's own text comes last

    def __post_init__(self) -> None:
        if len(self.places) != self.text.count("\n") + 1:
            raise ValueError(f"{len(self.places)} places for {self.text.count(chr(10)) + 1} lines")


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file; `notes` says what a reader should know about how it was read (bytes replaced, …)."""

    title: str
    unit: Unit
    blocks: tuple[Block, ...]
    notes: tuple[str, ...] = ()


def describe(unit: Unit, first: int, last: int) -> str:
    """A span as people write it: "line 7", "lines 10-24", "page 3"."""
    return f"{unit} {first}" if first == last else f"{unit}s {first}-{last}"


def to_json(document: Document) -> dict[str, Any]:
    """The document as plain JSON values."""
    return {
        "title": document.title,
        "unit": document.unit,
        "notes": list(document.notes),
        "blocks": [[b.kind, b.text, list(b.places), list(b.path)] for b in document.blocks],
    }


def from_json(value: dict[str, Any]) -> Document:
    """The inverse of `to_json`; ValueError, TypeError or KeyError where the value is something else."""
    blocks = []
    for kind, text, places, path in value["blocks"]:
        if kind not in KINDS:
            raise ValueError(f"no such kind of block: {kind!r}")
        blocks.append(Block(kind, str(text), tuple(int(p) for p in places), tuple(str(h) for h in path)))
    unit = value["unit"]
    if unit not in get_args(Unit):
        raise ValueError(f"no such unit: {unit!r}")
    return Document(str(value["title"]), unit, tuple(blocks), tuple(str(n) for n in value["notes"]))
