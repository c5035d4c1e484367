"""PDF, by PDFium.

What: the text of each page, in the file's own reading order, split into paragraphs; no layout model, no OCR.
Invariant: PDFium is native code fed with a stranger's bytes, so this module runs in the worker process only.
Interface: `parse_pdf(data, name) -> Document`; positions are pages. Raises DocumentError for a damaged or
    encrypted file and for one without a text layer (scanned pages).
"""

from __future__ import annotations

import re

import pypdfium2

from llmos.abi.errors import DocumentError
from llmos.abi.limits import MAX_EXPANDED_BYTES
from llmos.drivers.documents.document import Block, Document
from llmos.drivers.documents.outline import Outline

_NUMBERED = re.compile(r"(\d{1,2}(?:\.\d{1,2}){1,3})\.?\s+[A-Z][^.!?]{2,80}")
_LEADERS = re.compile(r"(\. ?){4,}|\s\d+$")  # of a table of contents


def parse_pdf(data: bytes, name: str) -> Document:
    """Read a PDF's text layer; the title is its metadata's, else `name`."""
    try:
        pdf = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise DocumentError(
                f"{name} is encrypted", why="it opens only with a password", do="save a copy without one"
            ) from None
        raise DocumentError(
            f"{name} is damaged",
            why=f"PDFium cannot open it ({error})",
            do="open and save it again, or leave it out",
        ) from None
    try:
        return _read(pdf, name)
    finally:
        pdf.close()


def _read(pdf: pypdfium2.PdfDocument, name: str) -> Document:
    blocks: list[Block] = []
    outline = Outline()
    damaged, size = [], 0
    for number in range(1, len(pdf) + 1):
        try:
            page = pdf[number - 1]
            text = page.get_textpage().get_text_range()
            page.close()
        except pypdfium2.PdfiumError:
            damaged.append(number)
            continue
        size += len(text)
        if size > MAX_EXPANDED_BYTES:
            raise DocumentError(
                f"{name} holds too much text",
                why=f"more than {MAX_EXPANDED_BYTES >> 20} MiB by page {number} of {len(pdf)}",
                do="split the file",
            )
        _add_page(text, number, blocks, outline)
    if not blocks:
        raise DocumentError(
            f"{name} holds no text",
            why=f"none of its {len(pdf)} pages has a text layer" + (" that can be read" if damaged else ""),
            do="run character recognition on it first",
        )
    title = " ".join(str(pdf.get_metadata_value("Title") or "").split()) or name
    notes = (f"damaged pages left out: {', '.join(map(str, damaged))}",) if damaged else ()
    return Document(title, "page", tuple(blocks), notes)


def _add_page(text: str, number: int, blocks: list[Block], outline: Outline) -> None:
    """Split a page at numbered headings, blank lines and lines that end a sentence short of the margin."""
    lines = [_clean(line) for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    width = max((len(line) for line in lines), default=0)
    part: list[str] = []

    def close() -> None:
        if part:
            blocks.append(Block("paragraph", "\n".join(part), (number,) * len(part), outline.path))
            part.clear()

    for line in lines:
        if not line:
            close()
            continue
        numbered = _NUMBERED.fullmatch(line)
        if numbered and not _LEADERS.search(line):
            close()
            path = outline.enter(numbered[1].count("."), line)
            blocks.append(Block("heading", line, (number,), path))
            continue
        part.append(line)
        if line[-1] in ".:!?" and len(line) < width * 0.8:
            close()
    close()


def _clean(line: str) -> str:
    """Without trailing space, NULs and PDFium's mark for a hyphen at a line's end (U+FFFE and U+0002)."""
    return line.replace("\ufffe", "-").replace("\x02", "-").replace("\x00", "").strip()
