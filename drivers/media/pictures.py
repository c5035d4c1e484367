"""From the bytes of a picture to its pixels.

What: PNG, JPEG, GIF, WebP, BMP, TIFF and PNM, as RGB, upright, the first frame.
Invariant: the size that the header claims is looked at before anything is decoded: no more than `MAX_PIXELS`, whatever
    the file weighs. The decoder is one of a fixed list. What a picture shows on white only, or on black only, is not
    lost: one that is partly transparent is laid on both.
Interface: `open_picture(data, name) -> Picture`; MediaError says what is wrong.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from llmos.abi.limits import MAX_DOCUMENT_BYTES
from llmos.drivers.media.errors import MediaError, part

MAX_PIXELS = 64 << 20  # a large camera's picture; 192 MiB of RGB
MAX_SIDE = 1 << 16
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")

Pixels = npt.NDArray[np.uint8]  # [Y, X, 3], RGB


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture.

    Attributes:
        rgb: u8 [Y, X, 3], on white where it is transparent.
        on_dark: the same on black; None where nothing is transparent.
        format: of the file, such as "PNG".
        frames: that the file holds; the first is here.
    """

    rgb: Pixels
    on_dark: Pixels | None
    format: str
    frames: int

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return int(self.rgb.shape[1])

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return int(self.rgb.shape[0])


def open_picture(data: bytes, name: str = "the picture") -> Picture:
    """Decode a picture.

    Args:
        name: what errors call it.

    Raises:
        MediaError: it is empty, damaged, too large, no picture, or of a format that is not read.
    """
    if not data:
        raise MediaError(f"{name} is empty", why="the file has 0 bytes", do="save it again")
    if len(data) > MAX_DOCUMENT_BYTES:
        raise MediaError(
            f"{name} is too large", why=f"more than {MAX_DOCUMENT_BYTES >> 20} MiB", do="save it smaller"
        )
    pillow = part("PIL.Image")
    try:
        with pillow.open(io.BytesIO(data), formats=FORMATS) as image:
            _measure(image.width, image.height, name)
            frames = int(getattr(image, "n_frames", 1))
            rgb, on_dark = _pixels(image)
            return Picture(rgb, on_dark, str(image.format), frames)
    except MediaError:
        raise
    except (pillow.DecompressionBombError, pillow.DecompressionBombWarning):
        raise _too_many(name, "its header claims far more") from None
    except part("PIL").UnidentifiedImageError:
        raise MediaError(
            f"{name} is no picture that can be read",
            why="its first bytes are of no known format",
            do=f"give one of {', '.join(FORMATS)}",
        ) from None
    except MemoryError:
        raise MediaError(f"{name} does not fit into memory", do="save it smaller") from None
    except Exception as error:  # decoders raise whatever their format suggests
        raise MediaError(
            f"{name} is damaged", why=f"{type(error).__name__}: {error}"[:300], do="save it again"
        ) from None


def _measure(width: int, height: int, name: str) -> None:
    if width < 1 or height < 1:
        raise MediaError(f"{name} has no pixels", why=f"its size is {width} x {height}", do="save it again")
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise _too_many(name, f"it is {width} x {height}")


def _too_many(name: str, why: str) -> MediaError:
    return MediaError(
        f"{name} has too many pixels",
        why=f"{why}; at most {MAX_PIXELS / 1e6:.0f} million are decoded, and {MAX_SIDE} a side",
        do="save it smaller, or cut it into pieces",
    )


def _pixels(image: Any) -> tuple[Pixels, Pixels | None]:
    """RGB on white, and on black where anything is transparent."""
    upright = part("PIL.ImageOps").exif_transpose(image)
    if upright.mode in ("I", "F", "I;16", "I;16B", "I;16L"):
        return _levels(np.asarray(upright)), None
    if upright.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in upright.info:
        clear = upright.convert("RGBA")
        if clear.getextrema()[3][0] < 255:
            return _laid_on(clear, "white"), _laid_on(clear, "black")
        upright = clear
    return np.asarray(upright.convert("RGB"), np.uint8), None


def _laid_on(clear: Any, ground: str) -> Pixels:
    below = part("PIL.Image").new("RGBA", clear.size, ground)
    below.alpha_composite(clear)
    return np.asarray(below.convert("RGB"), np.uint8)


def _levels(values: npt.NDArray[Any]) -> Pixels:
    """Deep greys (16 bits, floats), spread over 256 levels."""
    finite = np.nan_to_num(values.astype(np.float32), posinf=0.0, neginf=0.0)
    low, high = float(finite.min()), float(finite.max())
    grey = np.round((finite - low) * (255.0 / max(high - low, 1e-9))).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)
