"""A page's elements, in order, become text for a reader: headings, lists, tables, numbered links and fields.

What: a `Writer` is told elements and texts as they come, by the light reader or by Chromium; it knows nothing of
    either. Each text comes with what hides it from a person's eyes, or "".
Invariant: every text that it is told is in the result once; what is hidden stands in `⟦hidden (how): …⟧`, and
    no text of the page can write these signs itself. What surrounds the page's matter (menus, headers, footers)
    comes after it, never instead of it. Links and controls are numbered in the order in which they are met.
Interface: `Writer(base, labels)`: `start(tag, attributes)`, `end(tag)`, `text(words, reason)`, `finish() -> Written`;
    `cells(texts, reason)` and `next_row()` say the same of plain cells, quicker.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from llmos.drivers.web.characters import reveal
from llmos.drivers.web.numbered import HIDDEN, Attributes, Numbered, node_of, number_of
from llmos.drivers.web.tables import Table
from llmos.drivers.web.written import CLOSE, OPEN, Written

MAX_SPAN = 50  # columns of one cell
MAX_INDENT = 8  # levels of lists that are told apart
MAX_TITLE = 300  # characters
_HEADINGS = {f"h{n}": n for n in range(1, 7)}
_BLOCKS = frozenset(
    """address article aside blockquote body center dd details dialog dir div dl dt fieldset figcaption figure footer
    form h1 h2 h3 h4 h5 h6 header hgroup hr html legend li main menu nav ol optgroup p pre section summary table tbody
    td tfoot th thead caption title tr ul video audio iframe""".split()
)
# Elements that mean something to `start` or `end`; all others only carry their text.
SPECIAL = _BLOCKS | frozenset("a area br button embed frame img input nav object select textarea".split())
_AROUND = frozenset({"nav", "aside", "footer"})
_AROUND_ROLES = frozenset({"navigation", "banner", "contentinfo", "complementary", "search"})
_CELLS = frozenset({"td", "th"})
_BLANK = (" ", "")
_PLAIN_ROW = [("tr", False), ("td", False)]
_SPACE = re.compile(r"[ \t\n\r\f\v]+")


@dataclass(slots=True)
class _Block:
    text: str
    reason: str = ""
    item: bool = False  # of a list: no empty line between two


class Writer:
    """Collects one page.

    Args:
        base: what relative addresses are relative to.
        labels: an element's id -> the words of its label.
    """

    def __init__(self, base: str, labels: Mapping[str, str] | None = None) -> None:
        self._numbered = Numbered(base, labels or {})
        self._main: list[_Block] = []
        self._around: list[_Block] = []
        self._depth_around = 0
        self._open: list[tuple[str, bool]] = []  # tag, whether it began what surrounds the page
        self._pieces: list[tuple[str, str]] = []
        self._prefix = ""
        self._lists: list[int] = []  # the next number of each open list, 0 for bullets
        self._pre = 0
        self._heading = 0
        self._tables: list[Table] = []
        self._anchors: list[tuple[str, int, int]] = []  # address, where its words begin, node
        self._buttons: list[tuple[int, int, str]] = []  # where its words begin, node, words it has anyway
        self._title: list[str] = []
        self._in_title = False
        self._visible = 0
        self._marked = 0

    # --- being told ---

    def start(self, tag: str, attributes: Attributes) -> None:
        """An element begins."""
        role = attributes.get("role") if attributes else None
        around = (
            tag in _AROUND
            or (tag == "header" and not self._within("article", "main", "section"))
            or (role is not None and role in _AROUND_ROLES)
        )
        if self._pieces and (around or tag in _BLOCKS):
            self._flush()
        if around:
            self._depth_around += 1
        self._open.append((tag, around))
        if (begin := _BEGINNINGS.get(tag)) is not None:
            begin(self, tag, attributes)

    def text(self, words: str, reason: str = "") -> None:
        """Text of the innermost element that is open; `reason` says what hides it from a person."""
        if self._in_title:
            self._title.append(words)
            return
        if words == " ":
            if self._pieces:
                self._pieces.append(_BLANK)
            return
        if OPEN in words or CLOSE in words:
            words = words.replace(OPEN, "[[").replace(CLOSE, "]]")
        if reason:
            self._pieces.append((words, reason))
            return
        if words.isascii():
            self._pieces.append((words, ""))
            self._visible += len(words)
            return
        pieces = reveal(words)
        self._pieces += pieces
        self._visible += sum(len(part) for part, hidden in pieces if not hidden)

    def end(self, tag: str) -> None:
        """The innermost element ends."""
        opened, around = self._open.pop()
        assert opened == tag, (opened, tag)
        if (close := _ENDS.get(tag)) is not None:
            close(self)
        if self._pieces and (around or tag in _BLOCKS):
            self._flush()
        if (shut := _ENDS_OF_BLOCKS.get(tag)) is not None:
            shut(self)
        if around:
            self._depth_around -= 1

    def cells(self, texts: Sequence[str], reason: str = "") -> None:
        """The open cell ends; each text is one of a cell of its own, the last of which stays open."""
        table = self._tables[-1] if self._tables else None
        whole = texts[:-1]
        joined = "".join(whole)
        if (
            table is None or reason or not joined.isascii() or self._open[-1] != ("td", False)
            or not self._plain_cell(table)
        ):  # fmt: skip
            for words in texts:
                self.end("td")
                self.start("td", {})
                if words:
                    self.text(" " if words.isspace() else words, reason)
            return
        if "|" in joined:
            whole = [words.replace("|", "\\|") for words in whole]
        table.rows[-1] += [" ".join(words.split()) for words in whole]
        self._visible += len(joined)
        if texts[-1]:
            self.text(texts[-1])

    def next_row(self) -> None:
        """The open cell and its row end; another row begins with another cell."""
        table = self._tables[-1] if self._tables else None
        if table is not None and self._open[-2:] == _PLAIN_ROW and self._plain_cell(table):
            table.begin_row()
            return
        self.end("td")
        self.end("tr")
        self.start("tr", {})
        self.start("td", {})

    def finish(self) -> Written:
        """The page, once all of it was told."""
        while self._open:
            self.end(self._open[-1][0])
        self._flush()
        blocks = self._assembled(self._main)
        if around := self._assembled(self._around):
            blocks += ["--- around the page ---" if blocks else "", *around]
        title = _plain(" ".join("".join(self._title).split())[:MAX_TITLE])
        return Written(
            title, tuple(filter(None, blocks)), tuple(self._numbered.links.values()), tuple(self._numbered.controls),
            self._marked, self._visible, dict(self._numbered.link_nodes),
        )  # fmt: skip

    # --- blocks ---

    def _within(self, *tags: str) -> bool:
        return any(tag in tags for tag, _ in self._open)

    def _put(self, block: _Block) -> None:
        (self._around if self._depth_around else self._main).append(block)

    def _flush(self) -> None:
        """Close the block whose pieces were collected."""
        pieces, self._pieces = self._pieces, []
        if not pieces:
            return
        table = self._tables[-1] if self._tables else None
        if len(pieces) == 1:
            words, whole = pieces[0]
            if not whole and words.isspace():
                return
        else:
            reasons = {reason for words, reason in pieces if reason or not words.isspace()}
            if not reasons:
                return
            whole = reasons.pop() if len(reasons) == 1 else ""
        words = self._joined([(words, "") for words, _ in pieces] if whole else pieces)
        if not words and not whole:
            return
        if table is not None and not table.layout:
            words = f"{OPEN}hidden ({whole}): {words}{CLOSE}" if whole else words
            self._marked += bool(whole)
            if table.cell is not None:
                table.cell.append(words)
            else:
                self._put(_Block(words))  # text between rows, which browsers show before the table
            return
        prefix, self._prefix = self._prefix, ""
        if self._heading:
            prefix = "#" * self._heading + " "
        if self._pre and not self._heading:
            words = f"```\n{words}\n```"
        self._put(_Block(prefix + words, whole, bool(self._lists)))

    def _joined(self, pieces: list[tuple[str, str]]) -> str:
        """The pieces of one block, hidden stretches marked."""
        if len(pieces) == 1 and not pieces[0][1] and not self._pre:
            words = pieces[0][0]
            return _tidy(words) if words.isascii() else " ".join(words.split())
        out: list[str] = []
        run: list[str] = []
        reason = ""

        def close() -> None:
            if (reason and (words := "".join(run)).strip()) or reason.startswith("zero-width"):
                self._marked += 1
                words = "".join(run).strip()
                out.append(f"{OPEN}hidden ({reason}){': ' if words else ''}{words}{CLOSE}")
            elif not reason:
                out.append("".join(run))
            elif run:
                out.append(" ")
            run.clear()

        for words, why in pieces:
            if why != reason:
                close()
                reason = why
            run.append(words)
        close()
        text = "".join(out)
        if self._pre:
            return text.strip("\n")
        if "\n" in text and any(words == "\n" for words, _ in pieces):  # <br>
            lines = self._lines(pieces)
            if lines is not None:
                return lines
        return _tidy(text)

    def _lines(self, pieces: list[tuple[str, str]]) -> str | None:
        """A block with line breaks of its own, where nothing of it is hidden."""
        if any(reason for _, reason in pieces):
            return None
        lines: list[list[str]] = [[]]
        for words, _ in pieces:
            if words == "\n":
                lines.append([])
            else:
                lines[-1].append(words)
        texts = (_tidy("".join(line)) for line in lines)
        return "\n".join(filter(None, texts))

    def _assembled(self, blocks: list[_Block]) -> list[str]:
        """Hidden neighbours become one mark, list items one block."""
        texts: list[str] = []
        at = 0
        while at < len(blocks):
            end = at + 1
            reason = blocks[at].reason
            if reason:
                while end < len(blocks) and blocks[end].reason == reason:
                    end += 1
                self._marked += 1
                words = "\n".join(block.text for block in blocks[at:end])
                texts.append(f"{OPEN}hidden ({reason}): {words}{CLOSE}")
            elif blocks[at].item:
                while end < len(blocks) and blocks[end].item and not blocks[end].reason:
                    end += 1
                texts.append("\n".join(block.text for block in blocks[at:end]))
            else:
                texts.append(blocks[at].text)
            at = end
        return texts

    def _begin_title(self, tag: str, attributes: Attributes) -> None:
        self._in_title = True

    def _end_title(self) -> None:
        self._in_title = False

    def _begin_heading(self, tag: str, attributes: Attributes) -> None:
        self._heading = _HEADINGS[tag]

    def _end_heading(self) -> None:
        self._heading = 0

    def _begin_pre(self, tag: str, attributes: Attributes) -> None:
        self._pre += 1

    def _end_pre(self) -> None:
        self._pre -= 1

    def _begin_list(self, tag: str, attributes: Attributes) -> None:
        self._lists.append(number_of(attributes.get("start"), 1) if tag == "ol" else 0)

    def _end_list(self) -> None:
        if self._lists:
            self._lists.pop()

    def _break(self, tag: str, attributes: Attributes) -> None:
        self._pieces.append(("\n", ""))

    def _rule(self, tag: str, attributes: Attributes) -> None:
        self._put(_Block("---"))

    def _item(self, tag: str, attributes: Attributes) -> None:
        depth = len(self._lists)
        number = self._lists[-1] if self._lists else 0
        self._prefix = "  " * min(max(depth - 1, 0), MAX_INDENT) + (f"{number}. " if number else "- ")
        if number:
            self._lists[-1] += 1

    # --- links, pictures, fields ---

    def _anchor(self, tag: str, attributes: Attributes) -> None:
        url = self._numbered.address(attributes.get("href") or "")
        self._anchors.append((url, len(self._pieces), node_of(attributes)))

    def _close_anchor(self) -> None:
        if not self._anchors:
            return
        url, begin, node = self._anchors.pop()
        pieces = self._pieces[begin:]
        words = " ".join("".join(part for part, _ in pieces).split())
        if not url or not words or OPEN in words:
            return
        if name := self._numbered.link(url, words, node):
            self._pieces.append((f" [{name}]", pieces[-1][1]))

    def _picture(self, tag: str, attributes: Attributes) -> None:
        words = " ".join((attributes.get("alt") or "").split())
        if words:
            self.text(f"[picture: {words}]", attributes.get(HIDDEN) or "")

    def _frame(self, tag: str, attributes: Attributes) -> None:
        if (src := attributes.get("src") or "").startswith(("http://", "https://", "/")):
            self._anchor("a", {"href": src})
            self.text("[frame]", attributes.get(HIDDEN) or "")
            self._close_anchor()

    def _field(self, tag: str, attributes: Attributes) -> None:
        if shown := self._numbered.field(tag, attributes):
            self.text(shown, attributes.get(HIDDEN) or "")

    def _button(self, tag: str, attributes: Attributes) -> None:
        self._buttons.append((len(self._pieces), node_of(attributes), attributes.get("aria-label") or ""))

    def _close_button(self) -> None:
        if not self._buttons:
            return
        begin, node, label = self._buttons.pop()
        pieces = self._pieces[begin:]
        words = " ".join("".join(part for part, _ in pieces).split()) or label or "without words"
        reason = pieces[0][1] if pieces else ""
        del self._pieces[begin:]
        self.text(self._numbered.button(words, node), reason)

    # --- tables ---

    def _table(self, tag: str, attributes: Attributes) -> None:
        outer = self._tables[-1] if self._tables else None  # those around it hold a table already
        if outer is not None and not outer.layout:
            outer.layout = True
            for words in (*(cell for row in outer.rows for cell in row if cell), *(outer.cell or ())):
                self._put(_Block(words))
        self._tables.append(Table())

    def _row(self, tag: str, attributes: Attributes) -> None:
        if self._tables:
            self._tables[-1].begin_row()

    def _cell(self, tag: str, attributes: Attributes) -> None:
        if not self._tables:
            return
        columns = rows = 1
        if attributes:
            columns = max(1, min(number_of(attributes.get("colspan"), 1), MAX_SPAN))
            rows = max(1, min(number_of(attributes.get("rowspan"), 1), 1000))
        self._tables[-1].begin_cell(columns, rows, tag == "th")

    def _plain_cell(self, table: Table) -> bool:
        """Write down the open cell, if it is one of one column, one row and one text that is seen."""
        pieces = self._pieces
        if self._pre or not table.plain:
            return False
        if len(pieces) == 1 and not pieces[0][1]:
            words = " ".join(pieces[0][0].split())
        elif any(reason or words == "\n" for words, reason in pieces):
            return False
        else:
            words = _tidy("".join([words for words, _ in pieces]))
        table.put(words)
        pieces.clear()
        return True

    def _close_cell(self) -> None:
        if not self._tables:
            return
        table = self._tables[-1]
        if not self._plain_cell(table):
            self._flush()
            if table.layout or table.cell is None:
                return
            table.put(" ".join(filter(None, table.cell)).replace("\n", " "))
        table.cell = None

    def _close_table(self) -> None:
        if not self._tables:
            return
        self._flush()
        for text in self._tables.pop().written():
            self._put(_Block(text))


def _tidy(text: str) -> str:
    """With single spaces; spaces that do not break stay."""
    if not text.isascii():
        return _SPACE.sub(" ", text).strip()
    return " ".join(text.split()) if "  " in text or not text.isprintable() else text.strip()


def _plain(text: str) -> str:
    """A text that stands alone, with what it hides in its characters."""
    text = text.replace(OPEN, "[[").replace(CLOSE, "]]")
    return "".join(f"{OPEN}hidden ({why}): {words}{CLOSE}" if why else words for words, why in reveal(text))


# What elements do, beside opening and closing blocks.
_BEGINNINGS: dict[str, Callable[[Writer, str, Attributes], None]] = {
    **dict.fromkeys(_HEADINGS, Writer._begin_heading), **dict.fromkeys(("ul", "ol", "menu", "dir"), Writer._begin_list),
    **dict.fromkeys(("a", "area"), Writer._anchor), **dict.fromkeys(_CELLS, Writer._cell),
    **dict.fromkeys(("input", "select", "textarea"), Writer._field),
    **dict.fromkeys(("iframe", "frame", "embed", "object"), Writer._frame), "title": Writer._begin_title,
    "pre": Writer._begin_pre, "li": Writer._item, "br": Writer._break, "hr": Writer._rule, "img": Writer._picture,
    "table": Writer._table, "tr": Writer._row, "button": Writer._button,
}  # fmt: skip
_ENDS: dict[str, Callable[[Writer], None]] = {  # before the block is closed
    **dict.fromkeys(("a", "area"), Writer._close_anchor), **dict.fromkeys(_CELLS, Writer._close_cell),
    "title": Writer._end_title, "button": Writer._close_button, "table": Writer._close_table,
}  # fmt: skip
_ENDS_OF_BLOCKS: dict[str, Callable[[Writer], None]] = {
    **dict.fromkeys(_HEADINGS, Writer._end_heading), **dict.fromkeys(("ul", "ol", "menu", "dir"), Writer._end_list),
    "pre": Writer._end_pre,
}  # fmt: skip
