"""A window as a map.

What: a bar of letters, one for so many tokens, and a line for each stretch: pages, tokens, the last answer's attention
    where that is known, kind, label, source.
Invariant: the bar is as wide as the room; a stretch is never so small that it is not seen. Names that came from outside
    cannot touch the terminal.
Interface: `draw(regions, width, colour=…) -> lines`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from llmos.drivers.terminal import neutralise, table

if TYPE_CHECKING:
    from llmos.abi.labels import Label
    from llmos.abi.machine import Region

LETTERS = {"syscall": "c"}
COLOURS = {"system": 35, "user": 32, "assistant": 36, "syscall": 34, "result": 33, "knowledge": 31}  # ANSI


def draw(regions: Sequence[Region], width: int, *, colour: bool = False) -> list[str]:
    """The map, `width` columns wide."""
    if not regions:
        return ["no window yet: this process has not been asked anything since the kernel started"]
    end = regions[-1].start + regions[-1].tokens
    cells = max(width, len(regions))
    kinds: list[str] = []
    for region in regions:  # at least a cell each, the rest by size
        upto = round((region.start + region.tokens) * cells / end)
        kinds += [region.kind] * max(upto - len(kinds), 1)
    bar = "".join(
        _painted(LETTERS.get(kind, kind[:1]) * len(list(of)), kind, colour) for kind, of in groupby(kinds)
    )
    looked = any(region.attention is not None for region in regions)
    rows = [("PAGES", "TOKENS", *["ATTENTION"] * looked, "KIND", "LABEL", "SOURCE")]
    for region in regions:
        first, last = region.pages
        pages = str(first) if first == last else f"{first}-{last}"
        share = [f"{region.attention or 0:.0%}"] * looked
        label, source = _label(region.label), neutralise(region.source)
        rows.append((pages, str(region.tokens), *share, region.kind, label, source))
    return [bar, *table(rows), f"{end} tokens"]


def _painted(text: str, kind: str, colour: bool) -> str:
    return f"\x1b[{COLOURS.get(kind, 37)}m{text}\x1b[0m" if colour else text


def _label(label: Label) -> str:
    readers = "" if label.readers is None else f" for {', '.join(sorted(label.readers)) or 'nobody'}"
    return neutralise(label.integrity.name.lower() + readers)
