"""Tables: csv and tsv files, and the sheets of a workbook (xlsx).

What: every row becomes a line that can be read alone, `name: Ada; born: 1815`, under its sheet's name as heading;
    the first row with more than one cell names the columns. A small model reads such a line rightly where it
    loses count of commas.
Invariant: no cell is left out: empty ones are not named, cells past the named columns are given by number. Formulas
    are not computed; a workbook's stored values are shown. Places are rows, counted from 1 in each sheet.
Interface: `parse_csv(text, name)`, `parse_workbook(data, name)` -> Document; `Rows`.
"""

from __future__ import annotations

import csv
import io
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, time

from llmos.abi.errors import DocumentError
from llmos.drivers.documents.archive import check_archive, library
from llmos.drivers.documents.document import Block, Document

_ROWS = 20  # in a block: a chunk is made of whole blocks where they fit
_SAMPLE, _LINES = 16384, 50  # characters and lines from which the kind of csv is told
_DELIMITERS = ",;\t|"

Rows = Iterable[tuple[int, Sequence[str]]]  # (row, its cells)


def parse_csv(text: str, name: str) -> Document:
    """Read comma-separated text, or what is separated by semicolons, tabs or bars."""
    csv.field_size_limit(len(text) + 1)
    reader = csv.reader(io.StringIO(text), delimiter=_delimiter(text, name))
    try:
        rows = [(n, [_line(cell) for cell in cells]) for n, cells in enumerate(reader, 1)]
    except csv.Error as error:
        raise DocumentError(
            f"{name} is not readable as a table", why=str(error), do="save it as UTF-8 csv"
        ) from None
    return Document(name, "row", tuple(_blocks(rows, ())))


def _delimiter(text: str, name: str) -> str:
    """What separates the cells: the character that cuts most of the first lines into equally many.

    The standard library's own guess takes minutes over some texts.
    """
    lines = text[:_SAMPLE].split("\n")[:_LINES]

    def agreeing(delimiter: str) -> tuple[int, int]:
        widths = Counter(line.count(delimiter) for line in lines if delimiter in line)
        return max(((count, width) for width, count in widths.items()), default=(0, 0))

    first = "\t" if name.lower().endswith(".tsv") else ","
    return max((first, *_DELIMITERS), key=agreeing)


def parse_workbook(data: bytes, name: str) -> Document:
    """Read an xlsx workbook, sheet by sheet."""
    check_archive(data, name)
    openpyxl = library("openpyxl", name)
    blocks: list[Block] = []
    notes: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parts of a workbook that are not read: charts, data validation
        try:
            book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
            for sheet in book.worksheets:
                sheet.reset_dimensions()  # what a file says of its own size is not believed
                rows = enumerate(sheet.iter_rows(values_only=True), 1)
                title = _line(sheet.title) or "sheet"
                found = list(_blocks(((n, [_shown(v) for v in cells]) for n, cells in rows), (title,)))
                if found:
                    blocks += [Block("heading", title, (found[0].places[0],), (title,)), *found]
                if sheet.sheet_state != "visible":
                    notes.append(f"the sheet {sheet.title!r} is hidden in the workbook")
        except DocumentError:
            raise
        except Exception as error:  # openpyxl raises whatever its input provokes
            raise DocumentError(
                f"{name} is damaged", why=f"not a sound workbook ({type(error).__name__}: {error})", do="save it again"
            ) from None  # fmt: skip
    return Document(name, "row", tuple(blocks), tuple(notes))


def _blocks(rows: Rows, path: tuple[str, ...]) -> Iterator[Block]:
    """Rows as blocks of lines, the first row with two cells and more as names of columns."""
    names: Sequence[str] = ()
    lines: list[tuple[int, str]] = []
    for number, cells in rows:
        filled = [(column, cell) for column, cell in enumerate(cells) if cell]
        if not filled:
            continue
        if not names and len(filled) > 1:
            names = cells
            lines.append((number, "columns: " + "; ".join(cell for _, cell in filled)))
            continue
        lines.append((number, "; ".join(_named(names, column, cell) for column, cell in filled)))
    for start in range(0, len(lines), _ROWS):
        group = lines[start : start + _ROWS]
        yield Block("table", "\n".join(line for _, line in group), tuple(number for number, _ in group), path)


def _named(names: Sequence[str], column: int, cell: str) -> str:
    if not names:
        return cell
    name = names[column] if column < len(names) and names[column] else f"column {column + 1}"
    return f"{name}: {cell}"


def _shown(value: object) -> str:
    """A cell as its workbook shows it, in one line."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.15g}"
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat(" ")
    return _line(str(value))


def _line(text: str) -> str:
    return " ".join(text.split())
