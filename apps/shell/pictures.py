"""Pictures in a terminal, where it can.

What: a picture file as what kitty, iTerm or a sixel terminal draws.
Invariant: what is written is base64 or sixel data of our own making, from pixels that were decoded here, within bounds;
    a file that is no picture, or too large, is not shown. Where the terminal cannot (or is inside tmux), nothing is.
Interface: `protocol()`, `escape(path, protocol, columns)` -> text, or None.
"""

from __future__ import annotations

import base64
import io
import os
import warnings
from pathlib import Path
from typing import Literal

MAX_BYTES = 8 << 20
MAX_PIXELS = 4096 * 4096
CELL = 10  # pixels of a column, about
_CHUNK = 4096

Protocol = Literal["kitty", "iterm", "sixel"]


def protocol() -> Protocol | None:
    """What this terminal draws pictures with; `$LLMOS_IMAGES` (kitty, iterm, sixel, none) says it where it does not."""
    said = os.environ.get("LLMOS_IMAGES", "")
    if said in ("kitty", "iterm", "sixel"):
        return said  # type: ignore[return-value]  # one of the three
    if said or os.environ.get("TMUX") or os.environ.get("TERM", "").startswith(("screen", "tmux", "dumb")):
        return None
    term, program = os.environ.get("TERM", ""), os.environ.get("TERM_PROGRAM", "")
    if os.environ.get("KITTY_WINDOW_ID") or "kitty" in term or program == "ghostty":
        return "kitty"
    if program in ("iTerm.app", "WezTerm"):
        return "iterm"
    return "sixel" if term.startswith(("foot", "mlterm", "contour")) or "sixel" in term else None


def escape(path: Path, how: Protocol, columns: int) -> str | None:
    """The picture, at most so many columns wide; None where it is none that can be shown."""
    try:
        from PIL import Image
    except ImportError:
        return None
    try:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            return None
        with warnings.catch_warnings(), Image.open(path) as found:
            warnings.simplefilter("error")
            if found.width * found.height > MAX_PIXELS:
                return None
            picture = found.convert("RGB")
        picture.thumbnail((columns * CELL, 60 * CELL))
        if how == "sixel":
            return _sixel(picture)
        data = io.BytesIO()
        picture.save(data, "PNG")
    except (OSError, ValueError, SyntaxError, Warning):  # what Pillow raises for what is no picture
        return None
    text = base64.b64encode(data.getvalue()).decode()
    if how == "iterm":
        return f"\x1b]1337;File=inline=1;size={len(data.getvalue())}:{text}\x07\n"
    pieces = [text[at : at + _CHUNK] for at in range(0, len(text), _CHUNK)]
    first = "a=T,f=100,"
    parts = []
    for number, piece in enumerate(pieces):
        more = int(number + 1 < len(pieces))
        parts.append(f"\x1b_G{first if number == 0 else ''}m={more};{piece}\x1b\\")
    return "".join(parts) + "\n"


def _sixel(picture: object) -> str:
    """Six rows of pixels at a time, one colour after the other."""
    from PIL.Image import Image

    assert isinstance(picture, Image)
    few = picture.quantize(64)
    palette = few.getpalette() or []
    width, height = few.size
    pixels = few.tobytes()
    colours = sorted(set(pixels))
    out = ["\x1bPq", f'"1;1;{width};{height}']
    for c in colours:
        r, g, b = (palette[3 * c + i] * 100 // 255 for i in range(3))
        out.append(f"#{c};2;{r};{g};{b}")
    for top in range(0, height, 6):
        rows = [pixels[y * width : (y + 1) * width] for y in range(top, min(top + 6, height))]
        for c in sorted(set(b"".join(rows))):
            cells = [sum((row[x] == c) << bit for bit, row in enumerate(rows)) for x in range(width)]
            out.append(f"#{c}" + _runs(cells) + "$")
        out.append("-")
    return "".join(out) + "\x1b\\\n"


def _runs(cells: list[int]) -> str:
    out, at = [], 0
    while at < len(cells):
        end = at
        while end < len(cells) and cells[end] == cells[at]:
            end += 1
        sign, count = chr(63 + cells[at]), end - at
        out.append(f"!{count}{sign}" if count > 3 else sign * count)
        at = end
    return "".join(out)
