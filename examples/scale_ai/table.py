"""The table that the conversation fills: cells that quote pages, and the numbers in them.

What: the type that a reader has to answer in, made from a page so that a cell can only quote it; cells with the address
    that they stand on; the table as people read it and as a CSV file.
Invariant: a cell is a quotation or "not available"; what was worked out and not read says so.
Interface: `row_type(columns, page)`; `objections(columns, row, page)`; `Cell`, `Table`.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, create_model

from examples.scale_ai.site import Kind
from llmos.apps.calculator import dates

MISSING = "not available"
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*"
_QUOTED: Mapping[Kind, re.Pattern[str]] = {
    "date": re.compile(
        rf"\b(?:\d{{4}}-\d\d-\d\d|{_MONTH}\.? \d{{1,2}},? \d{{4}}|\d{{1,2}} {_MONTH},? \d{{4}})\b"
    ),
    "money": re.compile(
        r"(?:[$€£¥]|\b[A-Z]{3}) ?\d[\d,]*(?:\.\d+)?(?: ?(?:thousand|million|billion|trillion|[kKMB]|mn|bn)\b)?"
        r"|\b\d[\d,]*(?:\.\d+)? (?:thousand|million|billion|trillion)(?: (?:dollars|euros|pounds|[A-Z]{3})\b)?"
    ),
}
_SCALES = {"": 1e-6, "thousand": 1e-3, "k": 1e-3, "million": 1.0, "m": 1.0, "mn": 1.0, "billion": 1e3, "b": 1e3,
           "bn": 1e3, "trillion": 1e6}  # fmt: skip


def row_type(columns: Mapping[str, Kind], page: str) -> type[BaseModel]:
    """What a page may say of these columns: of dates and money what stands on it, of texts some words."""
    fields: dict[str, Any] = {}
    for name, kind in columns.items():
        if kind == "text":
            fields[name] = (Annotated[str, Field(min_length=1, max_length=60)], ...)
        else:
            found = dict.fromkeys(_QUOTED[kind].findall(page))
            fields[name] = (Literal[(*found, MISSING)], ...)
    return create_model("Row", **fields)


def objections(row: Mapping[str, str], page: str) -> str:
    """What anybody who has the page can say against a row: words that are not on it, one passage in two cells."""
    for name, text in row.items():
        if text == MISSING:
            continue
        if (there := page.count(text)) == 0:
            return f"{name} is {text!r}, which the page does not say"
        if there < list(row.values()).count(text):
            return f"{text!r} is said once, and is not {name} and something else"
    return ""


def millions(text: str) -> float:
    """`$4.5 million` as 4.5."""
    found = re.search(r"(\d[\d,]*(?:\.\d+)?) ?([A-Za-z]*)", text)
    assert found is not None, text
    return float(found[1].replace(",", "")) * _SCALES.get(found[2].lower(), _SCALES[""])


@dataclass(frozen=True, slots=True)
class Cell:
    """What a page says, as it says it, or what was worked out: then there is no `source`, and `number` is given."""

    text: str
    source: str = ""  # the page's address
    number: float | None = None  # of money, in millions

    @property
    def imputed(self) -> bool:
        return self.number is not None and not self.source


@dataclass(slots=True)
class Table:
    """Rows by name; each has a cell for every column."""

    columns: Mapping[str, Kind]
    rows: dict[str, dict[str, Cell]] = field(default_factory=dict)

    def add(self, name: str, row: Mapping[str, str], source: str) -> None:
        """A row that was read on the page `source`."""
        self.rows[name] = {
            column: Cell(
                text, source, millions(text) if self.columns[column] == "money" and text != MISSING else None
            )
            for column, text in row.items()
        }

    def impute(self, name: str, column: str, number: float) -> None:
        """A number that no page says."""
        self.rows[name][column] = Cell(f"about {shown(number)}", number=number)

    def number(self, name: str, column: str) -> float | None:
        return self.rows[name][column].number

    def points(self, when: str, what: str) -> list[tuple[date, float]]:
        """The numbers of a column by date, oldest first; rows that lack either are left out."""
        found = [
            (dates.read(row[when].text), number)
            for row in self.rows.values()
            if row[when].text != MISSING and (number := row[what].number) is not None
        ]
        return sorted(found)

    def plain(self, name: str) -> str:
        """A row for the model: money as numbers of millions, no sources. Among other rows a small one takes numbers of
        the wrong one."""
        money = {column: f"{column} (million)" for column, kind in self.columns.items() if kind == "money"}
        cells = [shown(c.number) if c.number is not None else c.text for c in self.rows[name].values()]
        return markdown([["round", *(money.get(c, c) for c in self.columns)], [name, *cells]])

    def cited(self) -> str:
        """For people: what the pages say, with the number of the page; and the pages."""
        sources = list(
            dict.fromkeys(c.source for row in self.rows.values() for c in row.values() if c.source)
        )
        lines = [["round", *self.columns]]
        for name, row in self.rows.items():
            lines.append([name, *(_cited(cell, sources) for cell in row.values())])
        return "\n".join([markdown(lines), *(f"[{n}] {url}" for n, url in enumerate(sources, start=1))])


def _cited(cell: Cell, sources: Sequence[str]) -> str:
    if cell.imputed:
        return f"{cell.text} million (imputed)"
    return cell.text if cell.text == MISSING else f"{cell.text} [{sources.index(cell.source) + 1}]"


def shown(number: float) -> str:
    """A number as it is passed on: six digits, no exponent."""
    return f"{float(f'{number:.6g}'):f}".rstrip("0").rstrip(".")


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Lines as a table, the first being its head."""
    head, *rest = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head, "|" + "---|" * len(lines[0]), *rest])


def as_csv(head: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """The same for programs."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *lines])
    return text.getvalue()
