"""Style sheets, as far as they can hide text.

What: reads CSS by tinycss2 and keeps the declarations that can make text invisible, with selector, weight and order,
    for a screen 1280 pixels wide.
Invariant: what it does not understand, and what could hide something, is in `doubts`: the page is then read by
    Chromium, which understands it. It never guesses that something unknown hides nothing.
Interface: `Sheets()`: `add(css)`, `resolve(value) -> str | None`, `rules`, `doubts`; `declarations(style)` for the
    attribute.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import tinycss2

WIDTH, HEIGHT = 1280, 900  # of the screen that is assumed, CSS pixels
MAX_CSS = 1 << 20  # characters of all sheets of a page
PROPERTIES = frozenset(
    """display visibility opacity font-size font color background background-color background-image position left right
    top bottom inset margin margin-left margin-top text-indent clip clip-path width height max-width max-height overflow
    overflow-x overflow-y transform translate scale filter content-visibility animation animation-name
    -webkit-text-fill-color mask mask-image zoom all""".split()
)
_UNKNOWN = re.compile(r"\b(calc|min|max|clamp|attr|env|color-mix|light-dark)\(")
_HARMLESS = re.compile(
    r"@(charset|font-face|page|namespace|property|counter-style|font-feature-values|view-transition)\b"
)
_CONDITION = re.compile(r"\(\s*(min|max)-(width|height)\s*:\s*([\d.]+)(px|em|rem)\s*\)")
_KNOWN_MEDIA = {  # features of the assumed screen
    "prefers-color-scheme: dark": False, "prefers-color-scheme: light": True, "hover: hover": True, "hover": True,
    "hover: none": False, "pointer: fine": True, "pointer: coarse": False, "any-hover: hover": True,
    "prefers-reduced-motion: reduce": False, "prefers-reduced-motion": False, "prefers-contrast: more": False,
    "prefers-reduced-motion: no-preference": True, "orientation: landscape": True, "orientation: portrait": False,
    "forced-colors: active": False, "scripting: none": False, "scripting: enabled": True,
}  # fmt: skip
_ROOTS = frozenset({":root", "html", "body", "*"})

Declarations = dict[str, tuple[str, bool]]  # property -> (value in lower case, important)


@dataclass(frozen=True, slots=True)
class Rule:
    """One selector and what it declares."""

    selector: str
    weight: tuple[int, int, int]
    order: int
    declared: Declarations


class Sheets:
    """All style sheets of a page, in order."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self.doubts: list[str] = []
        self.hiding_animations: set[str] = set()
        self._variables: dict[str, str] = {}
        self._size = 0

    def add(self, css: str) -> None:
        """Read one more sheet."""
        self._size += len(css)
        if self._size > MAX_CSS:
            self.doubts.append("more style sheets than are read")
            return
        try:
            self._read(tinycss2.parse_stylesheet(css, skip_comments=True, skip_whitespace=True))
        except RecursionError:
            self.doubts.append("a style sheet that is nested too deeply")

    def resolve(self, value: str) -> str | None:
        """A value with its variables filled in; None where one of them is not known."""
        for _ in range(8):
            if "var(" not in value:
                return value
            filled = _VARIABLE.sub(
                lambda m: self._variables.get(m[1], (m[2] or "").strip() or "\0"), value, count=1
            )
            if "\0" in filled or filled == value or len(filled) > 4096:
                return None
            value = filled
        return None

    def _read(self, nodes: Iterable[Any]) -> None:
        for node in nodes:
            if node.type == "qualified-rule":
                self._rule(node)
            elif node.type == "at-rule":
                self._at_rule(node)

    def _rule(self, node: Any) -> None:
        selector = tinycss2.serialize(node.prelude).strip()
        found, nested = _declared(node.content)
        if nested:
            self.doubts.append("nested rules")
        if set(map(str.strip, selector.split(","))) & _ROOTS:
            self._variables |= {name: value for name, (value, _) in found.items() if name.startswith("--")}
        kept = {name: value for name, value in found.items() if name in PROPERTIES}
        if kept:
            for one in _split(selector):
                self.rules.append(Rule(one, _weight(one), len(self.rules), kept))

    def _at_rule(self, node: Any) -> None:
        name, prelude = node.lower_at_keyword, tinycss2.serialize(node.prelude).strip().lower()
        if name == "media":
            applies = media_applies(prelude)
            if applies is None:
                self.doubts.append(f"@media {prelude[:40]}")
            elif applies:
                self._inner(node)
        elif name in ("layer", "supports", "starting-style"):
            if node.content is not None and name != "starting-style":
                self._inner(node)
        elif name.endswith("keyframes"):
            body = tinycss2.serialize(node.content or []).lower()
            if re.search(
                r"opacity|visibility|display|color|font-size|transform|clip|filter|left|top|indent", body
            ):
                self.hiding_animations.add(prelude)
        elif not _HARMLESS.match("@" + name):
            self.doubts.append(f"@{name}")

    def _inner(self, node: Any) -> None:
        self._read(tinycss2.parse_rule_list(node.content or [], skip_comments=True, skip_whitespace=True))


def declarations(style: str) -> Declarations:
    """What a `style` attribute declares, of the properties that matter."""
    found, _ = _declared(tinycss2.parse_component_value_list(style[:20_000]))
    return {name: value for name, value in found.items() if name in PROPERTIES}


def understood(value: str) -> bool:
    """Whether a value can be judged here: no arithmetic that only a layout can do."""
    return not _UNKNOWN.search(value)


_VARIABLE = re.compile(r"var\(\s*(--[\w-]+)\s*(?:,([^()]*(?:\([^()]*\)[^()]*)*))?\)")


def _declared(content: Any) -> tuple[Declarations, bool]:
    """The declarations in a block, and whether there are rules nested in it."""
    found: Declarations = {}
    nested = False
    for node in tinycss2.parse_blocks_contents(content or [], skip_comments=True, skip_whitespace=True):
        if node.type == "declaration":
            value = tinycss2.serialize(node.value).strip().lower()
            name = node.name if node.name.startswith("--") else node.lower_name
            if node.important or name not in found or not found[name][1]:
                found.pop(name, None)  # the later one stands later
                found[name] = (value, node.important)
        elif node.type in ("qualified-rule", "at-rule"):
            nested = True
    return found, nested


def media_applies(query: str) -> bool | None:
    """Whether a media query holds on the assumed screen; None where that is not known."""
    answers = [_one_media(one.strip()) for one in query.split(",")]
    if any(answers):
        return True
    return None if None in answers else False


def _one_media(query: str) -> bool | None:
    negated = query.startswith("not ")
    query = query.removeprefix("not ").removeprefix("only ").strip()
    if " or " in query or "<" in query or ">" in query:
        return None
    result: bool | None = True
    for part in filter(None, (p.strip() for p in query.split(" and "))):
        holds = _feature(part)
        if holds is False:
            result = False
            break
        if holds is None:
            result = None
    return None if result is None else result != negated


def _feature(part: str) -> bool | None:
    if part in ("all", "screen", ""):
        return True
    if part in ("print", "speech", "tty", "tv", "handheld", "projection", "braille"):
        return False
    if match := _CONDITION.fullmatch(part):
        size = float(match[3]) * (1 if match[4] == "px" else 16)
        screen = WIDTH if match[2] == "width" else HEIGHT
        return screen >= size if match[1] == "min" else screen <= size
    return _KNOWN_MEDIA.get(re.sub(r"\s*:\s*", ": ", part.strip("() ")))


def _split(selector: str) -> list[str]:
    """The selectors of a list, parentheses and strings respected."""
    parts, depth, begin = [], 0, 0
    for at, c in enumerate(selector):
        if c in "([":
            depth += 1
        elif c in ")]":
            depth -= 1
        elif c == "," and depth == 0:
            parts.append(selector[begin:at].strip())
            begin = at + 1
    parts.append(selector[begin:].strip())
    return [part for part in parts if part]


def _weight(selector: str) -> tuple[int, int, int]:
    """Specificity: ids; classes, attributes, pseudo-classes; elements."""
    bare = re.sub(r"\[[^\]]*\]", "[]", selector)
    bare = re.sub(r":where\([^)]*\)", "", bare)
    ids = len(re.findall(r"#[\w-]", bare))
    classes = len(re.findall(r"\.[\w-]|\[\]|(?<!:):(?!not|is|has|:)[\w-]+", bare))
    elements = len(re.findall(r"(?:^|[\s>+~(])[a-zA-Z][\w-]*", bare))
    return ids, classes, elements
