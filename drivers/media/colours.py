"""The colours that a picture is made of, with names.

What: the few colours that cover most of a picture, by share.
Invariant: shares are of all pixels, and add up to at most 1.
Interface: `dominant(rgb) -> list[Colour]`, the largest first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llmos.drivers.media.errors import part
from llmos.drivers.media.pictures import Pixels

_SIDE = 128  # pixels a side that colours are counted on
_PALETTE = 16
_WORTH = 0.03  # share that a colour must have to be told
_NAMES = {
    "black": (0, 0, 0), "dark grey": (72, 72, 72), "grey": (128, 128, 128), "light grey": (200, 200, 200),
    "white": (255, 255, 255), "red": (214, 30, 30), "dark red": (120, 16, 16), "orange": (245, 140, 20),
    "brown": (120, 72, 32), "beige": (230, 214, 180), "yellow": (248, 224, 40), "olive": (128, 128, 20),
    "green": (40, 160, 50), "dark green": (16, 80, 24), "light green": (150, 225, 140), "teal": (10, 128, 128),
    "cyan": (60, 220, 230), "light blue": (150, 200, 240), "blue": (40, 90, 220), "dark blue": (16, 24, 104),
    "purple": (128, 40, 160), "magenta": (225, 40, 200), "pink": (248, 170, 190),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Colour:
    """A colour: its name, its value as #rrggbb, and the share of the pixels that it covers."""

    name: str
    hex: str
    share: float


def dominant(rgb: Pixels, most: int = 5) -> list[Colour]:
    """The colours that cover the picture; those of one name are told once, by their commonest value."""
    pillow = part("PIL.Image")
    image = pillow.fromarray(rgb)
    image.thumbnail((_SIDE, _SIDE), pillow.Resampling.BOX)
    small = image.quantize(_PALETTE, kmeans=2)
    counted = sorted(small.getcolors(_PALETTE) or [], reverse=True)
    palette = small.getpalette() or []
    found: dict[str, Colour] = {}
    total = sum(count for count, _ in counted)
    for count, index in counted:
        red, green, blue = palette[3 * index : 3 * index + 3]
        name, share = _name(red, green, blue), count / total
        if name in found:
            share += found[name].share
            found[name] = Colour(name, found[name].hex, share)
        else:
            found[name] = Colour(name, f"#{red:02x}{green:02x}{blue:02x}", share)
    told = sorted(found.values(), key=lambda colour: -colour.share)[:most]
    return [Colour(c.name, c.hex, round(c.share, 3)) for c in told if c.share >= _WORTH]


def _name(red: int, green: int, blue: int) -> str:
    """The nearest of the names, as eyes see it."""
    lab = _lab(np.array([(red, green, blue), *_NAMES.values()], np.float64))
    return list(_NAMES)[int(np.linalg.norm(lab[1:] - lab[0], axis=1).argmin())]


def _lab(rgb_NC: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """CIE L*a*b* (D65) of sRGB values in 0..255."""
    c = rgb_NC / 255.0
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.072175],
            [0.0193339, 0.119192, 0.9503041],
        ]
    )
    xyz = linear @ to_xyz.T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)
