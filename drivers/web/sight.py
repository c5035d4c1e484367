"""Whether a text is seen, as far as markup and styles tell without a layout.

What: what an element hands down to the texts in it (`State`), and what its kind, its attributes and its declarations
    make of what stands around it.
Invariant: what cannot be judged so is said in `doubts`, never guessed.
Interface: `State` (`reason`), `markup(tag, attributes, state) -> changes`, `Sight(sheets, doubts)`: `changed(declared,
    changes, state) -> State`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import tinycss2.color4

from llmos.drivers.web import hidden
from llmos.drivers.web.hidden import BLACK, LINK, WHITE, Colour
from llmos.drivers.web.numbered import Attributes
from llmos.drivers.web.sheets import Sheets, understood

_SIZES = {
    "xx-small": 9, "x-small": 10, "small": 13, "medium": 16, "large": 18, "x-large": 24, "xx-large": 32,
    "smaller": 13, "larger": 19,
}  # fmt: skip
_UNSEEN = frozenset({"dialog", "noembed", "noframes"})  # a dialog unless it is open
_LENGTH = re.compile(r"(-?\d*\.?\d+)(px|pt|em|rem|ex|ch|%|vw|vh|in|cm|mm|pc|q|vmin|vmax)?")
_UNITS = {
    "px": 1.0, "pt": 4 / 3, "em": 16.0, "rem": 16.0, "ex": 8.0, "ch": 8.0, "%": 12.8, "vw": 12.8, "vh": 9.0, "in": 96.0,
    "cm": 37.8, "mm": 3.78, "pc": 16.0, "q": 0.945, "vmin": 9.0, "vmax": 12.8, "": 1.0,
}  # fmt: skip


@dataclass(frozen=True)
class State:
    """What an element hands down to what stands in it; one object for all elements that are alike."""

    why: str = ""  # that hides it and all within
    visible: bool = True
    size: float = 16.0
    colour: Colour = BLACK
    ground: Colour | None = WHITE  # None: a picture
    opacity: float = 1.0
    outside: State | None = None  # of a closed <details>: what its summary goes by

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


class Sight:
    """What the styles of one page do to its texts.

    Args:
        doubts: where what cannot be judged is written down.
    """

    def __init__(self, sheets: Sheets, doubts: dict[str, None]) -> None:
        self._sheets, self._doubts = sheets, doubts

    def changed(self, declared: dict[str, str] | None, changes: dict[str, object], state: State) -> State:
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

    def _applied(self, values: dict[str, str], state: State, outer: State) -> State:
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


def markup(tag: str, attributes: Attributes, state: State) -> dict[str, object]:
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
