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
from functools import cached_property, lru_cache
from urllib.parse import urljoin

import tinycss2.color4
from selectolax.lexbor import LexborHTMLParser

from llmos.drivers.web import hidden
from llmos.drivers.web.cascade import Cascade
from llmos.drivers.web.errors import PageTooLarge
from llmos.drivers.web.flat import VOID, quote, tell
from llmos.drivers.web.hidden import BLACK, LINK, WHITE, Colour
from llmos.drivers.web.sheets import Sheets, understood
from llmos.drivers.web.writing import HIDDEN, MAX_OPTIONS, OPTIONS, Attributes, Writer
from llmos.drivers.web.written import Written

MAX_DEPTH = 8000  # elements in each other, and choices of a page: the parser's time grows with the square
MAX_OPEN = 20_000  # elements that may nest, of a page that is not looked at for how deeply they do
FEW = 200  # visible characters below which a page with scripts is one that its scripts have yet to write
_RAW = ("xmp", "iframe", "noembed", "noframes", "plaintext")  # their text is written out as it is
_UNQUOTED = re.compile(  # no comment holds its own end, no such element its own; <plaintext> goes on to the last
    rf"<!--(.*?)-->|<\?[^>]*>|(<({'|'.join(_RAW[:-1])})(?: [^>]*)?>)(.*?)(?=</\3>)"
    r"|(<plaintext(?: [^>]*)?>)(.*)(?=</plaintext>)",
    re.DOTALL,
)
_FOREIGN_RAW = ", ".join(f"{root} {tag}" for root in ("svg", "math") for tag in _RAW)
_FOREIGN_VOID = ", ".join(f"{root} {tag}" for root in ("svg", "math") for tag in sorted(VOID))
_SIZES = {
    "xx-small": 9, "x-small": 10, "small": 13, "medium": 16, "large": 18, "x-large": 24, "xx-large": 32,
    "smaller": 13, "larger": 19,
}  # fmt: skip
_SHALLOW = "|".join(  # elements that have no contents, or that by themselves do not stand in each other
    """area base br col embed hr img input link meta source track wbr p tr td th thead tbody tfoot option html head
    body a button""".split()
)
_NESTING = re.compile(rf"<(?!/|(?:{_SHALLOW})[\s/>])[a-z]", re.IGNORECASE)
_INLINE = frozenset(
    "b i em strong span u s small big font code kbd tt sub sup abbr cite label mark time".split()
)
_DRAWN = frozenset("path rect circle ellipse line polyline polygon use stop image g".split())
_ITEMS = {
    "li": frozenset({"li"}),
    "dt": frozenset({"dt", "dd"}),
    "dd": frozenset({"dt", "dd"}),
}  # ended by the next
_LISTS = {
    "ul": _ITEMS["li"],
    "ol": _ITEMS["li"],
    "menu": _ITEMS["li"],
    "dl": _ITEMS["dt"],
}  # whose end ends them
_TAGS = re.compile(  # whatever is never closed reaches to the end, so this is linear
    r"<!--(?:.*?-->|.*)|<(?:script|style|textarea|title)\b(?:.*?</(?:script|style|textarea|title)|.*)"
    rf"|<(?!/?(?:{_SHALLOW})[\s/>])(/?)([a-zA-Z][^\s/>]*)(?:[^>\"']|\"[^\"]*(?:\"|\Z)|'[^']*(?:'|\Z))*+(?:>|\Z)",
    re.DOTALL | re.IGNORECASE,
)
_UNSEEN = frozenset({"dialog", "noembed", "noframes"})  # a dialog unless it is open
_REPLACED = frozenset({"img", "input", "select", "textarea", "iframe", "frame", "embed", "object", "button"})
_LENGTH = re.compile(r"(-?\d*\.?\d+)(px|pt|em|rem|ex|ch|%|vw|vh|in|cm|mm|pc|q|vmin|vmax)?")
_UNITS = {
    "px": 1.0, "pt": 4 / 3, "em": 16.0, "rem": 16.0, "ex": 8.0, "ch": 8.0, "%": 12.8, "vw": 12.8, "vh": 9.0, "in": 96.0,
    "cm": 37.8, "mm": 3.78, "pc": 16.0, "q": 0.945, "vmin": 9.0, "vmax": 12.8, "": 1.0,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reading:
    """A page that was read. `doubts`: what in its styles could not be judged. `empty`: it has scripts and next to no
    text. `left_out`: what was not taken into the text ("2 comments"). `refresh`: where it sends its readers."""

    written: Written
    doubts: tuple[str, ...]
    empty: bool
    left_out: tuple[str, ...]
    refresh: str = ""


@dataclass(frozen=True)
class _State:
    """What an element hands down to what stands in it; one object for all elements that are alike."""

    why: str = ""  # that hides it and all within
    visible: bool = True
    size: float = 16.0
    colour: Colour = BLACK
    ground: Colour | None = WHITE  # None: a picture
    opacity: float = 1.0
    outside: _State | None = None  # of a closed <details>: what its summary goes by

    @cached_property
    def reason(self) -> str:
        """Why a text here is not seen, or ""."""
        if self.why:
            return self.why
        if not self.visible:
            return hidden.INVISIBLE
        if self.size < hidden.MIN_SIZE:
            return hidden.TINY
        if self.colour.alpha * self.opacity < hidden.MIN_OPACITY:
            return hidden.TRANSPARENT
        if self.ground is not None and hidden.too_faint(self.colour, self.ground, self.opacity):
            return hidden.FAINT
        return ""


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
    if html.count("<") > MAX_DEPTH and (_deep(html) or html.lower().count("<option") > MAX_DEPTH):
        raise PageTooLarge(
            "the page is nested too deeply",
            why=f"more than {MAX_DEPTH} elements in each other",
            do="open another",
        )
    return LexborHTMLParser(html)


def _deep(html: str) -> bool:
    """Whether elements may stand in each other more than MAX_DEPTH deep. An end counts only where a browser surely
    closes the element at it, so that no stray ends hide how deep a page is."""
    if len(_NESTING.findall(html)) <= MAX_OPEN:
        return False
    nested: list[str] = []
    for match in _TAGS.finditer(html):
        if match[2] is None:
            continue
        name = match[2].lower()
        if match[1]:
            for back in range(1, min(len(nested), 8) + 1):
                if nested[-back] == name:
                    del nested[-back:]
                    break
                if name in _INLINE or nested[-back] not in _INLINE | _LISTS.get(name, frozenset()):
                    break
        elif nested and nested[-1] in _ITEMS.get(name, ()):
            nested[-1] = name
        elif name not in _DRAWN or not match[0].endswith("/>"):
            nested.append(name)
            if len(nested) > MAX_DEPTH:
                return True
    return False


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
        self._tree, self._sheets = tree, sheets
        name = "m" + secrets.token_hex(8)  # of our own attributes: no page can know it
        self._summary, self._options = name + "s", name + "o"
        self._cascade = Cascade(tree, sheets, name)
        self._doubts = dict.fromkeys(self._cascade.doubts)
        node = tree.css_first("base[href]")
        self._base = urljoin(base, node.attributes.get("href") or "") if node is not None else base
        labels = {
            label.attributes.get("for") or "": " ".join(label.text(deep=True).split())
            for label in tree.css("label[for]")
        }
        self._writer = Writer(self._base, labels)
        self._states: dict[tuple[object, ...], _State] = {}
        self._comments = self._comment_characters = 0

    def reading(self) -> Reading:
        tree = self._tree
        if (title := tree.css_first("head > title")) is not None:
            self._writer.start("title", {})
            self._writer.text(title.text(deep=True))
            self._writer.end("title")
        scripts = any("json" not in (node.attributes.get("type") or "") for node in tree.css("script"))
        templates, refresh = len(tree.css("template")), self._refresh()
        tell(self._flat(), self._writer, self._styled, _State(), {self._options: OPTIONS})
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

    def _styled(self, tag: str, attributes: Attributes, state: _State) -> tuple[_State, Attributes]:
        """What an element hands down, and what the writer is told of it."""
        if state.outside is not None and tag == "summary" and self._summary in attributes:
            state = state.outside
        declared = self._cascade.of(tag, attributes)
        changes = _markup(tag, attributes, state)
        inner = state
        if declared is not None or changes:
            key = (id(declared), id(state), *changes.items())
            known = self._states.get(key)
            if known is None:
                known = self._states[key] = self._changed(declared, changes, state)
            inner = known
        if tag in _REPLACED:
            attributes = {**attributes, HIDDEN: inner.reason}
        if tag == "details" and "open" not in attributes:
            why = inner.why or hidden.FOLDED
            inner = self._states.setdefault(("folded", id(inner)), replace(inner, why=why, outside=inner))
        return inner, attributes

    def _changed(self, declared: dict[str, str] | None, changes: dict[str, object], state: _State) -> _State:
        """The state of an element that its kind, its attributes or its styles change."""
        base = replace(state, **changes) if changes else state  # type: ignore[arg-type]
        if declared is None:
            return base
        values = self._values(declared)
        if changes.get("why") == hidden.NOT_SHOWN and values.get("display", "none") != "none":
            base = replace(base, why=state.why)  # the sheet shows what the attribute `hidden` hid
        base = self._applied(values, base, state)
        if values.get("position") == "absolute" and not base.why and base.ground is not state.ground:
            self._doubts["a box that may lie over text"] = None
        return base

    def _values(self, declared: dict[str, str]) -> dict[str, str]:
        values: dict[str, str] = {}
        for name, value in declared.items():
            resolved = self._sheets.resolve(value)
            if resolved is None or not understood(resolved):
                if name not in (
                    "margin",
                    "width",
                    "height",
                    "max-width",
                    "max-height",
                    "top",
                    "bottom",
                    "inset",
                ):
                    self._doubts[f"{name}: {value[:60]}"] = None
                continue
            values[name] = resolved
        return values

    def _applied(self, values: dict[str, str], state: _State, outer: _State) -> _State:
        changes: dict[str, object] = {}
        if "visibility" in values and values["visibility"] != "inherit":
            changes["visible"] = values["visibility"] not in ("hidden", "collapse")
        for name in ("font", "font-size"):
            if name in values and (size := _font_size(values[name], outer.size)) is not None:
                changes["size"] = size
        for name in ("color", "-webkit-text-fill-color"):
            if name in values and (colour := self._colour(values[name], state.colour)) is not None:
                changes["colour"] = colour
        for name in ("background", "background-color", "background-image"):
            if name in values:
                ground = changes.get("ground", state.ground)
                changes["ground"] = self._ground(name, values[name], ground, state.colour)  # type: ignore[arg-type]
        if "opacity" in values and (opacity := _number(values["opacity"])) is not None:
            changes["opacity"] = state.opacity * opacity
        if not state.why and (why := self._why(values)):
            changes["why"] = why
        return replace(state, **changes) if changes else state  # type: ignore[arg-type]

    def _why(self, values: dict[str, str]) -> str:
        """What hides an element and all within it, or ""."""
        if values.get("display") == "none" or values.get("content-visibility") == "hidden":
            return hidden.NOT_SHOWN
        if re.search(r"opacity\(\s*(0|0?\.0\d*|0%|\d%)\s*\)", values.get("filter", "")):
            return hidden.TRANSPARENT
        placed = values.get("position") in ("absolute", "fixed", "relative", "sticky")
        offsets = [values.get(name, "") for name in ("left", "right", "top", "bottom")] if placed else []
        if placed and "inset" in values:
            offsets += values["inset"].split()
        moves = [values.get(name, "") for name in ("margin-left", "margin-top", "text-indent")]
        moves += values.get("margin", "").split() + re.findall(r"-[\d.]+\w+", values.get("transform", ""))
        moves += values.get("translate", "").split()
        if any((_length(move) or 0) <= -hidden.FAR for move in (*offsets, *moves)):
            return hidden.AWAY
        if placed and any(
            (_length(values.get(name, "")) or 0) >= 10 * hidden.FAR for name in ("left", "top")
        ):
            return hidden.AWAY
        if _shrunk(values) or _clipped(values):
            return hidden.CUT
        name = values.get("animation-name") or values.get("animation") or ""
        if any(word in self._sheets.hiding_animations for word in re.split(r"[\s,]+", name)):
            self._doubts[f"animation: {name[:60]}"] = None
        if (
            values.get("all", "")
            or "zoom" in values
            or any(n.startswith("mask") and values[n] != "none" for n in values)
        ):
            self._doubts["all, zoom or mask"] = None
        return ""

    def _colour(self, value: str, current: Colour) -> Colour | None:
        value = value.strip()
        if value in ("inherit", "currentcolor", "initial", "unset", "revert"):
            return BLACK if value == "initial" else None
        colour = _parse_colour(value)
        if colour is None:
            self._doubts[f"colour: {value[:60]}"] = None
        return colour

    def _ground(self, name: str, value: str, ground: Colour | None, current: Colour) -> Colour | None:
        """The ground after one more declaration; None behind pictures."""
        if "url(" in value or "gradient(" in value or "image-set(" in value:
            return None
        if name == "background-image":
            return ground
        words = [value] if name == "background-color" else re.findall(r"[\w#%.-]+\([^)]*\)|[^\s,]+", value)
        for word in words:
            colour = current if word == "currentcolor" else _parse_colour(word)
            if colour is not None and colour.alpha > 0:
                return colour if colour.alpha >= 1 or ground is None else colour.over(ground)
        return ground


def _markup(tag: str, attributes: Attributes, state: _State) -> dict[str, object]:
    """What an element's kind and its attributes say without any style."""
    changes: dict[str, object] = {}
    if not attributes:
        if tag in _UNSEEN and not state.why:
            changes["why"] = hidden.NOT_SHOWN
        elif tag == "noscript" and not state.why:
            changes["why"] = hidden.NO_SCRIPTS
        return changes
    if not state.why:
        if "hidden" in attributes or (tag in _UNSEEN and (tag != "dialog" or "open" not in attributes)):
            changes["why"] = hidden.NOT_SHOWN
        elif tag == "noscript":
            changes["why"] = hidden.NO_SCRIPTS
    if tag == "a" and attributes.get("href"):
        changes["colour"] = LINK
    shown = attributes.get("color") if tag == "font" else attributes.get("text") if tag == "body" else None
    if shown and (colour := _parse_colour(shown.strip().lower())):
        changes["colour"] = colour
    if (ground := attributes.get("bgcolor")) and (colour := _parse_colour(ground.strip().lower())):
        changes["ground"] = colour
    if attributes.get("background") and tag in ("body", "table", "td", "th", "tr"):
        changes["ground"] = None
    return changes


@lru_cache(maxsize=2048)
def _parse_colour(value: str) -> Colour | None:
    """An sRGB colour, or None for what is none."""
    try:
        found = tinycss2.color4.parse_color(value)
        if found is None and re.fullmatch(r"[0-9a-f]{6}", value):
            found = tinycss2.color4.parse_color("#" + value)  # of old attributes
        if found is None or isinstance(found, str):
            return None
        r, g, b = (0.0 if c is None else float(c) for c in found.to("srgb").coordinates)
        return Colour(r, g, b, 1.0 if found.alpha is None else float(found.alpha))
    except NotImplementedError:  # a colour space that the library does not convert
        return None


@lru_cache(maxsize=2048)
def _length(value: str) -> float | None:
    """CSS pixels, roughly: units of layouts are taken for the assumed screen's."""
    match = _LENGTH.fullmatch(value.strip().rstrip(","))
    return float(match[1]) * _UNITS[match[2] or ""] if match else None


def _number(value: str) -> float | None:
    match = re.fullmatch(r"(-?\d*\.?\d+)(%?)", value.strip())
    return max(0.0, min(1.0, float(match[1]) / (100 if match[2] else 1))) if match else None


def _font_size(value: str, outer: float) -> float | None:
    """CSS pixels of `font-size`, or of the size in `font`."""
    for word in value.split():
        word = word.partition("/")[0]
        if word in _SIZES:
            return _SIZES[word]
        match = _LENGTH.fullmatch(word)
        if match and (match[2] or match[1].strip("0.") == ""):
            number, unit = float(match[1]), match[2] or "px"
            if unit in ("em", "%", "ex", "ch"):
                return outer * number / (100 if unit == "%" else 1 if unit == "em" else 2)
            return number * _UNITS[unit]
    return None


def _shrunk(values: dict[str, str]) -> bool:
    """A box of no size whose contents are cut off at its border, or that is scaled to nothing."""
    scale = re.search(r"scale[xy3d]*\(\s*([\d.]+)", values.get("transform", ""))
    if (scale and float(scale[1] if scale[1] != "." else 0) < 0.05) or (
        (value := values.get("scale")) and (number := _number(value.split()[0])) is not None and number < 0.05
    ):
        return True
    cut = {"hidden", "clip", "auto", "scroll"}
    if not any(cut & set(values.get(name, "").split()) for name in ("overflow", "overflow-x", "overflow-y")):
        return False
    sizes = (_length(values.get(name, "")) for name in ("width", "height", "max-width", "max-height"))
    return any(size is not None and size <= hidden.MIN_BOX for size in sizes)


def _clipped(values: dict[str, str]) -> bool:
    """A clip that leaves nothing."""
    if match := re.fullmatch(r"rect\(([^)]*)\)", values.get("clip", "")):
        numbers = [_length(word) for word in re.split(r"[\s,]+", match[1].strip())]
        if len(numbers) == 4 and None not in numbers:
            top, right, bottom, left = (n or 0.0 for n in numbers)
            return bottom - top <= hidden.MIN_BOX or right - left <= hidden.MIN_BOX
    path = values.get("clip-path", "")
    if match := re.match(r"inset\(\s*([^)]*)\)", path):
        insets = [float(n) for n in re.findall(r"([\d.]+)%", match[1])]
        return bool(insets) and (insets[0] >= 50 or (len(insets) > 1 and insets[1] >= 50))
    if match := re.match(r"(?:circle|ellipse)\(\s*([\d.]+)", path):
        return float(match[1]) < 1
    if match := re.fullmatch(r"polygon\((.*)\)", path):
        points = {tuple(point.split()) for point in match[1].split(",")}
        return len({x for x, *_ in points}) < 2 or len({tuple(y) for _, *y in points}) < 2
    return False
