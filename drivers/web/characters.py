"""Characters that nobody sees: what they hide is shown, what they serve in real scripts is left alone.

What: finds zero-width characters inside words, runs of invisible ones (data in disguise), tag characters (ASCII that
    no font draws), runs of variation selectors, and overrides of the writing direction.
Invariant: nothing invisible is passed on as it is, and nothing is dropped unseen: it is shown as what it says, or
    counted. Joiners in emoji and in the scripts that write with them, flags, and single break opportunities stay
    what they are to a reader: nothing.
Interface: `reveal(text) -> [(words, reason)]`, where reason "" is plain text.
"""

from __future__ import annotations

import re
import unicodedata

ZERO_WIDTH = "\u200b\u200c\u200d\u2060\u2061\u2062\u2063\u2064\ufeff\u180e\u034f\u115f\u1160\u3164\uffa0"
_MARKS = (
    "\u200e\u200f\u061c\u2066\u2067\u2068\u2069\u202a\u202b\u202c\u00ad"  # directions, soft hyphens: as meant
)
_OVERRIDES = "\u202d\u202e"
_TAGS = "\U000e0000-\U000e007f"
_SELECTORS = "\ufe00-\ufe0f\U000e0100-\U000e01ef"
_ODD = re.compile(f"[{ZERO_WIDTH}{_MARKS}{_OVERRIDES}{_TAGS}{_SELECTORS}]+")
_FLAG = re.compile("\U0001f3f4[\U000e0061-\U000e007a\U000e0030-\U000e0039]{2,6}\U000e007f")
_RUN = 4  # invisible characters side by side that are no accident any more

Pieces = list[tuple[str, str]]


def reveal(text: str) -> Pieces:
    """The text in pieces, each with what hides it, or ""."""
    if text.isascii() or not _ODD.search(text):
        return [(text, "")]
    flags = {match.start() + 1: match.end() for match in _FLAG.finditer(text)}
    pieces: Pieces = []
    at = 0
    for match in _ODD.finditer(text):
        begin, end = match.span()
        if flags.get(begin) == end:
            continue
        pieces.append((text[at:begin], ""))
        before, after = text[max(begin - 1, 0) : begin], text[end : end + 1]
        pieces += _shown(match[0], before, after)
        at = end
    pieces.append((text[at:], ""))
    return _merged(pieces)


def _shown(run: str, before: str, after: str) -> Pieces:
    """What a run of invisible characters comes to."""
    tags = "".join(chr(ord(c) - 0xE0000) for c in run if "\U000e0020" <= c <= "\U000e007e")
    if tags:
        return [(tags, "tag characters")]
    if any(c in _OVERRIDES for c in run):
        return [("reversed from here", "direction override")]
    selectors = [c for c in run if _is_selector(c)]
    if len(selectors) > 1:
        data = bytes(_selected(c) for c in selectors).decode("utf-8", "replace")
        words = data if data.isprintable() and "\ufffd" not in data else f"{len(selectors)} of them"
        return [(words, "variation selectors")]
    unseen = sum(c in ZERO_WIDTH or "\U000e0000" <= c <= "\U000e007f" for c in run)
    if unseen >= _RUN:
        return [(f"{unseen} of them", "zero-width characters")]
    if selectors or _joins(before) or _joins(after):
        return [(run, "")]  # an emoji's form, a joiner where the script has joiners
    if unseen and before.isalpha() and after.isalpha() and not (before.islower() and after.isupper()):
        return [("", "zero-width characters inside a word")]
    return []  # a place where a long word may break: to a reader, nothing


def _joins(character: str) -> bool:
    """Whether joiners are part of how this character is written."""
    return bool(character) and character > "\u0590" and unicodedata.category(character) in _JOINING


_JOINING = frozenset({"Lo", "Mn", "Mc", "So", "Sk"})


def _is_selector(character: str) -> bool:
    return "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef"


def _selected(character: str) -> int:
    """The byte that a variation selector stands for where they carry data."""
    code = ord(character)
    return code - 0xFE00 if code <= 0xFE0F else code - 0xE0100 + 16


def _merged(pieces: Pieces) -> Pieces:
    merged: Pieces = []
    for words, reason in pieces:
        if not reason and merged and not merged[-1][1]:
            merged[-1] = (merged[-1][0] + words, "")
        elif words or reason:
            merged.append((words, reason))
    return merged
