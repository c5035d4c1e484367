"""Stencils: things that a small model cannot draw from circles and boxes, but can name and place.

What: SVG of some common things, in boxes of 100 x 100 that they fill from side to side and stand in on the lower edge.
Invariant: nothing in them comes from a model but one colour of a list.
Interface: `STENCILS`, name -> SVG with `{c}` for the colour; `SKY`, those that hang above the ground.
"""

from __future__ import annotations


def _circle(x: int, y: int, r: int, fill: str = "{c}") -> str:
    return f'<circle cx="{x}" cy="{y}" r="{r}" fill="{fill}"/>'


def _box(x: int, y: int, width: int, height: int, fill: str = "{c}") -> str:
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{fill}"/>'


def _shape(points: str, fill: str = "{c}") -> str:
    return f'<polygon points="{points}" fill="{fill}"/>'


def _oval(x: int, y: int, rx: int, ry: int, fill: str = "{c}") -> str:
    return f'<ellipse cx="{x}" cy="{y}" rx="{rx}" ry="{ry}" fill="{fill}"/>'


def _stroke(path: str, width: int, colour: str = "{c}") -> str:
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width}" stroke-linecap="round"/>'


_LEGS = _stroke("M50 68 L36 97 M50 68 L64 97 M50 40 L28 58 M50 40 L72 58", 6, "black")
_RAYS = _stroke(
    "M50 4 V14 M50 86 V96 M4 50 H14 M86 50 H96 M17 17 L25 25 M83 17 L75 25 M17 83 L25 75 M83 83 L75 75", 5
)
_STAR = "50,5 61,38 96,38 68,59 79,93 50,72 21,93 32,59 4,38 39,38"

STENCILS: dict[str, str] = {
    "house": _box(15, 45, 70, 55) + _shape("5,45 50,5 95,45", "brown") + _box(42, 68, 16, 32, "black")
    + _box(22, 56, 14, 14, "white") + _box(64, 56, 14, 14, "white"),
    "tower": _box(30, 20, 40, 80) + _shape("24,20 50,0 76,20", "brown") + _box(44, 75, 12, 25, "black")
    + _box(44, 35, 12, 14, "white"),
    "tree": _box(44, 60, 12, 40, "brown") + _circle(50, 34, 32) + _circle(26, 50, 20) + _circle(74, 50, 20),
    "fir": _box(44, 80, 12, 20, "brown") + _shape("20,82 50,40 80,82") + _shape("27,58 50,20 73,58")
    + _shape("34,36 50,2 66,36"),
    "flower": _stroke("M50 50 V100 M50 80 L68 68", 6, "green")
    + "".join(_circle(x, y, 14) for x, y in ((50, 14), (72, 30), (64, 56), (36, 56), (28, 30)))
    + _circle(50, 36, 13, "gold"),
    "mountain": _shape("0,100 50,8 100,100") + _shape("37,32 50,8 63,32 54,28 48,34 43,28", "white"),
    "person": _circle(50, 18, 15, "tan") + _LEGS + _box(38, 34, 24, 36),
    "cat": _oval(48, 74, 34, 24) + _circle(50, 38, 24) + _shape("28,28 30,2 48,18") + _shape("72,28 70,2 52,18")
    + _circle(41, 36, 4, "white") + _circle(59, 36, 4, "white") + _shape("46,45 54,45 50,50", "pink")
    + _stroke("M80 80 Q100 60 90 40", 7),
    "dog": _oval(52, 62, 34, 18) + _circle(22, 42, 18) + _oval(12, 50, 12, 8) + _oval(34, 38, 6, 14, "brown")
    + _stroke("M28 74 V98 M42 76 V98 M64 76 V98 M78 74 V98 M84 54 L96 36", 8) + _circle(20, 38, 3, "black"),
    "fish": _oval(44, 50, 40, 24) + _shape("78,50 100,28 100,72") + _circle(22, 44, 5, "white"),
    "bird": _oval(50, 60, 26, 16) + _circle(76, 46, 12) + _shape("86,44 100,48 86,52", "orange")
    + _shape("30,58 4,44 14,66") + _shape("40,56 52,22 62,54", "gray") + _circle(79, 43, 2, "black"),
    "car": _box(4, 58, 92, 26) + _shape("22,58 34,36 68,36 82,58") + _shape("28,56 37,41 50,41 50,56", "white")
    + _shape("54,56 54,41 66,41 75,56", "white") + _circle(26, 86, 13, "black") + _circle(74, 86, 13, "black"),
    "boat": _shape("6,72 94,72 78,98 22,98", "brown") + _box(48, 8, 4, 64, "black") + _shape("54,12 90,66 54,66")
    + _shape("46,20 46,66 16,66"),
    "rocket": _shape("30,76 14,98 34,90", "red") + _shape("70,76 86,98 66,90", "red")
    + _shape("42,92 50,100 58,92", "orange")
    + _box(32, 34, 36, 58) + _shape("32,34 50,0 68,34", "red") + _circle(50, 50, 9, "skyblue"),
    "robot": _box(30, 8, 40, 32) + _circle(42, 24, 5, "white") + _circle(58, 24, 5, "white") + _box(24, 44, 52, 38)
    + _box(30, 82, 12, 18) + _box(58, 82, 12, 18) + _box(10, 46, 10, 32) + _box(80, 46, 10, 32)
    + _box(49, 0, 2, 8, "red"),
    "snowman": _circle(50, 76, 24) + _circle(50, 42, 17) + _circle(50, 18, 12) + _shape("50,18 66,21 50,23", "orange")
    + _circle(46, 14, 2, "black") + _circle(54, 14, 2, "black") + _box(36, 4, 28, 4, "black"),
    "heart": _shape("6,40 94,40 50,96") + _circle(28, 32, 24) + _circle(72, 32, 24),
    "sun": _circle(50, 50, 30) + _RAYS,
    "moon": '<path d="M62 5 A46 46 0 1 0 62 95 A36 46 0 1 1 62 5 Z" fill="{c}"/>',
    "star": _shape(_STAR),
    "cloud": _oval(50, 62, 46, 22) + _circle(36, 46, 22) + _circle(62, 42, 26),
}  # fmt: skip
SKY = frozenset({"sun", "moon", "star", "cloud", "bird"})
