"""Tasks for apps, as people put them: what lies in the folder, what is asked, and how it is known to be right.

What: reads `tasks.yaml`. A task has `ask`, the question, where `{site}` is the address of the pages, and what lies in
    the working folder: `files` by name, `pictures` of `lines` of text or `stripes` of colour, `sounds` of a spoken
    `text`. It is right where the answer has each `number`, fits each regular expression of `says` and not `excludes`;
    `made` asks the same of a file that is new or changed: its text, the names that an archive `holds`, the words
    `heard` in speech (four of five), the colours that a picture `shows`, the word that it `reads`, its `seconds`.
Invariant: a task is judged by values in its answer or in a file, never by which syscall was called. A number is right
    to the decimals that are given. Half of each app's tasks, those with the smaller hashes, are for tuning; figures
    come from the others.
Interface: `tasks(half) -> list[Task]`, `site()`; `task.lay(folder)`, then `task.wrong(answer, folder)`, "" where it is
    right.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Sequence
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator

Half = Literal["tuning", "published"]

HEARD = 0.8  # share of the words that have to be heard
WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen".split()
)


class Section(BaseModel):
    """A part of the file: unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Drawn(Section):
    """A picture to look at."""

    lines: tuple[str, ...] = ()
    stripes: tuple[str, ...] = ()
    width: int = 640  # pixels


class Spoken(Section):
    """A recording to listen to; silence makes it `seconds` long."""

    text: str
    language: str = "en"
    seconds: float = 0


class Right(Section):
    """What a text has to say."""

    number: tuple[Decimal, ...] = ()
    says: tuple[str, ...] = ()
    excludes: str = ""

    @field_validator("number", mode="before")
    @classmethod
    def _several(cls, given: Any) -> Any:
        return tuple(map(str, given if isinstance(given, list | tuple) else [given]))

    def missing(self, text: str) -> str:
        """What it does not say; "" where it says all."""
        found = numbers(text)
        lacking = [str(n) for n in self.number if not any(same(n, x) for x in found)]
        lacking += [p for p in self.says if not re.search(p, text, re.IGNORECASE | re.DOTALL)]
        if self.excludes and re.search(self.excludes, text, re.IGNORECASE):
            lacking.append(f"no {self.excludes}")
        return ", ".join(lacking)


class Made(Right):
    """What a file has to be."""

    file: str  # a pattern of names
    holds: tuple[str, ...] = ()
    heard: str = ""
    language: str = "en"
    seconds: float = 0
    picture: bool = False
    shows: tuple[str, ...] = ()
    reads: str = ""

    def wrong(self, folder: Path, before: frozenset[tuple[str, bytes]]) -> str:
        """What is wrong with the best of the files that were made; "" where one is right."""
        faults = [
            self._fault(path.read_bytes())
            for path in sorted(folder.glob(self.file))
            if path.is_file() and (str(path.relative_to(folder)), path.read_bytes()) not in before
        ]
        return min(faults, default=f"no new {self.file}", key=len)

    def _fault(self, data: bytes) -> str:
        try:
            return self._look(data)
        except Exception as error:  # whatever is wrong with a file that an app has made is the task's failure
            return f"{type(error).__name__}: {error}"

    def _look(self, data: bytes) -> str:
        if self.holds:
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                return ", ".join(n for n in self.holds if not any(n in x for x in archive.getnames()))
        if self.picture or self.shows or self.reads:
            return self._looks(data)
        if self.heard or self.seconds:
            return self._sounds(data)
        return self.missing(data.decode("utf-8", "replace"))

    def _looks(self, data: bytes) -> str:
        from llmos.drivers.media.colours import dominant
        from llmos.drivers.media.pictures import open_picture

        picture = open_picture(data)
        names = [colour.name for colour in dominant(picture.rgb, 9)]
        if len(names) < 2 and not self.shows and (picture.rgb == picture.rgb[0, 0]).all():
            return "an empty picture"
        lacking = [c for c in self.shows if not any(c in name for name in names)]
        if self.reads and self.reads not in (text := _read(data)).lower():
            lacking.append(f"{self.reads} in {text!r}")
        return ", ".join(lacking)

    def _sounds(self, data: bytes) -> str:
        from llmos.drivers.media.sound import open_sound

        sound = open_sound(data)
        if sound.seconds < self.seconds:
            return f"{sound.seconds:.1f} s"
        if not np.abs(sound.samples).max() > 0.01:
            return "silence"
        if not self.heard:
            return ""
        said = _hear(data, self.language)
        wanted = words(self.heard)
        share = sum(word in words(said) for word in wanted) / len(wanted)
        return "" if share >= HEARD else f"{self.heard!r} in {said!r}"


class Task(Right):
    """A question to an app."""

    app: str
    name: str
    ask: str
    files: dict[str, str] = Field(default_factory=dict)
    pictures: dict[str, Drawn] = Field(default_factory=dict)
    sounds: dict[str, Spoken] = Field(default_factory=dict)
    made: Made | None = None

    @property
    def id(self) -> str:
        """Unique."""
        return f"{self.app}/{self.name}"

    def lay(self, folder: Path) -> frozenset[tuple[str, bytes]]:
        """Put into the folder what the question is about; what lies there then."""
        for name, text in self.files.items():
            _put(folder / name, text.encode())
        for name, drawn in self.pictures.items():
            _put(folder / name, _draw(drawn, name))
        for name, spoken in self.sounds.items():
            _put(folder / name, _speak(spoken))
        laid = (*self.files, *self.pictures, *self.sounds)
        return frozenset((name, (folder / name).read_bytes()) for name in laid)

    def wrong(self, answer: str, folder: Path, before: frozenset[tuple[str, bytes]]) -> str:
        """What is wrong; "" where it is right. `before` is what `lay` gave."""
        return self.missing(answer) or (self.made.wrong(folder, before) if self.made else "")


@cache
def _file() -> dict[str, dict[str, Any]]:
    read = yaml.safe_load(Path(__file__).with_name("tasks.yaml").read_text(encoding="utf-8"))
    assert isinstance(read, dict)
    return read


def site() -> dict[str, str]:
    """The pages: name -> HTML."""
    return dict(_file()["site"])


def tasks(half: Half | None = None) -> list[Task]:
    """The tasks of one half, or all, app by app."""
    found = []
    for app, named in _file().items():
        if app == "site":
            continue
        all_of_it = [Task(app=app, name=name, **task) for name, task in named.items()]
        all_of_it.sort(key=lambda task: hashlib.sha256(task.id.encode()).digest())
        middle = len(all_of_it) // 2
        found += {"tuning": all_of_it[:middle], "published": all_of_it[middle:], None: all_of_it}[half]
    return found


def numbers(text: str) -> list[Decimal]:
    """The numbers in a text; small ones in words count too. Commas between digits in threes are left out."""
    text = re.sub(r"(?<=\d)[,\u202f\u00a0](?=\d{3}(?!\d))", "", text)
    found = [Decimal(one) for one in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?(?!\w)|(?<=[^\W\d])\d+", text)]
    spoken = re.findall(r"[a-z]+", text.lower())
    return found + [Decimal(WORDS.index(word)) for word in spoken if word in WORDS]


def same(wanted: Decimal, given: Decimal) -> bool:
    """Whether a number is the one that is wanted, to the decimals that this has."""
    exponent = wanted.as_tuple().exponent
    assert isinstance(exponent, int)
    return abs(wanted - given) <= (Decimal(5).scaleb(exponent - 1) if exponent < 0 else 0)


def words(text: str) -> list[str]:
    """Words as they are heard; numbers to fifteen are words."""
    found = re.findall(r"[\w']+", text.lower())
    return [WORDS[int(word)] if word.isdecimal() and int(word) < len(WORDS) else word for word in found]


# --- what lies in the folder, and what is looked at there


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _draw(drawn: Drawn, name: str) -> bytes:
    from PIL import Image, ImageDraw, ImageFont

    height = 60 + 56 * len(drawn.lines) if drawn.lines else 90 * max(1, len(drawn.stripes))
    image = Image.new("RGB", (drawn.width, height), "white")
    draw = ImageDraw.Draw(image)
    for at, colour in enumerate(drawn.stripes):
        draw.rectangle((0, 90 * at, drawn.width, 90 * at + 89), fill=colour)
    for at, line in enumerate(drawn.lines):
        draw.text((30, 30 + 56 * at), line, fill="black", font=ImageFont.load_default(32))
    out = io.BytesIO()
    image.save(out, "JPEG" if name.endswith("jpg") else "PNG")
    return out.getvalue()


@cache
def _speaker() -> Any:
    from llmos.drivers.media.speaking import Speaker

    return Speaker()


@cache
def _listener() -> Any:
    from llmos.drivers.media.hearing import Listener

    return Listener()


def _speak(spoken: Spoken) -> bytes:
    from llmos.drivers.media.sound import Sound, joined, wav

    sounds: Sequence[Sound] = [s for _, s in _speaker().choose(language=spoken.language).speak(spoken.text)]
    whole = joined(list(sounds), 0.3)
    missing = round(spoken.seconds * whole.rate) - len(whole.samples)
    if missing > 0:
        whole = Sound(np.pad(whole.samples, (0, missing)), whole.rate)
    return wav(whole)


def _hear(data: bytes, language: str) -> str:
    from llmos.drivers.media.sound import open_sound

    return " ".join(piece.text for piece in _listener().hear(open_sound(data), language).pieces)


def _read(data: bytes) -> str:
    from llmos.drivers.media.ocr import Reader, rows
    from llmos.drivers.media.pictures import open_picture

    return rows(Reader().read(open_picture(data)))
