"""HTML, by the standard library's tolerant, event-driven parser: no tree, no recursion, no entity expansion.

What: the text that a reader of the page sees, without scripts, styles, navigation and the marks beside
    headings and footnotes; every line of it keeps the source line on which it stands.
Invariant: depth costs nothing (a counter a tag, no recursion), and external things are never fetched.
Interface: `parse_html(text, name) -> Document`.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser

from llmos.drivers.documents.document import Block, Document, Kind
from llmos.drivers.documents.outline import Outline

_HIDDEN = frozenset(
    {"script", "style", "template", "noscript", "nav", "svg", "object", "select", "head", "button"}
)
_HEADINGS = {f"h{n}": n for n in range(1, 7)}
_BLOCKS = """
address article aside blockquote body center dd details dialog div dl dt fieldset figcaption figure footer
form header hr li main ol option p pre section summary table tbody tfoot thead title tr ul
"""
_BREAKS = frozenset(_BLOCKS.split()) | frozenset(_HEADINGS)
_VOID = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"}
)
_OPEN_ENDED = frozenset({"p", "li", "dt", "dd", "tr", "td", "th", "thead", "tbody", "tfoot", "body", "html"})
_CHROME_ROLES = frozenset({"navigation", "search", "banner", "doc-noteref", "doc-backlink"})
_CHROME_CLASSES = frozenset({"headerlink", "sphinxsidebar", "related", "navheader", "navfooter", "footer"})
# The number of a footnote, where it is called and before its text; what people's generators name it.
_MARKS = frozenset(
    """a.footnote-reference a.footnote-ref a.fn-backref span.fn-backref span.backrefs span.brackets span.fn-bracket
    a.footnote-back a.reversefootnote sup.reference sup.footnote sup.footnote-ref""".split()
)
_ENDED = frozenset({"a", "span", "sup", "p"})  # by the next block
# What a style of an element's own hides. Style sheets are not looked at.
_UNSEEN = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)|(?:font-size|opacity)\s*:\s*0(?![.\d]*[1-9])",
    re.I,
)


def parse_html(text: str, name: str) -> Document:
    """Read HTML; the title is the page's `<title>`, else the first heading, else `name`."""
    reader = _Reader()
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    end = text.rfind(">") + 1  # past it no tag can end: the parser would look again for each `<` (quadratic)
    reader.feed(text[:end] + text[end:].replace("<", "&lt;"))
    reader.close()
    reader.flush()
    first = next((b.text for b in reader.blocks if b.kind == "heading"), name)
    notes = (f"a <{reader.hidden}> that is never closed hides the end",) if reader.hidden else ()
    title = " ".join("".join(reader.title).split()) or first
    return Document(title, "line", tuple(reader.blocks), notes)


class _Reader(HTMLParser):
    """Collects the text of the innermost open block, and closes it where a block element begins or ends."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[Block] = []
        self.title: list[str] = []
        self._outline = Outline()
        self._lines: list[tuple[int, list[str]]] = []  # (source line, pieces), of the block being read
        self._open: dict[str, int] = {}  # how many of each tag are open: a counter, so depth costs nothing
        self._hidden: tuple[str, int] | None = (
            None  # the tag that hides, and how many of its name are open in it
        )
        self._heading = 0
        self._row = False  # a cell of this table row was read
        self._prefix = ""  # "- " before the first text of a list item, " | " between cells

    def parse_marked_section(self, i: int, report: bool = True) -> int:
        """`<![…`: what is no marked section is a comment, as in browsers; the library asserts."""
        try:
            return super().parse_marked_section(i, report)
        except AssertionError:
            return self.parse_bogus_comment(i)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "title" and not self._inside("body", "svg"):
            self._open[tag] = self._open.get(tag, 0) + 1
            return
        if tag == "body":
            self._hidden, self._open["title"] = None, 0
        self._reveal(tag)
        if self._hidden is not None:
            if tag == self._hidden[0]:
                self._hidden = (tag, self._hidden[1] + 1)
            return
        if tag not in _VOID and (tag in _HIDDEN or _is_chrome(tag, attrs)):
            if tag in _BREAKS:
                self.flush()
            self._hidden = (tag, 1)
            return
        if tag == "br":
            self._lines.append((self.getpos()[0], []))
        elif tag in ("td", "th"):
            self._prefix, self._row = (" | " if self._row else ""), True
        elif tag in _BREAKS:
            self._break(tag)
            if tag == "li":
                self._prefix = "- "
            self._heading = _HEADINGS.get(tag, self._heading if tag == "div" else 0)
        if tag not in _VOID:
            self._open[tag] = self._open.get(tag, 0) + 1

    def _reveal(self, tag: str) -> None:
        """A block ends a paragraph or an inline element that hides, closed or not."""
        if self._hidden is not None and self._hidden[0] in _ENDED and tag in _BREAKS:
            self._hidden = None

    def handle_endtag(self, tag: str) -> None:
        self._reveal(tag)
        if self._hidden is not None and tag != "title":
            if tag == self._hidden[0]:
                self._hidden = (tag, self._hidden[1] - 1) if self._hidden[1] > 1 else None
            return
        if tag in _BREAKS:
            self._break(tag)
            if tag in _HEADINGS:
                self._heading = 0
        if self._open.get(tag, 0):
            self._open[tag] -= 1
        if tag in ("ul", "ol") and not self._inside("ul", "ol"):
            self._open["li"] = 0  # their ends may be left out

    def handle_data(self, data: str) -> None:
        if self._inside("title"):
            self.title.append(data)
            return
        if self._hidden is not None:
            return
        verbatim = self._inside("pre")
        for k, line in enumerate(data.split("\n")):
            if k or not self._lines:
                self._lines.append((self.getpos()[0] + k, []))
            pieces = self._lines[-1][1]
            words = line if verbatim else " ".join(line.split())
            if not words:
                if line and pieces:
                    pieces.append(" ")
                continue
            if not verbatim:
                words = (
                    (" " if line[0].isspace() and pieces else "")
                    + words
                    + (" " if line[-1].isspace() else "")
                )
            if self._prefix:
                words, self._prefix = self._prefix + words.lstrip(), ""
            pieces.append(words)

    @property
    def hidden(self) -> str:
        """The tag that hides what is being read now, or ""."""
        return self._hidden[0] if self._hidden else ""

    def _inside(self, *tags: str) -> bool:
        return any(self._open.get(tag, 0) for tag in tags)

    def _break(self, tag: str) -> None:
        """A block element begins or ends; list items with a paragraph in them, and tables, stay together."""
        if tag in ("tr", "thead", "tbody", "tfoot") and self._inside("table"):
            self._lines.append((self.getpos()[0], []))
            self._row = False
            return
        if self._inside("table") and tag in ("p", "div"):
            return
        if tag == "p" and self._prefix:
            return
        self.flush()

    def flush(self) -> None:
        """Close the block that is being read."""
        if not self._lines:
            return
        lines = [(place, "".join(pieces).rstrip()) for place, pieces in self._lines]
        self._lines = []
        verbatim = self._inside("pre")
        if not verbatim:
            lines = [(place, " ".join(words.split())) for place, words in lines]
        lines = [(place, words) for place, words in lines if words.strip()]
        if not lines:
            return
        text, places = "\n".join(words for _, words in lines), tuple(place for place, _ in lines)
        if self._heading:
            text = " ".join(text.split())
            path = self._outline.enter(self._heading, text)
            self.blocks.append(Block("heading", text, places[:1], path))
            return
        kind: Kind = "paragraph"
        if verbatim:
            kind = "code"
        elif self._inside("table"):
            kind = "table"
        elif self._inside("li"):
            kind = "list"
        self.blocks.append(Block(kind, text, places, self._outline.path))


def _is_chrome(tag: str, attrs: list[tuple[str, str | None]]) -> bool:
    """What says nothing of this page or is not seen: navigation and the like, footnote numbers, what a style hides.

    Tags whose end may be left out are never taken for it, but for a paragraph, which the next block ends: they would
    hide what follows.
    """
    values = dict(attrs)
    unseen = "hidden" in values or _UNSEEN.search(values.get("style") or "") is not None
    if tag in _OPEN_ENDED:
        return tag == "p" and unseen
    if unseen or values.get("role") in _CHROME_ROLES:
        return True
    classes = (values.get("class") or "").split()
    return not (
        _CHROME_CLASSES.isdisjoint(classes) and _MARKS.isdisjoint(f"{tag}.{name}" for name in classes)
    )
