"""The light reader: a page as text without a browser, hidden text marked as far as its markup and styles tell.

What: parses HTML as browsers do (lexbor), writes it out flat, computes for each element what could hide its text, and
    tells a `Writer`.
Invariant: depth costs no recursion. Where styles say something that cannot be judged without a layout, `Reading`
    says so in `doubts`; where the text is made by scripts, `empty` says so. Then Chromium reads the page.
Interface: `style_sheets(html, base)`, `read_html(html, base, sheets) -> Reading`.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import urljoin

from selectolax.lexbor import LexborHTMLParser

from llmos.drivers.web import hidden
from llmos.drivers.web.cascade import Cascade
from llmos.drivers.web.errors import PageTooLarge
from llmos.drivers.web.flat import VOID, quote, tell
from llmos.drivers.web.nesting import MAX_DEPTH, too_deep
from llmos.drivers.web.numbered import HIDDEN, MAX_OPTIONS, OPTIONS, Attributes
from llmos.drivers.web.sheets import Sheets
from llmos.drivers.web.sight import Sight, State, markup
from llmos.drivers.web.writing import Writer
from llmos.drivers.web.written import Written

FEW = 200  # visible characters below which a page with scripts is one that its scripts have yet to write
_RAW = ("xmp", "iframe", "noembed", "noframes", "plaintext")  # their text is written out as it is
_UNQUOTED = re.compile(  # no comment holds its own end, no such element its own; <plaintext> goes on to the last
    rf"<!--(.*?)-->|<\?[^>]*>|(<({'|'.join(_RAW[:-1])})(?: [^>]*)?>)(.*?)(?=</\3>)"
    r"|(<plaintext(?: [^>]*)?>)(.*)(?=</plaintext>)",
    re.DOTALL,
)
_FOREIGN_RAW = ", ".join(f"{root} {tag}" for root in ("svg", "math") for tag in _RAW)
_FOREIGN_VOID = ", ".join(f"{root} {tag}" for root in ("svg", "math") for tag in sorted(VOID))
_REPLACED = frozenset({"img", "input", "select", "textarea", "iframe", "frame", "embed", "object", "button"})


@dataclass(frozen=True, slots=True)
class Reading:
    """A page that was read. `doubts`: what in its styles could not be judged. `empty`: it has scripts and next to no
    text. `left_out`: what was not taken into the text ("2 comments"). `refresh`: where it sends its readers."""

    written: Written
    doubts: tuple[str, ...]
    empty: bool
    left_out: tuple[str, ...]
    refresh: str = ""


def style_sheets(tree: LexborHTMLParser, base: str) -> list[tuple[str, str]]:
    """The page's style sheets in order: ("", css) or (url, "")."""
    found = []
    for node in tree.css("style, link[rel~=stylesheet i]"):
        attributes = node.attributes
        media = attributes.get("media") or ""
        if node.tag == "style":
            css = node.text(deep=True)
            found.append(("", f"@media {media} {{{css}}}" if media else css))
        elif href := attributes.get("href"):
            if media.strip().lower() not in ("print", "speech"):
                found.append((urljoin(base, href.strip()), ""))
    return found


def parse_page(html: str) -> LexborHTMLParser:
    """The page's tree, as a browser without scripts builds it; PageTooLarge where that would take for ever."""
    if too_deep(html):
        raise PageTooLarge(
            "the page is nested too deeply",
            why=f"more than {MAX_DEPTH} elements in each other",
            do="open another",
        )
    return LexborHTMLParser(html)


def read_html(tree: LexborHTMLParser, base: str, css: Sequence[str] = ()) -> Reading:
    """Read a page.

    Args:
        base: its address.
        css: the texts of its style sheets, in order.
    """
    sheets = Sheets()
    for sheet in css:
        sheets.add(sheet)
    return _Walk(tree, base, sheets).reading()


class _Walk:
    """One page, element by element."""

    def __init__(self, tree: LexborHTMLParser, base: str, sheets: Sheets) -> None:
        self._tree = tree
        name = "m" + secrets.token_hex(8)  # of our own attributes: no page can know it
        self._summary, self._options = name + "s", name + "o"
        self._cascade = Cascade(tree, sheets, name)
        self._doubts = dict.fromkeys(self._cascade.doubts)
        self._sight = Sight(sheets, self._doubts)
        node = tree.css_first("base[href]")
        self._base = urljoin(base, node.attributes.get("href") or "") if node is not None else base
        labels = {
            label.attributes.get("for") or "": " ".join(label.text(deep=True).split())
            for label in tree.css("label[for]")
        }
        self._writer = Writer(self._base, labels)
        self._states: dict[tuple[object, ...], State] = {}
        self._comments = self._comment_characters = 0

    def reading(self) -> Reading:
        tree = self._tree
        if (title := tree.css_first("head > title")) is not None:
            self._writer.start("title", {})
            self._writer.text(title.text(deep=True))
            self._writer.end("title")
        scripts = any("json" not in (node.attributes.get("type") or "") for node in tree.css("script"))
        templates, refresh = len(tree.css("template")), self._refresh()
        tell(self._flat(), self._writer, self._styled, State(), {self._options: OPTIONS})
        written = self._writer.finish()
        comments = self._comments
        left_out = [f"{comments} comments ({self._comment_characters} characters)"] if comments else []
        left_out += [f"{templates} templates"] if templates else []
        left_out += [name for name in ("text within a drawing",) if name in self._doubts]
        empty = scripts and written.visible < FEW
        return Reading(written, tuple(self._doubts), empty, tuple(left_out), refresh)

    def _refresh(self) -> str:
        node = self._tree.css_first("meta[http-equiv=refresh i]")
        content = (node.attributes.get("content") or "") if node is not None else ""
        match = re.match(r"\s*(\d+)[\d.]*\s*[;,]\s*(?:url\s*=\s*)?['\"]?([^'\"]+)", content, re.IGNORECASE)
        return urljoin(self._base, match[2].strip()) if match and int(match[1]) <= 10 else ""

    def _flat(self) -> str:
        """The page as flat markup. What only the contents of an element or its place say becomes an attribute."""
        tree = self._tree
        if tree.root is None:
            return ""
        html = tree.root.html or ""
        if "<select" in html:
            for node in tree.css("select"):
                options = [" ".join(option.text(deep=True).split()) for option in node.css("option")]
                chosen = node.css_first("option[selected]")
                first = (options or [""])[0]
                node.attrs["value"] = (
                    " ".join(chosen.text(deep=True).split()) if chosen is not None else first
                )
                more = " / …" if len(options) > MAX_OPTIONS else ""
                node.attrs[self._options] = " / ".join(options[:MAX_OPTIONS]) + more
        if "<textarea" in html:
            for node in tree.css("textarea"):
                node.attrs["value"] = node.text(deep=True)
        if "<details" in html:
            for node in tree.css("details:not([open]) > summary:first-of-type"):
                node.attrs[self._summary] = ""
        raw = any("<" + tag in html for tag in _RAW)
        if "<svg" in html or "<math" in html:
            if tree.css_first(_FOREIGN_VOID) is not None:  # there they have contents
                self._doubts["elements of a page within a drawing"] = None
            for node in tree.css(_FOREIGN_RAW):
                self._doubts["text within a drawing"] = None
                node.decompose()
        tree.strip_tags(["script", "style", "template"], recursive=True)
        html = tree.root.html or ""
        return _UNQUOTED.sub(self._quoted, html) if raw or "<!--" in html or "<?" in html else html

    def _quoted(self, found: re.Match[str]) -> str:
        if (comment := found[1]) is not None:
            self._comments += 1
            self._comment_characters += len(comment.strip())
        return (found[2] or found[5] or "") + quote(found[4] or found[6] or "")

    # --- styles ---

    def _styled(self, tag: str, attributes: Attributes, state: State) -> tuple[State, Attributes]:
        """What an element hands down, and what the writer is told of it."""
        if state.outside is not None and tag == "summary" and self._summary in attributes:
            state = state.outside
        declared = self._cascade.of(tag, attributes)
        changes = markup(tag, attributes, state)
        inner = state
        if declared is not None or changes:
            key = (id(declared), id(state), *changes.items())
            known = self._states.get(key)
            if known is None:
                known = self._states[key] = self._sight.changed(declared, changes, state)
            inner = known
        if tag in _REPLACED:
            attributes = {**attributes, HIDDEN: inner.reason}
        if tag == "details" and "open" not in attributes:
            why = inner.why or hidden.FOLDED
            inner = self._states.setdefault(("folded", id(inner)), replace(inner, why=why, outside=inner))
        return inner, attributes
