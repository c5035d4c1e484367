"""Plain text and reStructuredText.

What: both are paragraphs between blank lines, with headings drawn by a line of punctuation under (and in
    reStructuredText perhaps over) the text. This is structure, not rendering: directives, roles and
    substitutions stay as they are written, nothing is included and nothing is run.
Invariant: every line with anything on it belongs to exactly one block, verbatim but for trailing space.
Interface: `parse_plain(text, name) -> Document`.
"""

from __future__ import annotations

import re

from llmos.drivers.documents.document import Block, Document, Kind
from llmos.drivers.documents.outline import Outline

_RULE = re.compile(r"([=\-`:.'\"~^_*+#])\1{2,}")
_ITEM = re.compile(r"\s*([*+•-]|\d{1,3}[.)]|\(\d{1,3}\)|[a-zA-Z][.)])\s+\S")
_TABLE = re.compile(r"\s*(\+[-=+]{3,}\+|={2,}(\s+={2,})+|-{3,}(\s+-{3,})+|\|.*\|)\s*")
_MAX_HEADING = 160  # characters; a longer line over a rule is a paragraph with a rule below it


def parse_plain(text: str, name: str) -> Document:
    """Read plain text or reStructuredText; the title is the first heading, else `name`."""
    lines = [line.rstrip() for line in text.expandtabs(8).split("\n")]
    blocks: list[Block] = []
    outline = Outline()
    styles: list[tuple[str, bool]] = []  # heading styles in order of first use: that is their level
    i = 0
    while i < len(lines):
        if not lines[i]:
            i += 1
            continue
        found = _heading(lines, i)
        if found is not None:
            style, at, end = found
            if style not in styles:
                styles.append(style)
            path = outline.enter(styles.index(style), lines[at])
            blocks.append(Block("heading", lines[at].strip(), (at + 1,), path))
            i = end
            continue
        start = i
        i += 1
        while i < len(lines) and lines[i] and _heading(lines, i) is None:
            i += 1
        part = lines[start:i]
        literal = bool(blocks) and blocks[-1].text.endswith("::")
        blocks.append(
            Block(_kind(part, literal), "\n".join(part), tuple(range(start + 1, i + 1)), outline.path)
        )
    title = next((b.text for b in blocks if b.kind == "heading"), name)
    return Document(title, "line", tuple(blocks))


def _heading(lines: list[str], i: int) -> tuple[tuple[str, bool], int, int] | None:
    """The heading that begins at line i: (its style, the line with its text, the line after it)."""

    def rule(k: int) -> str:
        return lines[k][0] if k < len(lines) and _RULE.fullmatch(lines[k]) else ""

    if rule(i):  # over and under
        over = i + 2 < len(lines) and lines[i + 1] and not rule(i + 1) and lines[i + 2] == lines[i]
        if over and len(lines[i + 1].strip()) <= len(lines[i]):
            return (rule(i), True), i + 1, i + 3
        return None
    fits = i == 0 or not lines[i - 1] or bool(_RULE.fullmatch(lines[i - 1]))
    fits = fits and not lines[i][0].isspace() and len(lines[i]) <= _MAX_HEADING
    if fits and rule(i + 1) and len(lines[i + 1]) >= len(lines[i]) * 0.8:
        return (rule(i + 1), False), i, i + 2
    return None


def _kind(part: list[str], literal: bool) -> Kind:
    if sum(bool(_TABLE.fullmatch(line)) for line in part) * 2 > len(part):
        return "table"
    indented = all(line.startswith("   ") for line in part)
    if literal and indented:
        return "code"
    return "list" if _ITEM.match(part[0]) else "paragraph"
