"""Answers as they are drawn: markdown, block by block.

What: cuts a text that still grows into blocks that are finished and the one that is not, and paints a block.
Invariant: nothing is lost: what is no markdown, HTML too, is shown as it stands. Where a link leads is shown beside its
    words, pictures are links; nothing is fetched and no escape sequence but colours is written. A block that is out is
    never drawn again.
Interface: `Blocks`: `push(text) -> finished blocks`, `tail`, `close`; `painted(source, width, colour)`.
"""

from __future__ import annotations

import io
import os
from functools import cache
from typing import TYPE_CHECKING, Literal

from llmos.drivers.terminal import neutralise

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

MAX_BLOCK = 20_000  # characters of one block, after which it is drawn as it stands: parsing takes time


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return (
        MarkdownIt("commonmark", {"html": False})
        .enable(["table", "strikethrough"])
        .disable(["image", "html_block"])
    )


class Blocks:
    """Of one answer."""

    def __init__(self) -> None:
        self._tail = ""

    @property
    def tail(self) -> str:
        """What is not finished yet."""
        return self._tail

    def push(self, text: str) -> list[str]:
        """More of the answer; the blocks that are finished with it."""
        self._tail += text
        if "\n" not in text and len(self._tail) < MAX_BLOCK:
            return []
        starts = [
            token.map[0]
            for token in _parser().parse(self._tail)
            if token.level == 0 and token.map and token.nesting >= 0
        ]
        lines = self._tail.splitlines(keepends=True)
        cut = starts[-1] if starts else 0
        if not cut and len(self._tail) >= MAX_BLOCK:
            cut = len(lines) - 1
        if not cut:
            return []
        done, self._tail = "".join(lines[:cut]), "".join(lines[cut:])
        return [done]

    def close(self) -> str:
        """The answer is over: what is left of it."""
        rest, self._tail = self._tail, ""
        return rest


def painted(source: str, width: int, *, colour: bool = True) -> str:
    """A block as lines for a terminal of that width, colours in it; without blanks at the ends of lines."""
    from rich.console import Console
    from rich.markdown import Markdown

    markdown = Markdown("", code_theme="ansi_dark", hyperlinks=False)
    markdown.parsed = _parser().parse(neutralise(source))
    out = io.StringIO()
    console = Console(
        file=out, force_terminal=True, width=max(width, 8), legacy_windows=False, highlight=False,
        color_system=depth() if colour else None, no_color=not colour,
    )  # fmt: skip
    console.print(markdown)
    return "\n".join(line.rstrip() for line in out.getvalue().strip("\n").split("\n"))


def depth() -> Literal["standard", "256", "truecolor"] | None:
    """How many colours the terminal says it has, as rich names them."""
    if os.environ.get("NO_COLOR"):
        return None
    if os.environ.get("COLORTERM", "") in ("truecolor", "24bit"):
        return "truecolor"
    return "256" if "256" in os.environ.get("TERM", "") else "standard"
