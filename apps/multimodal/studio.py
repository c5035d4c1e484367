"""The app `studio`: pictures, music and sites, made by the model that calls.

What: the model describes what it wants; asked back under a grammar, it writes shapes, notes or blocks, and these become
    SVG and PNG, MIDI and WAV, HTML and a picture of it. Two pictures become one by arithmetic.
Invariant: what the model writes is data of a fixed form (the modules `studio_*` say which), never a file's own text, so
    every result is sound and holds nothing active. Files are read from the caller's working volume; what is made is
    returned by value, and the kernel keeps it there under a name that nothing had.
Interface: `Studio`: `studio.draw`, `studio.blend`, `studio.compose`, `studio.site`.
"""

from __future__ import annotations

import asyncio
from typing import Annotated

from pydantic import Field

from llmos.abi.app import App, Call, File, Text, syscall
from llmos.abi.config import FilePath, Section
from llmos.abi.settings import settings
from llmos.apps.multimodal import studio_blending, studio_drawing, studio_page, studio_tune
from llmos.apps.multimodal.places import load
from llmos.drivers.media.errors import MediaError
from llmos.drivers.media.ocr import Reader
from llmos.drivers.media.pictures import Picture, Pixels, open_picture
from llmos.drivers.web.errors import WebError

Wish = Annotated[str, Field(min_length=1, max_length=2000)]
Name = Annotated[
    str, Field(min_length=1, max_length=64, pattern=r"^[\w -]+$"), "of the file, without an ending"
]
PicturePath = Annotated[str, 'a picture file in the working volume, such as "photo.png"']
MAX_SKETCH = 60  # lines that are read in a sketch

Made = list[Text | File]


class Settings(Section):
    """What `llmos.yaml` may say about this app: `soundfont`, a file with the instruments' sounds; one that is installed
    where it is left out."""

    soundfont: FilePath | None = None


class Studio(App, settings=Settings):
    """Makes pictures, music and web pages."""

    def __init__(self) -> None:
        self._synthesizer = studio_tune.Synthesizer(settings("studio", Settings).soundfont)
        self._reader = Reader()

    @syscall(effect="none", retry="safe", deadline=300)
    def draw(
        self,
        description: Annotated[Wish, "what is to be seen"],
        call: Call,
        name: Name = "picture",
        width: Annotated[
            int, Field(ge=studio_drawing.SMALLEST, le=studio_drawing.LARGEST), "pixels from side to side"
        ] = 512,
    ) -> Made:
        """Draw a picture from a description: simple things, shapes and words, as PNG and SVG."""
        answer = call.ask(studio_drawing.prompt(description), returns=studio_drawing.form(description))
        drawing = studio_drawing.drawing(answer, description)
        source = studio_drawing.svg(drawing)
        png = studio_drawing.png(source, width)
        words = f"A picture of {width} x {width} pixels with {len(drawing.parts)} parts."
        svg = File(f"{name}.svg", source.encode(), "image/svg+xml")
        return [Text(words), File(f"{name}.png", png, "image/png"), svg]

    @syscall(effect="read", retry="safe", returns="user", deadline=120)
    def blend(
        self,
        first: PicturePath,
        second: PicturePath,
        call: Call,
        mode: Annotated[studio_blending.Mode, "mixed pixel by pixel, faded, or set side by side"] = "mix",
        share: Annotated[float, Field(ge=0, le=1), "how much of the second picture"] = 0.5,
        mask: Annotated[
            str, "a picture that is light where the second may be seen; empty for everywhere"
        ] = "",
        name: Name = "blend",
    ) -> Made:
        """Make one picture out of two pictures. It has the size of the first, or of both side by side."""
        base, over = _pixels(call, first), _pixels(call, second)
        made = studio_blending.blend(base, over, mode, share, _pixels(call, mask) if mask else None)
        words = f"A picture of {made.shape[1]} x {made.shape[0]} pixels."
        return [Text(words), File(f"{name}.png", studio_blending.encoded(made), "image/png")]

    @syscall(effect="none", retry="safe", deadline=300)
    def compose(
        self, description: Annotated[Wish, "what it should sound like"], call: Call, name: Name = "tune"
    ) -> Made:
        """Compose a short piece of music and play it, as WAV and MIDI."""
        self._synthesizer.soundfont()  # nothing is composed where nothing can play it
        tune = call.ask(studio_tune.prompt(description), returns=studio_tune.Tune)
        notes = studio_tune.midi(tune)
        sound = self._synthesizer.wav(notes)
        count = sum(not note.startswith("rest") for note in tune.melody)
        words = f"{tune.title!r}: {count} notes, {tune.instrument}, {tune.seconds:.1f} s."
        midi = File(f"{name}.mid", notes, "audio/midi")
        return [Text(words), File(f"{name}.wav", sound, "audio/wav"), midi]

    @syscall(effect="read", retry="safe", deadline=300)
    async def site(
        self,
        call: Call,
        description: Annotated[str, Field(max_length=2000), "what the page is about"] = "",
        sketch: Annotated[str, "a picture file of a sketch, whose words are kept"] = "",
        name: Name = "site",
    ) -> Made:
        """Make a web page from a description, a sketch or both, as HTML, and take a picture of it."""
        if not description.strip() and not sketch:
            raise MediaError("there is nothing to make a page of", do="give a description, or a sketch")
        sketched = await asyncio.to_thread(self._sketched, call, sketch) if sketch else []
        page = await call.aask(studio_page.prompt(description, sketched), returns=studio_page.Page)
        source = studio_page.html(page)
        words, html = (
            f"A page with {len(page.blocks)} blocks.",
            File(f"{name}.html", source.encode(), "text/html"),
        )
        try:
            png = await studio_page.picture(source)
        except WebError as error:
            return [Text(f"{words} There is no picture of it: {error}"), html]
        return [Text(words), html, File(f"{name}.png", png, "image/png")]

    def _sketched(self, call: Call, sketch: str) -> list[str]:
        """The words in a sketch, from top to bottom; what people would hardly see is left out."""
        lines = [line.text for line in self._reader.read(_opened(call, sketch)) if not line.faint]
        if not lines:
            raise MediaError(
                "there are no words in the sketch",
                why="a page is made of its words",
                do="describe the page instead",
            )
        return lines[:MAX_SKETCH]


def _opened(call: Call, path: str) -> Picture:
    return open_picture(load(call, path), "the picture" if path.startswith("data:") else path)


def _pixels(call: Call, path: str) -> Pixels:
    return _opened(call, path).rgb
