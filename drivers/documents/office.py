"""Word processor documents (docx) and slides (pptx).

What: docx: headings by style, paragraphs, lists and tables in the order of the page; pptx: each slide's title,
    text, tables and the speaker's notes.
Invariant: what a reader of the page does not see (hidden text, hidden slides) is marked, never passed off as the page's
    own; nothing that a file refers to is fetched. Places are paragraphs of the body, or slides.
Interface: `parse_docx(data, name)`, `parse_pptx(data, name)` -> Document.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from typing import Any

from llmos.abi.errors import DocumentError
from llmos.drivers.documents.archive import check_archive, library
from llmos.drivers.documents.document import Block, Document, Kind
from llmos.drivers.documents.outline import Outline

HIDDEN = "[hidden text: {}]"
_HEADING = re.compile(r"(?:heading|title|überschrift|titre|título)\s*(\d)?", re.IGNORECASE)
_SPACE = re.compile(r"[ \t]+")


def parse_docx(data: bytes, name: str) -> Document:
    """Read a docx; the title is its first heading, else `name`."""
    check_archive(data, name)
    docx = library("docx", name)
    return _sound(name, lambda: _document(docx.Document(io.BytesIO(data)), name))


def parse_pptx(data: bytes, name: str) -> Document:
    """Read a pptx; the title is the first slide's, else `name`."""
    check_archive(data, name)
    pptx = library("pptx", name)
    return _sound(name, lambda: _slides(pptx.Presentation(io.BytesIO(data)), name))


def _sound(name: str, read: Callable[[], Document]) -> Document:
    try:
        return read()
    except DocumentError:
        raise
    except Exception as error:  # these libraries raise whatever their input provokes
        raise DocumentError(
            f"{name} is damaged", why=f"not a sound document ({type(error).__name__}: {error})", do="save it again"
        ) from None  # fmt: skip


def _document(source: Any, name: str) -> Document:
    blocks: list[Block] = []
    outline = Outline()
    for place, item in enumerate(source.iter_inner_content(), 1):
        if hasattr(item, "rows"):
            lines = list(dict.fromkeys(filter(None, map(_row, item.rows))))
            if lines:
                blocks.append(Block("table", "\n".join(lines), (place,) * len(lines), outline.path))
            continue
        text = _paragraph(item)
        if not text:
            continue
        style = (item.style.name if item.style is not None else "") or ""
        if found := _HEADING.match(style):
            path = outline.enter(int(found[1] or 0), text)
            blocks.append(Block("heading", " ".join(text.split()), (place,), path))
            continue
        kind: Kind = "list" if style.lower().startswith("list") else "paragraph"
        text = f"- {text}" if kind == "list" else text
        blocks.append(Block(kind, text, (place,) * (text.count("\n") + 1), outline.path))
    title = next((b.text for b in blocks if b.kind == "heading"), name)
    return Document(title, "paragraph", tuple(blocks))


def _paragraph(item: Any) -> str:
    """Its text, hidden runs marked."""
    parts = []
    for run in item.iter_inner_content():  # runs and hyperlinks
        font = getattr(run, "font", None)
        text = run.text
        parts.append(HIDDEN.format(text) if text.strip() and font is not None and font.hidden else text)
    return _clean("".join(parts))


def _row(row: Any) -> str:
    cells = []
    seen = set()
    for cell in row.cells:  # a merged cell comes once for each column that it covers
        if id(cell._tc) not in seen:
            seen.add(id(cell._tc))
            cells.append(" ".join(filter(None, (_paragraph(p) for p in cell.paragraphs))).replace("\n", " "))
    return " | ".join(cells) if any(cells) else ""


def _slides(source: Any, name: str) -> Document:
    blocks: list[Block] = []
    notes: list[str] = []
    for place, slide in enumerate(source.slides, 1):
        title = slide.shapes.title
        heading = " ".join((title.text_frame.text if title is not None else "").split()) or f"Slide {place}"
        path = (heading[:200],)
        blocks.append(Block("heading", heading, (place,), path))
        for kind, text in _shapes(slide.shapes, title):
            blocks.append(Block(kind, text, (place,) * (text.count("\n") + 1), path))
        if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
            spoken = _clean(slide.notes_slide.notes_text_frame.text)
            if spoken:
                text = f"Speaker's notes: {spoken}"
                blocks.append(Block("paragraph", text, (place,) * (text.count("\n") + 1), path))
        if slide._element.get("show") == "0":
            notes.append(f"slide {place} is hidden in the presentation")
    first = next((b.text for b in blocks if b.kind == "heading"), name)
    return Document(first, "slide", tuple(blocks), tuple(notes))


def _shapes(shapes: Any, title: Any) -> Iterator[tuple[Kind, str]]:
    for shape in shapes:
        if title is not None and shape.shape_id == title.shape_id:
            continue
        if hasattr(shape, "shapes"):
            yield from _shapes(shape.shapes, title)
        elif getattr(shape, "has_table", False):
            rows = (
                " | ".join(_clean(cell.text).replace("\n", " ") for cell in row.cells)
                for row in shape.table.rows
            )
            if text := "\n".join(row for row in rows if row.strip(" |")):
                yield "table", text
        elif shape.has_text_frame and (text := _clean(shape.text_frame.text)):
            yield "list" if "\n" in text else "paragraph", text


def _clean(text: str) -> str:
    """Lines without trailing space or emptiness; a vertical tab is a line break within a paragraph."""
    lines = (_SPACE.sub(" ", line).strip() for line in re.split(r"[\n\v\f\r]", text))
    return "\n".join(line for line in lines if line)
