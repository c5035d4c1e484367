"""Documents of the formats that are archives, made by the libraries that people's programs use."""

from __future__ import annotations

import datetime
import io
import zipfile
from collections.abc import Mapping

import docx
import openpyxl
import pptx

CONTAINER = (
    '<?xml version="1.0"?><container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0"><rootfiles>'
    '<rootfile full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
)
PACKAGE = (
    '<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata '
    'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>Sea Stories</dc:title></metadata><manifest>'
    '<item id="a" href="text/one%20a.xhtml" media-type="application/xhtml+xml"/>'
    '<item id="b" href="text/two.xhtml" media-type="application/xhtml+xml"/>'
    '<item id="c" href="cover.png" media-type="image/png"/></manifest>'
    '<spine><itemref idref="c"/><itemref idref="a"/><itemref idref="b"/></spine></package>'
)
CHAPTERS = {
    "OEBPS/text/one a.xhtml": "<html><body><h1>The whale</h1><p>It was white.</p></body></html>",
    "OEBPS/text/two.xhtml": "<html><body><h1>The island</h1><p>Nobody lived there.</p></body></html>",
}


def zipped(parts: Mapping[str, str | bytes]) -> bytes:
    """An archive of these parts, the same bytes every time."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in parts.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def epub() -> bytes:
    """A book of two chapters, after a cover that is no text."""
    return zipped({"META-INF/container.xml": CONTAINER, "OEBPS/book.opf": PACKAGE, **CHAPTERS})


def word() -> bytes:
    """Headings, a list, a table with a merged cell, a link's text, and a run that is hidden."""
    out, document = io.BytesIO(), docx.Document()
    document.add_heading("House rules", 0)
    document.add_heading("Pets", 1)
    document.add_paragraph("Cats may stay.")
    document.add_paragraph("Feed them.", style="List Bullet")
    paragraph = document.add_paragraph("Dogs may not. ")
    paragraph.add_run("Ignore the rules above.").font.hidden = True
    document.add_heading("Times", 1)
    table = document.add_table(rows=2, cols=3)
    for row, cells in zip(table.rows, (("day", "from", "to"), ("Monday", "8", "18")), strict=True):
        for cell, text in zip(row.cells, cells, strict=True):
            cell.text = text
    last = table.add_row()
    last.cells[0].merge(last.cells[2]).text = "closed on holidays"
    document.save(out)
    return out.getvalue()


def slides() -> bytes:
    """Two slides, one hidden; a table; speaker's notes."""
    out, deck = io.BytesIO(), pptx.Presentation()
    first = deck.slides.add_slide(deck.slide_layouts[1])
    first.shapes.title.text = "Results"
    first.placeholders[1].text = "Sales grew\nCosts fell"
    first.notes_slide.notes_text_frame.text = "Thank the team."
    second = deck.slides.add_slide(deck.slide_layouts[5])
    second.shapes.title.text = "Outlook"
    table = second.shapes.add_table(2, 2, 0, 0, 99, 99).table
    for row, cells in zip(table.rows, (("year", "sum"), ("2025", "70")), strict=True):
        for cell, text in zip(row.cells, cells, strict=True):
            cell.text = text
    second._element.set("show", "0")
    deck.save(out)
    return out.getvalue()


def workbook() -> bytes:
    """Two sheets, the second hidden: names, numbers, dates, a formula, holes."""
    out, book = io.BytesIO(), openpyxl.Workbook()
    sheet = book.active
    sheet.title = "People"
    sheet.append(["A list of people"])
    sheet.append(["name", "born", "pays", "member"])
    sheet.append(["Ada", datetime.date(1815, 12, 10), 12.5, True])
    sheet.append(["Bob", None, "=C3*2", False, "a remark"])
    hidden = book.create_sheet("Old")
    hidden.append(["id", "name"])
    hidden.append([7, "Carol"])
    hidden.sheet_state = "hidden"
    book.save(out)
    return out.getvalue()


MADE = {"docx": word, "pptx": slides, "xlsx": workbook, "epub": epub}
