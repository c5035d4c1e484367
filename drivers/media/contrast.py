"""What hardly stands out: how much text differs from its ground, and a picture in which faint text is dark.

What: differences from the local ground, in levels of 256, the strongest colour channel's.
Invariant: says what an eye may miss; never decides what is an attack. Text that does not stand out by `FAINT` levels is
    faint: people pass over it, a program that reads the same picture does not.
Interface: `difference(rgb, box)`, `stretch(rgb, known)`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from llmos.drivers.media.errors import part
from llmos.drivers.media.pictures import Pixels

FAINT = 40  # levels of 256: #d7d7d7 on white, #282828 on black
_GROUND = 41  # pixels across the neighbourhood whose median is the ground; wider than a letter's stroke
_NOISE = 4.0  # faint text stands out from noise by so many times its size
_BLACK = 4.0  # levels that become black where there is no noise: one level is then a grey that is still read
_LEAST = 6  # pixels that must stand out at all, for there to be text

Box = tuple[int, int, int, int]  # left, top, width, height


def difference(rgb: Pixels, box: Box) -> float:
    """Levels by which the text in `box` stands out: between its ground and the pixels farthest from it."""
    left, top, width, height = box
    part_YXC = rgb[top : top + height, left : left + width].reshape(-1, 3).astype(np.int16)
    if not part_YXC.size:
        return 0.0
    ground_C = np.median(part_YXC, axis=0)
    away = np.abs(part_YXC - ground_C).max(axis=1)
    return float(np.percentile(away, 97))  # a thin font covers a tenth of its box; the last few are noise


def stretch(rgb: Pixels, known: Sequence[Box] = ()) -> Pixels | None:
    """A picture in which whatever differs a little from its ground is black on white.

    Args:
        known: boxes that are left white: what stands there was read already.

    Returns:
        u8 [Y, X, 3]; None where nothing is faint.
    """
    cv2 = part("cv2")
    size = min(_GROUND, (min(rgb.shape[:2]) - 1) | 1)
    if size < 3:
        return None
    away: npt.NDArray[np.uint8] = cv2.absdiff(rgb, cv2.medianBlur(rgb, size)).max(axis=2)
    shown = np.ones(away.shape, bool)
    for left, top, width, height in known:
        pad = max(2, height // 4)
        shown[max(0, top - pad) : top + height + pad, max(0, left - pad) : left + width + pad] = False
    faint = away[shown & (away < FAINT)]
    if not faint.size:
        return None
    noise = float(np.percentile(faint, 75))
    least = max(1.0, _NOISE * noise)
    if least >= FAINT or np.count_nonzero(faint >= least) < _LEAST:
        return None
    dark = np.clip((away.astype(np.float32) - noise) / (max(least, _BLACK) - noise), 0.0, 1.0)
    grey = np.where(shown, 255.0 - 255.0 * dark, 255.0).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)
