"""Pictures that tests draw, with the font that Pillow brings."""

import io
from collections.abc import Iterable
from typing import Any

from PIL import Image, ImageDraw, ImageFont

Text = tuple[int, int, str, Any]  # x, y, words, colour


def page(
    texts: Iterable[Text], size: tuple[int, int] = (640, 200), ground: Any = "white", height: int = 24
) -> Image.Image:
    """A picture with some words on it."""
    image = Image.new("RGB" if isinstance(ground, str) else "RGBA", size, ground)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(height)
    for x, y, words, colour in texts:
        draw.text((x, y), words, fill=colour, font=font)
    return image


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """The bytes of a file."""
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()
