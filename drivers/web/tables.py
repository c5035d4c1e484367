"""Tables of a page, as Markdown has them.

What: a `Table` is told its rows and cells in order; cells that reach over columns and rows stand in each of these rows.
Invariant: one that holds another table is layout: its cells are no table's.
Interface: `Table`: `begin_row()`, `begin_cell(columns, rows, heading)`, `put(words)`, `written() -> blocks`.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Table:
    """`cell` are the lines of the cell that is open; None between cells."""

    rows: list[list[str]] = field(default_factory=list)
    cell: list[str] | None = None
    layout: bool = False
    _spans: dict[int, tuple[int, str]] = field(
        default_factory=dict
    )  # column -> rows that it still fills, words
    _width: int = 1
    _height: int = 1
    _header: bool = False

    @property
    def plain(self) -> bool:
        """Whether the open cell is one of one column and row, and nothing was put into it so far."""
        return self.cell == [] and not self.layout and not self._spans and self._width == self._height == 1

    def begin_row(self) -> None:
        """Another row."""
        self.rows.append([])

    def begin_cell(self, columns: int, rows: int, heading: bool) -> None:
        """Another cell of the row, which reaches over so many columns and rows."""
        if not self.rows:
            self.begin_row()
        self.cell, self._width, self._height = [], columns, rows
        self._header |= heading and len(self.rows) == 1

    def put(self, words: str) -> None:
        """The open cell's words; it stays open."""
        words = words.replace("|", "\\|") if "|" in words else words
        row = self.rows[-1]
        if self._width == self._height == 1 and not self._spans:
            row.append(words)
            return
        self._reached(row)
        for column in range(len(row), len(row) + self._width):
            if self._height > 1:
                self._spans[column] = (self._height - 1, words)
            row.append(words if column == len(row) else "")

    def written(self) -> list[str]:
        """The whole table as one text; one of a single column as a text a row, one without words as none."""
        rows = [row for row in self.rows if any(row)]
        if self.layout or not rows:
            return []
        width = max(map(len, rows))
        if width == 1:
            return [row[0] for row in rows]
        lines = [f"| {' | '.join(row + [''] * (width - len(row)))} |" for row in rows]
        if self._header:
            lines.insert(1, "|" + "---|" * width)
        return ["\n".join(lines)]

    def _reached(self, row: list[str]) -> None:
        """Cells of rows above that reach into this row, up to the next free column."""
        while (held := self._spans.get(len(row))) is not None:
            left, words = held
            if left == 1:
                del self._spans[len(row)]
            else:
                self._spans[len(row)] = (left - 1, words)
            row.append(words)
