"""From text that is still being written to sentences that can be said.

What: cuts a stream of text where a sentence is certainly over, and takes out what is written but not said (markup,
    addresses, code).
Invariant: pieces come out in order and are complete: put together they are all the words that went in. A piece has at
    most `LONGEST` characters.
Interface: `Sentences().feed(text) -> list[str]`, `.rest()`; `sentences(text)`; `sayable(text)`.
"""

from __future__ import annotations

import re

LONGEST = 400  # characters of one piece; voices lose their breath beyond
_SHORTEST = 3  # letters of a piece that is said by itself
_END = re.compile(
    r"""(?:[.!?…]+["'”’)\]*_`]*(?=\s)|[。！？]+["”』」]*|\n\s*\n|\n(?=\s*(?:[-*•#]|\d+[.)]\s)))\s*"""
)
_ABBREVIATIONS = frozenset(
    "mr mrs ms dr prof st jr sr vs etc no nos fig figs eq ca approx dept inc ltd co corp e.g i.e cf al jan feb mar apr "
    "jun jul aug sep sept oct nov dec vol p pp".split()
)
_SOFT = re.compile(r"[,;:—]\s|\s")

_MARKUP = (
    (re.compile(r"```.*?(?:```|$)", re.DOTALL), " "),  # code
    (re.compile(r"!?\[([^\]]*)\]\([^)]*\)"), r"\1"),  # links
    (re.compile(r"https?://([^\s/)]+)\S*"), r"\1"),  # addresses: their host is enough
    (re.compile(r"\s*\[\d+\]"), ""),  # citations
    (re.compile(r"^\s*(?:#{1,6}|[-*•>])\s+", re.MULTILINE), ""),
    (re.compile(r"^\s*\|?[-:|\s]{3,}\|?\s*$", re.MULTILINE), ""),  # the rule of a table
    (re.compile(r"[*`~|]+|(?<!\w)_+|_+(?!\w)"), " "),
)


class Sentences:
    """Takes text as it comes."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> list[str]:
        """Add text; the sentences that are over now."""
        self._held += text
        out: list[str] = []
        at = 0
        for end in _END.finditer(self._held):
            # What ends the text so far may go on ("3." and "14"), and code is not over before its fence is.
            if end.end() == len(self._held) and not end[0].endswith(("\n\n", "。", "！", "？")):
                break
            piece = self._held[at : end.end()]
            if _abbreviates(piece) or piece.count("```") % 2 or sum(map(str.isalnum, piece)) < _SHORTEST:
                continue
            out += _short(piece)
            at = end.end()
        self._held = self._held[at:]
        return out

    def rest(self) -> list[str]:
        """What is left, now that nothing more comes."""
        held, self._held = self._held, ""
        return _short(held)


def sentences(text: str) -> list[str]:
    """The sentences of a whole text."""
    cutter = Sentences()
    return [*cutter.feed(text), *cutter.rest()]


def sayable(text: str) -> str:
    """`text` without what is only for the eye; "" where there is nothing to say."""
    for pattern, by in _MARKUP:
        text = pattern.sub(by, text)
    text = " ".join(text.split())
    return text if any(map(str.isalnum, text)) else ""


def _abbreviates(piece: str) -> bool:
    """Whether the full stop at a piece's end belongs to its last word: a title, an initial, a numbered item."""
    words = piece.rstrip().split()
    if not words or not words[-1].endswith(".") or "\n" in piece[len(piece.rstrip()) :]:
        return False
    last = words[-1].rstrip(".").lstrip("(\"'“‘")
    return (
        last.lower() in _ABBREVIATIONS
        or bool(re.fullmatch(r"[A-Z]", last))
        or bool(len(words) == 1 and re.fullmatch(r"\d{1,3}", last))
    )


def _short(piece: str) -> list[str]:
    """A piece within `LONGEST`, cut behind commas, else between words, else anywhere."""
    out, piece = [], piece.strip()
    while len(piece) > LONGEST:
        cuts = [m.end() for m in _SOFT.finditer(piece, LONGEST // 2, LONGEST)]
        marks = [cut for cut in cuts if piece[: cut - 1].endswith((",", ";", ":", "—"))]
        at = (marks or cuts or [LONGEST])[-1]
        out.append(piece[:at].strip())
        piece = piece[at:].strip()
    return [*out, piece] if piece else out
