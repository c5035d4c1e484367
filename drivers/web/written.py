"""A page as it is written for a reader: its text, links, fields and buttons.

What: what a `writing.Writer` leaves.
Invariant: no text of a page holds `OPEN` or `CLOSE`: what stands between them was hidden from a person's eyes.
Interface: `Written`, `Link`, `Control`; `OPEN`, `CLOSE`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

OPEN, CLOSE = "⟦", "⟧"


@dataclass(frozen=True, slots=True)
class Link:
    """A link: `[L3]` in the text."""

    number: int
    words: str
    url: str

    @property
    def name(self) -> str:
        """As the text shows it."""
        return f"L{self.number}"


@dataclass(frozen=True, slots=True)
class Control:
    """A field `[F1 …]` or a button `[B1 …]`; `node` says which element it is, to whoever told it, -1 unknown."""

    name: str
    kind: str  # text, password, choice, check, button, ...
    words: str
    node: int = -1


@dataclass(frozen=True, slots=True)
class Written:
    """A page in text. `blocks` are in reading order; `marked` counts the stretches of hidden text; `link_nodes` are
    the elements of links, by number."""

    title: str
    blocks: tuple[str, ...]
    links: tuple[Link, ...]
    controls: tuple[Control, ...]
    marked: int
    visible: int  # characters that a person sees
    link_nodes: Mapping[int, int] = field(default_factory=dict)
