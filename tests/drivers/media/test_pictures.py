"""Pictures: what is read, what is refused before it is decoded, what is damaged."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from llmos.drivers.media.colours import dominant
from llmos.drivers.media.errors import MediaError
from llmos.drivers.media.pictures import MAX_PIXELS, open_picture
from tests.drivers.media.drawn import encoded, page

RED = Image.new("RGB", (30, 20), (255, 0, 0))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG whose header claims a size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM"])
def test_formats(form: str) -> None:
    picture = open_picture(encoded(RED, form))
    assert (picture.width, picture.height, picture.format) == (30, 20, form)
    assert picture.frames == 1 and picture.on_dark is None
    assert np.abs(picture.rgb.astype(int) - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "0 bytes"),
        (b"just some words", "no known format"),
        (b"%PDF-1.7 a document", "no known format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no known format"),
        (encoded(RED)[:60], "damaged"),
        (encoded(page([], (200, 200)), "JPEG")[:300], "damaged"),
        (png(60_000, 60_000), "million are decoded"),  # 10 GiB of pixels in 100 bytes
        (png(9_000, 9_000), "million are decoded"),
        (png(MAX_PIXELS, 1), "million are decoded"),
        (png(100_000, 3), "a side"),
        (png(0, 5), "has no pixels|damaged|no known"),
        (png(100, 100), "damaged"),  # pixels are missing
    ],
)
def test_what_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(MediaError, match=words) as caught:
        open_picture(data, "p.png")
    assert "p.png" in caught.value.what and caught.value.do


def test_a_text_chunk_that_unpacks_to_gigabytes_is_refused() -> None:
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(80 << 20)))
    data = encoded(RED)
    with pytest.raises(MediaError, match="damaged"):
        open_picture(data[:33] + bomb + data[33:])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"]), st.data())
def test_damage_is_a_typed_error_or_a_picture(form: str, data: st.DataObject) -> None:
    raw = bytearray(encoded(page([(2, 2, "abc", "black")], (40, 30)), form))
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        open_picture(bytes(raw[: data.draw(st.integers(1, len(raw)))]))
    except MediaError as error:
        assert error.what and (error.why or error.do)


def test_a_transparent_picture_is_seen_on_white_and_on_black() -> None:
    image = Image.new("RGBA", (10, 10), (255, 255, 255, 0))
    image.putpixel((5, 5), (255, 255, 255, 255))
    picture = open_picture(encoded(image))
    assert picture.rgb.min() == 255  # white on white
    assert picture.on_dark is not None and picture.on_dark[5, 5].tolist() == [255, 255, 255]
    assert picture.on_dark[0, 0].tolist() == [0, 0, 0]
    indexed = Image.new("P", (4, 4), 0)
    assert open_picture(encoded(indexed, "PNG", transparency=0)).on_dark is not None


def test_deep_greys_and_turned_pictures_and_animations() -> None:
    deep = Image.fromarray(np.linspace(1000, 3000, 64).reshape(8, 8).astype(np.uint16))
    levels = open_picture(encoded(deep)).rgb
    assert (levels.min(), levels.max()) == (0, 255)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    assert open_picture(encoded(RED, "JPEG", exif=exif)).width == 20
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    moving = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    picture = open_picture(moving)
    assert picture.frames == 3 and picture.rgb[0, 0].tolist() == [255, 0, 0]


def test_colours() -> None:
    image = Image.new("RGB", (100, 100), (250, 250, 250))
    image.paste((30, 60, 200), (0, 0, 100, 40))
    image.paste((20, 20, 20), (0, 40, 100, 50))
    found = {colour.name: colour.share for colour in dominant(np.asarray(image))}
    assert found == {"white": 0.5, "blue": 0.4, "black": 0.1}
