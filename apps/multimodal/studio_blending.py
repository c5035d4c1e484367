"""Two pictures in one.

What: modes that mix pixel by pixel, a mask, a fade, and pictures side by side.
Invariant: the second picture is fitted to the first, cut to its shape where theirs differ, never stretched; side by
    side nothing is cut. What comes out has at most `LARGEST` pixels a side. Colours are mixed as they are
    stored (sRGB), as painting programs do.
Interface: `blend(first, second, mode, share, mask)`; `Mode`; `encoded(rgb)` as PNG.
"""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from llmos.drivers.media.errors import MediaError, part
from llmos.drivers.media.pictures import Pixels

LARGEST = 1600  # pixels of a side of what is made: 8 MiB at worst, and a message holds 16 in base64

Mode = Literal[
    "mix", "multiply", "screen", "overlay", "darken", "lighten", "difference", "add", "fade_right", "fade_down",
    "beside", "below", "inset",
]  # fmt: skip
Light = npt.NDArray[np.float32]  # [Y, X, 3] or [Y, X, 1], 0 to 1


def blend(
    first: Pixels, second: Pixels, mode: Mode, share: float = 0.5, mask: Pixels | None = None
) -> Pixels:
    """One picture from two, u8 [Y, X, 3].

    Args:
        share: of the second picture, 0 to 1; for `inset` of the width that it takes.
        mask: where it is light the blend is seen, where it is dark the first picture; not for those set side by side.

    Raises:
        MediaError: a mask where none is used.
    """
    first = _within(first, LARGEST)
    if mode in ("beside", "below", "inset"):
        if mask is not None:
            raise MediaError(f"a mask for {mode!r}", why="nothing is mixed there", do="leave the mask out")
        return _placed(first, second, mode, share)
    height, width = first.shape[:2]
    below, above = _light(first), _light(_fitted(second, width, height))
    seen = np.float32(share) if mask is None else np.float32(share) * _grey(_fitted(mask, width, height))
    if mode.startswith("fade"):
        ramp = np.linspace(0, 1, width if mode == "fade_right" else height, dtype=np.float32)
        seen = seen * 2 * (ramp[None, :, None] if mode == "fade_right" else ramp[:, None, None])
    return _pixels(below + (_mixed(below, above, mode) - below) * np.clip(seen, 0, 1))


def _mixed(below: Light, above: Light, mode: str) -> Light:
    """The blend at its full strength."""
    match mode:
        case "multiply":
            return below * above
        case "screen":
            return 1 - (1 - below) * (1 - above)
        case "overlay":
            return np.where(below < 0.5, 2 * below * above, 1 - 2 * (1 - below) * (1 - above))
        case "darken":
            return np.minimum(below, above)
        case "lighten":
            return np.maximum(below, above)
        case "difference":
            return np.abs(below - above)
        case "add":
            return np.minimum(below + above, 1)
    return above


def _placed(first: Pixels, second: Pixels, mode: str, share: float) -> Pixels:
    """Both pictures, whole: of one height, of one width, or the second small in a corner of the first."""
    height, width = first.shape[:2]
    if mode == "inset":
        side = max(round(width * share), 1)
        small = _within(second, side, up=True)[:height]
        made = first.copy()
        margin = min(width // 32, height - small.shape[0], width - small.shape[1])
        low, right = height - margin, width - margin
        made[low - small.shape[0] : low, right - small.shape[1] : right] = small
        return made
    if mode == "beside":
        scaled = _sized(second, max(round(second.shape[1] * height / second.shape[0]), 1), height)
        return _within(np.concatenate((first, scaled), axis=1), LARGEST)
    scaled = _sized(second, width, max(round(second.shape[0] * width / second.shape[1]), 1))
    return _within(np.concatenate((first, scaled), axis=0), LARGEST)


def _fitted(rgb: Pixels, width: int, height: int) -> Pixels:
    """A picture that fills width x height; what sticks out is cut off evenly."""
    image = part("PIL.Image").fromarray(rgb)
    return np.asarray(part("PIL.ImageOps").fit(image, (width, height)), np.uint8)


def _within(rgb: Pixels, side: int, *, up: bool = False) -> Pixels:
    """A picture that is no larger than `side` either way; with `up`, not smaller both ways."""
    scale = side / max(rgb.shape[:2])
    if scale >= 1 and not up:
        return rgb
    height, width = (max(round(length * scale), 1) for length in rgb.shape[:2])
    return _sized(rgb, width, height)


def _sized(rgb: Pixels, width: int, height: int) -> Pixels:
    if max(width, height) > 16 * LARGEST:
        raise MediaError(
            "the pictures do not go together",
            why=f"one of them would be {width} x {height} pixels beside the other",
            do="cut the narrower one first",
        )
    return np.asarray(part("PIL.Image").fromarray(rgb).resize((width, height)), np.uint8)


def _light(rgb: Pixels) -> Light:
    return rgb.astype(np.float32) / np.float32(255)


def _grey(rgb: Pixels) -> Light:
    return _light(rgb).mean(axis=2, keepdims=True, dtype=np.float32)


def _pixels(light: Light) -> Pixels:
    return np.round(np.clip(light, 0, 1) * 255).astype(np.uint8)


def encoded(rgb: Pixels) -> bytes:
    """A PNG of it."""
    image: Any = part("PIL.Image").fromarray(rgb)
    out = io.BytesIO()
    image.save(out, format="PNG")
    return out.getvalue()
