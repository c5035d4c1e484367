"""Drawings: what a model may draw, and how that becomes SVG and PNG.

What: a drawing as a pydantic model, so that the grammar lets nothing else be written: things of a list of stencils,
    which a small model places by words, and plain shapes, placed by numbers. What a description names
    by a stencil's name has to be drawn, in the colour that it says. SVG of it; PNG by resvg.
Invariant: every drawing that the grammar admits is a valid SVG file, without scripts, links or files from elsewhere: it
    is written here, from numbers, colours of a list and escaped words.
Interface: `form(description)`, the type to ask for by `prompt(description)`; `drawing(answer, description)`;
    `svg(drawing)`; `png(svg, width)`.
"""

from __future__ import annotations

import importlib
import re
from collections import Counter
from itertools import zip_longest
from typing import Annotated, Any, Literal, cast, get_args
from xml.sax.saxutils import escape

from pydantic import BaseModel, Field, create_model

from llmos.apps.multimodal.studio_stencils import SKY, STENCILS
from llmos.drivers.media.errors import MediaError

CANVAS = 100  # the drawing's own units from side to side: few digits, so few tokens
HORIZON = 68  # where the ground begins
MAX_PARTS = 10  # as many as an answer of usual length holds
SMALLEST, LARGEST = 16, 2048  # pixels of a side

Place = Annotated[int, Field(ge=0, le=CANVAS)]
Length = Annotated[int, Field(ge=1, le=CANVAS)]
Colour = Literal[
    "black", "white", "gray", "silver", "red", "darkred", "orange", "gold", "yellow", "green", "lightgreen", "olive",
    "blue", "navy", "skyblue", "teal", "purple", "violet", "pink", "brown", "tan", "beige",
]  # fmt: skip
Name = Literal[
    "house", "tower", "tree", "fir", "flower", "mountain", "person", "cat", "dog", "fish", "bird", "car", "boat",
    "rocket", "robot", "snowman", "heart", "sun", "moon", "star", "cloud",
]  # fmt: skip
_ALSO = {
    "man": "person", "woman": "person", "boy": "person", "girl": "person", "child": "person", "people": "person",
    "ship": "boat", "sailboat": "boat", "castle": "tower", "spaceship": "rocket", "hill": "mountain", "kitten": "cat",
    "puppy": "dog", "pine": "fir", "rose": "flower", "snowmen": "snowman", "ball": "circle", "disc": "circle",
    "square": "rectangle", "box": "rectangle", "bar": "rectangle", "stripe": "rectangle", "oval": "ellipse",
}  # fmt: skip
_NATURAL = {
    "house": "orange", "tower": "gray", "tree": "green", "fir": "green", "flower": "pink", "mountain": "gray",
    "person": "blue", "cat": "gray", "dog": "tan", "fish": "orange", "bird": "blue", "car": "red", "boat": "beige",
    "rocket": "silver", "robot": "gray", "snowman": "silver", "heart": "red", "sun": "yellow", "moon": "yellow",
    "star": "gold", "cloud": "silver",
}  # fmt: skip
_WORDY = re.compile(r"\b(words?|text|title|says|saying|written|sign|label)\b|[\"“«]", re.IGNORECASE)
_LANDS = {
    "grass": "grass", "meadow": "grass", "garden": "grass", "sand": "sand", "beach": "sand", "desert": "sand",
    "snow": "snow", "winter": "snow", "sea": "sea", "ocean": "sea", "lake": "sea", "water": "sea", "street": "street",
    "road": "street", "space": "none",
}  # fmt: skip
_COUNTS = {"two": "2", "three": "3", "four": "4", "five": "5", "six": "6"}
_BETWEEN = frozenset({"a", "an", "the", "and", "with"})
_GROUNDS = {"grass": "green", "sand": "tan", "snow": "white", "sea": "teal", "street": "gray"}
_ACROSS = {"far left": 14, "left": 30, "middle": 50, "right": 70, "far right": 86}
_SIZES = {"small": 18, "medium": 30, "large": 48}


class Placed(BaseModel):
    """Where a thing stands."""

    where: Literal["far left", "left", "middle", "right", "far right"]
    size: Literal["small", "medium", "large"]


class Thing(Placed):
    """A stencil in its place."""

    thing: Name
    colour: Colour


class Circle(BaseModel):
    """Around (x, y)."""

    shape: Literal["circle"]
    x: Place
    y: Place
    radius: Length
    colour: Colour


class Box(BaseModel):
    """From its upper left corner (x, y); a triangle stands in its box, an ellipse fills it."""

    shape: Literal["rectangle", "triangle", "ellipse"]
    x: Place
    y: Place
    width: Length
    height: Length
    colour: Colour


class Rectangle(Box):
    """A box that is known to be one."""

    shape: Literal["rectangle"]


class Triangle(Box):
    """A box that is known to be one."""

    shape: Literal["triangle"]


class Ellipse(Box):
    """A box that is known to be one."""

    shape: Literal["ellipse"]


class Line(BaseModel):
    """From (x, y) to (to_x, to_y)."""

    shape: Literal["line"]
    x: Place
    y: Place
    to_x: Place
    to_y: Place
    thickness: Annotated[int, Field(ge=1, le=20)]
    colour: Colour


class Words(BaseModel):
    """In the middle around (x, y)."""

    shape: Literal["words"]
    x: Place
    y: Place
    text: Annotated[str, Field(min_length=1, max_length=40)]
    size: Annotated[int, Field(ge=3, le=40)]
    colour: Colour


Shape = Circle | Box | Line | Words


class Scene(BaseModel):
    """What every drawing has."""

    background: Colour
    ground: Literal["grass", "sand", "snow", "sea", "street", "none"]


class Drawing(Scene):
    """Parts on a ground, each in front of those before it."""

    parts: Annotated[list[Shape | Thing], Field(min_length=1, max_length=MAX_PARTS)]


_KNOWN: dict[str, type[BaseModel]] = {
    **dict.fromkeys(STENCILS, Placed),
    "circle": Circle, "rectangle": Rectangle, "triangle": Triangle, "ellipse": Ellipse, "line": Line,
}  # fmt: skip


def named(description: str) -> list[tuple[str, str]]:
    """What a description names, stencils and shapes, each with the colour that it says or that is natural ("" where
    neither is known): as often as it says, as many as a drawing holds."""
    found: list[tuple[str, str]] = []
    count, colour = 1, ""
    for word in re.findall(r"[a-z]+|\d+", description.lower()):
        forms = (word, word.removesuffix("s"), word.removesuffix("es"))
        name = next((_ALSO.get(form, form) for form in forms if _ALSO.get(form, form) in _KNOWN), "")
        if name:
            found += [(name, colour or _NATURAL.get(name, ""))] * count
            count, colour = 1, ""
        elif word in _COUNTS or word.isdigit():
            count = min(int(_COUNTS.get(word, word)), MAX_PARTS)
        elif word in get_args(Colour):
            colour = word
        elif word in _BETWEEN:
            count, colour = 1, ""
    return found[:MAX_PARTS]


def form(description: str) -> type[Scene]:
    """The type of the answer: a field for each thing and shape that the description names; where it names none, or
    speaks of words, parts as the model likes."""
    things = named(description)
    if not things:
        return Drawing
    fields: dict[str, Any] = {f"{name}_{at}": (_KNOWN[name], ...) for at, (name, _) in enumerate(things, 1)}
    if _WORDY.search(description):
        fields["words"] = (Words, ...)
    words = set(re.findall(r"[a-z]+", description.lower()))
    if ground := next((_LANDS[word] for word in sorted(words & _LANDS.keys())), ""):
        fields["ground"] = (Literal[ground], ...)
    behind = [
        c for c in get_args(Colour) if c not in {colour for _, colour in things}
    ]  # what is in front is seen
    fields["background"] = (Literal["navy", "black"] if words & {"night", "space"} else Literal[*behind], ...)
    return create_model("Drawing", __base__=Scene, **fields)


def drawing(answer: Scene, description: str) -> Drawing:
    """What an answer of the type `form(description)` says, as parts."""
    if isinstance(answer, Drawing):
        return answer
    values = [value for _, value in answer if isinstance(value, BaseModel)]
    parts: list[Shape | Thing] = []
    for value, (name, colour) in zip_longest(values, named(description), fillvalue=("", "")):
        if isinstance(value, Placed):
            parts.append(Thing(thing=cast(Name, name), colour=cast(Colour, colour), **value.model_dump()))
        elif isinstance(value, Circle | Box | Line | Words):
            parts.append(value.model_copy(update={"colour": colour} if colour else {}))
    return Drawing(background=answer.background, ground=answer.ground, parts=parts)


def prompt(description: str) -> str:
    """What the model is asked."""
    numbers = f"placed by numbers from 0 to {CANVAS}, x from the left, y from the top"
    if named(description):
        parts = f"Place each thing where nothing else stands. Shapes and words are {numbers}."
    else:
        parts = f"Its parts are shapes, {numbers}; or things, placed by words: {', '.join(STENCILS)}."
    return f"""A drawing has a background colour, a ground and parts. {parts}

Draw this, every part of it and nothing else: {description}"""


def svg(drawing: Drawing) -> str:
    """The drawing as an SVG file."""
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {CANVAS} {CANVAS}">',
        f'<rect width="{CANVAS}" height="{CANVAS}" fill="{drawing.background}"/>',
    ]
    if drawing.ground != "none":
        fill = _GROUNDS[drawing.ground]
        lines.append(f'<rect y="{HORIZON}" width="{CANVAS}" height="{CANVAS - HORIZON}" fill="{fill}"/>')
    taken: Counter[tuple[str, bool]] = Counter()
    for part in drawing.parts:
        if isinstance(part, Thing):
            spot = (part.where, part.thing in SKY)
            lines.append(_stencil(part, taken[spot], drawing.ground != "none"))
            taken[spot] += 1
        else:
            lines.append(_element(part))
    return "\n".join([*lines, "</svg>\n"])


def _stencil(part: Thing, before: int, grounded: bool) -> str:
    """A thing in its place; one that others stand in already steps aside."""
    size = _SIZES[part.size]
    aside = (before + 1) // 2 * (7 if before % 2 else -7)
    x = min(max(_ACROSS[part.where] - size / 2 + aside, 0), CANVAS - size)
    if part.thing in SKY:
        y = 5.0 + 6 * (before % 4)
    else:
        base = HORIZON + 12 + 4 * (before % 3) if grounded else (CANVAS + size) / 2
        y = base - size
    inner = STENCILS[part.thing].replace("{c}", part.colour)
    return f'<g transform="translate({x:g} {y:g}) scale({size / 100:g})">{inner}</g>'


def _element(shape: Circle | Box | Line | Words) -> str:
    match shape:
        case Circle(x=x, y=y, radius=radius, colour=colour):
            return f'<circle cx="{x}" cy="{y}" r="{radius}" fill="{colour}"/>'
        case Box(shape=kind, x=x, y=y, width=width, height=height, colour=colour):
            middle, low = x + width / 2, y + height
            if kind == "triangle":
                return f'<polygon points="{x},{low} {middle:g},{y} {x + width},{low}" fill="{colour}"/>'
            if kind == "ellipse":
                around = f'cx="{middle:g}" cy="{y + height / 2:g}"'
                return f'<ellipse {around} rx="{width / 2:g}" ry="{height / 2:g}" fill="{colour}"/>'
            return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{colour}"/>'
        case Line(x=x, y=y, to_x=to_x, to_y=to_y, thickness=thickness, colour=colour):
            ends = f'x1="{x}" y1="{y}" x2="{to_x}" y2="{to_y}"'
            return f'<line {ends} stroke="{colour}" stroke-width="{thickness}" stroke-linecap="round"/>'
        case Words(x=x, y=y, text=text, size=size, colour=colour):
            face = 'font-family="sans-serif" text-anchor="middle" dominant-baseline="middle"'
            words = escape("".join(letter for letter in text if letter.isprintable()))  # XML holds no others
            return f'<text x="{x}" y="{y}" font-size="{size}" {face} fill="{colour}">{words}</text>'


def png(source: str, width: int) -> bytes:
    """A square PNG of an SVG of ours, `width` pixels wide; MediaError where resvg is missing."""
    drawn: bytes = part("resvg_py").svg_to_bytes(svg_string=source, width=width, height=width)
    return bytes(drawn)


def part(module: str) -> Any:
    """A library of the extra `studio`; MediaError where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MediaError(f"the library {module!r} is missing", do="pip install 'llmos[studio]'") from None
