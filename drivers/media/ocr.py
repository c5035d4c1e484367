"""Text in pictures: which words, where, and whether an eye would have seen them.

What: finds and reads lines by `rapidocr`, puts them in reading order, and looks a second time at a picture in which
    faint text is dark (`contrast`), and at what a transparent picture shows on black.
Invariant: a line that does not stand out from its ground, or was only found on the second look, is marked `faint`;
    none is dropped. Boxes are in pixels of the original picture.
Interface: `Reader().read(picture) -> list[Line]`; `rows(lines)` as text, in reading order. Threads take turns.
"""

from __future__ import annotations

import itertools
import statistics
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from llmos.drivers.media.contrast import FAINT, Box, difference, stretch
from llmos.drivers.media.errors import part
from llmos.drivers.media.pictures import Picture, Pixels

MAX_READ_SIDE = (
    4000  # a larger picture is read in a smaller copy: letters of 8 pixels on a page of A4 are read in it
)
_FIND_SIDE = 2400  # lines are looked for in a copy of this size, and read in the picture itself
_UPRIGHT = 0.8  # mean confidence below which a picture is read upside down, too
_SURE = 0.5  # least confidence of a line
_SURE_ALONE = 0.8  # the same of a single letter: a round thing looks like 0
_SURE_FAINT = 0.75  # the same on the second look, where noise looks like letters
_COLUMN_LINES, _COLUMN_CHARACTERS = 3, 12  # what stands on each side of a gutter between columns of prose


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text, its box (left, top, width, height), the reader's confidence (0 to 1), and whether it is faint."""

    text: str
    box: Box
    confidence: float
    faint: bool = False


class Reader:
    """The models are loaded by the first picture."""

    def __init__(self, threads: int = -1) -> None:
        self._threads = threads
        self._turn = threading.Lock()

    @cached_property
    def _engine(self) -> Any:
        settings = {
            "Global.log_level": "error",
            "Global.max_side_len": MAX_READ_SIDE,
            "Global.text_score": _SURE,
            "Det.limit_type": "max",  # small pictures are not blown up: a third of the time, as exact
            "Det.limit_side_len": _FIND_SIDE,
            "EngineConfig.onnxruntime.intra_op_num_threads": self._threads,
        }
        return part("rapidocr").RapidOCR(params=settings)

    def read(self, picture: Picture) -> list[Line]:
        """Every line of text, in reading order.

        Raises:
            MediaError: the library is missing.
        """
        rgb, scale = _smaller(picture.rgb)
        with self._turn:
            seen = [
                Line(text, box, score, difference(rgb, box) < FAINT) for text, box, score in self._find(rgb)
            ]
            again = [stretch(rgb, [line.box for line in seen])]
            if picture.on_dark is not None:
                again.append(_smaller(picture.on_dark)[0])
            for variant in again:
                for text, box, score in [] if variant is None else self._find(variant):
                    letters = sum(map(str.isalnum, text))
                    if score >= _SURE_FAINT and letters >= 2 and not any(_overlap(box, x.box) for x in seen):
                        seen.append(Line(text, box, score, faint=True))
        return ordered([_scaled(line, scale) for line in seen])

    def _find(self, rgb: Pixels) -> list[tuple[str, Box, float]]:
        """What is read, of the picture as it is or turned by half; the library's own guess errs on good lines."""
        found = self._read(rgb)
        if found and sum(score for _, _, score in found) < _UPRIGHT * len(found):
            turned = self._read(rgb[::-1, ::-1])
            if sum(score for _, _, score in turned) > sum(score for _, _, score in found):
                height, width = rgb.shape[:2]
                return [(text, (width - x - w, height - y - h, w, h), s) for text, (x, y, w, h), s in turned]
        return found

    def _read(self, rgb: Pixels) -> list[tuple[str, Box, float]]:
        found = self._engine(np.ascontiguousarray(rgb[:, :, ::-1]), use_cls=False)
        if found.boxes is None or not found.txts:
            return []
        return [
            (text.strip(), _around(quad), float(score))
            for quad, text, score in zip(found.boxes, found.txts, found.scores, strict=True)
            if score >= (_SURE if len(text.strip()) > 1 else _SURE_ALONE) and text.strip()
        ]


def _smaller(rgb: Pixels) -> tuple[Pixels, float]:
    """The picture within `MAX_READ_SIDE`, and by how much it was larger."""
    height, width = rgb.shape[:2]
    scale = max(height, width) / MAX_READ_SIDE
    if scale <= 1:
        return rgb, 1.0
    pillow = part("PIL.Image")
    size = (max(1, round(width / scale)), max(1, round(height / scale)))
    return np.asarray(pillow.fromarray(rgb).resize(size, pillow.Resampling.LANCZOS)), scale


def _around(quad: Any) -> Box:
    """The upright box around four corners."""
    left, top = np.floor(np.min(quad, axis=0)).astype(int)
    right, bottom = np.ceil(np.max(quad, axis=0)).astype(int)
    left, top = max(0, int(left)), max(0, int(top))
    return left, top, int(right) - left, int(bottom) - top


def _scaled(line: Line, scale: float) -> Line:
    left, top, width, height = (round(value * scale) for value in line.box)
    return Line(line.text, (left, top, width, height), round(line.confidence, 3), line.faint)


def _overlap(a: Box, b: Box) -> bool:
    """Whether two boxes share half of the smaller one."""
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return across > 0 and down > 0 and 2 * across * down > min(a[2] * a[3], b[2] * b[3])


# --- reading order


def ordered(lines: Sequence[Line]) -> list[Line]:
    """Lines in reading order: columns of prose one after the other, else from the top, rows from the left."""
    return [line for row in _rows(list(lines)) for line in row]


def rows(lines: Sequence[Line]) -> str:
    """The text, a row of the picture a line; what stands far apart in it is set apart by a tab."""
    out = []
    for row in _rows(list(lines)):
        text = row[0].text
        for before, line in itertools.pairwise(row):
            gap = line.box[0] - before.box[0] - before.box[2]
            text += ("\t" if gap > line.box[3] else " ") + line.text
        out.append(text)
    return "\n".join(out)


def _rows(lines: list[Line]) -> list[list[Line]]:
    if len(lines) < 2 * _COLUMN_LINES:
        return _plain_rows(lines)
    for axis in (0, 1):
        cut = _gutter(lines) if axis == 0 else _gap(lines)
        if cut is not None:
            before = [line for line in lines if line.box[axis] < cut]
            return _rows(before) + _rows([line for line in lines if line.box[axis] >= cut])
    return _plain_rows(lines)


def _gutter(lines: list[Line]) -> float | None:
    """Where white runs from the top to the bottom between two columns of prose."""
    best, at = 0.0, None
    for right, left in _white(lines, 0):
        sides = ([x for x in lines if x.box[0] < left], [x for x in lines if x.box[0] >= left])
        prose = all(
            len(side) >= _COLUMN_LINES and statistics.median(len(x.text) for x in side) >= _COLUMN_CHARACTERS
            for side in sides
        )
        if prose and left - right > best:
            best, at = left - right, left
    return at


def _gap(lines: list[Line]) -> float | None:
    """Where the widest white runs across, if it is wider than half a line."""
    gaps = [(below - above, below) for above, below in _white(lines, 1)]
    width, at = max(gaps, default=(0, None))
    return at if width > statistics.median(line.box[3] for line in lines) / 2 else None


def _white(lines: list[Line], axis: int) -> list[tuple[int, int]]:
    """The stretches along an axis that no box touches."""
    spans = sorted((line.box[axis], line.box[axis] + line.box[axis + 2]) for line in lines)
    found, end = [], spans[0][1]
    for begin, stop in spans[1:]:
        if begin > end:
            found.append((end, begin))
        end = max(end, stop)
    return found


def _plain_rows(lines: list[Line]) -> list[list[Line]]:
    """Rows from the top: a line belongs to a row if its middle lies within it."""
    found: list[list[Line]] = []
    for line in sorted(lines, key=lambda line: line.box[1] + line.box[3] / 2):
        middle = line.box[1] + line.box[3] / 2
        first = found[-1][0].box if found else (0, 0, 0, 0)
        if found and first[1] <= middle <= first[1] + first[3]:
            found[-1].append(line)
        else:
            found.append([line])
    return [sorted(row, key=lambda line: line.box[0]) for row in found]
