"""The running path of headings while a document is read.

What: an `Outline` turns "a heading of this level" into the path of headings that the next blocks stand under.
Invariant: a path holds at most one heading a level, outermost first.
Interface: `outline.enter(level, text) -> path`, `outline.path`.
"""

from __future__ import annotations

MAX_HEADING = (
    200  # characters of a heading that are repeated in paths; the heading's own block holds all of it
)


class Outline:
    """Levels may skip (an h4 below an h1) and need not start at 1."""

    def __init__(self) -> None:
        self._open: list[tuple[int, str]] = []

    @property
    def path(self) -> tuple[str, ...]:
        """The headings that are open now."""
        return tuple(text for _, text in self._open)

    def enter(self, level: int, text: str) -> tuple[str, ...]:
        """Close every heading of this level or deeper, open this one, and return the path."""
        while self._open and self._open[-1][0] >= level:
            self._open.pop()
        self._open.append((level, " ".join(text.split())[:MAX_HEADING]))
        return self.path
