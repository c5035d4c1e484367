"""Characters of a document that its reader does not see.

What: words in characters that no font draws, runs of invisible ones and overrides of the writing direction are named in
    brackets where they stand; single ones inside words (soft hyphens, break opportunities) go, so that the word is
    found as it is read.
Invariant: a block keeps its lines. What joins letters in scripts that write so, emoji and the direction of whole
    stretches stay.
Interface: `marked(document) -> Document`.
"""

from __future__ import annotations

from dataclasses import replace

from llmos.drivers.documents.document import Block, Document
from llmos.drivers.web.characters import reveal

NOTE = "it holds characters that nobody sees; they are named where they stand"


def marked(document: Document) -> Document:
    """The document with what nobody sees in it named; with a note where there was some."""
    if all(text.isascii() for block in document.blocks for text in (block.text, *block.path)):
        return document
    blocks = tuple(block for block in map(_block, document.blocks) if block.text.strip())
    told = any(_named(text) for block in document.blocks for text in block.text.split("\n"))
    notes = (*document.notes, NOTE) if told else document.notes
    return replace(document, title=_seen(document.title), blocks=blocks, notes=notes)


def _block(block: Block) -> Block:
    lines = [_seen(line) for line in block.text.split("\n")]
    return replace(block, text="\n".join(lines), path=tuple(map(_seen, block.path)))


def _seen(line: str) -> str:
    return "".join(f"[{why}: {words}]" if why and words else words for words, why in reveal(line))


def _named(line: str) -> bool:
    return any(why and words for words, why in reveal(line))
