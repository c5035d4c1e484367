"""A long page in parts that a window can hold.

What: joins a page's blocks into parts of a size, at the borders of blocks where that is possible.
Invariant: the parts hold every block, in order; what is split goes on in the next part, and a mark of hidden text
    that is split stands around both pieces.
Interface: `parts(blocks, size) -> [str]`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from llmos.drivers.web.written import CLOSE, OPEN

_MARK = re.compile(rf"{OPEN}hidden \([^)]*\): ")


def parts(blocks: Iterable[str], size: int) -> list[str]:
    """At least one part; each of at most `size` characters and a mark's."""
    made: list[str] = []
    now = ""
    for block in blocks:
        for piece in _pieces(block, size):
            if now and len(now) + 2 + len(piece) > size:
                made.append(now)
                now = piece
            else:
                now = f"{now}\n\n{piece}" if now else piece
    return [*made, now] if now or not made else made


def _pieces(block: str, size: int) -> Iterator[str]:
    """A block, cut where a line, a sentence or a word ends if it is too long."""
    mark = ""
    while block:
        if len(mark) + len(block) <= size:
            yield mark + block
            return
        room = max(size - len(mark), 1)
        cut = max(block.rfind(end, room // 2, room) + len(end) for end in ("\n", ". ", " "))
        cut = cut if cut > room // 2 else room
        piece, block = mark + block[:cut], block[cut:]
        begun, ended = piece.rfind(OPEN), piece.rfind(CLOSE)
        found = _MARK.match(piece, begun) if begun > ended else None
        mark = found[0] if found else ""
        yield piece + CLOSE if found else piece
