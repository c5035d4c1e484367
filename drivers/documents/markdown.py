"""Markdown (CommonMark with tables), by markdown-it-py, which gives the line span of every block.

What: top-level structure: headings, paragraphs, fences, tables, lists and quotations, as written.
Invariant: block text is the verbatim source lines, so a citation can be found by searching for it.
Interface: `parse_markdown(text, name) -> Document`.
"""

from __future__ import annotations

from markdown_it import MarkdownIt

from llmos.drivers.documents.document import Block, Document, Kind
from llmos.drivers.documents.outline import Outline

_KINDS: dict[str, Kind] = {
    "paragraph_open": "paragraph",
    "blockquote_open": "paragraph",
    "fence": "code",
    "code_block": "code",
    "html_block": "paragraph",
    "table_open": "table",
    "bullet_list_open": "list",
    "ordered_list_open": "list",
}


def parse_markdown(text: str, name: str) -> Document:
    """Read Markdown; the title is the first heading, else `name`."""
    lines = text.split("\n")
    parser = MarkdownIt("commonmark", {"maxNesting": 32}).enable("table")
    tokens = parser.parse(text)
    outline = Outline()
    blocks: list[Block] = []
    done = 0  # lines before this one are in a block (or blank)

    def add(kind: Kind, start: int, end: int, path: tuple[str, ...]) -> None:
        while start < end and not lines[start].strip():
            start += 1
        while end > start and not lines[end - 1].strip():
            end -= 1
        if start < end:
            part = "\n".join(line.rstrip() for line in lines[start:end])
            blocks.append(Block(kind, part, tuple(range(start + 1, end + 1)), path))

    for i, token in enumerate(tokens):
        if token.level or token.map is None:
            continue
        start, end = token.map
        add("paragraph", done, start, outline.path)  # what yields no token: link definitions
        done = max(done, end)
        if token.type == "heading_open":
            words = tokens[i + 1].content.strip()
            if words:
                path = outline.enter(int(token.tag[1:]), words)
                places = tuple(range(start + 1, start + 2 + words.count("\n")))
                blocks.append(Block("heading", words, places, path))
        elif token.type in _KINDS:
            add(_KINDS[token.type], start, end, outline.path)
    add("paragraph", done, len(lines), outline.path)
    title = next((b.text for b in blocks if b.kind == "heading"), name)
    return Document(title, "line", tuple(blocks))
