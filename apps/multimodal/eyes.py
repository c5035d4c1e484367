"""The app `eyes`: text in pictures, what they show, questions about them.

What: OCR with positions, size, colours and ImageNet classes; a question is answered by a vision-language model where
    one is configured, else by the caller's own model from what the other two found.
Invariant: text from a picture is untrusted, and text that people would hardly see is told apart from the rest.
Interface: `Eyes`: `eyes.read`, `eyes.describe`, `eyes.ask`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from llmos.abi.app import App, Call, Image, syscall
from llmos.apps.multimodal.places import load
from llmos.drivers.media.colours import dominant
from llmos.drivers.media.errors import MediaError
from llmos.drivers.media.looking import Looker
from llmos.drivers.media.naming import Namer
from llmos.drivers.media.ocr import Line, Reader, rows
from llmos.drivers.media.pictures import Picture, open_picture

ImagePath = Annotated[str, 'a picture file in the working volume, such as "photo.png"']


class Placed(BaseModel):
    """A line of text and where it stands, in pixels from the top left corner."""

    text: str
    x: int
    y: int
    width: int
    height: int
    confidence: float
    faint: bool


class Reading(BaseModel):
    """Text in a picture. `faint` holds what hardly stands out: people may not have seen it."""

    text: str
    faint: list[str]
    lines: list[Placed] | None = None


class Shade(BaseModel):
    """A colour and the share of the picture that it covers."""

    name: str
    hex: str
    share: float


class Guess(BaseModel):
    """What the picture may show, and how likely that is (0 to 1)."""

    name: str
    likelihood: float


class Description(BaseModel):
    """What can be said of a picture without a vision-language model."""

    width: int
    height: int
    format: str
    frames: int
    colours: list[Shade]
    shows: list[Guess]
    text: str
    faint: list[str]
    notes: list[str] = Field(default_factory=list)


class Eyes(App):
    """Pictures: the text in them, what they show, questions about them."""

    def __init__(self, looker: Looker | None = None) -> None:
        self._looker, self._reader, self._namer = looker, Reader(), Namer()

    @syscall(effect="read", retry="safe", deadline=180)
    def read(
        self,
        image: ImagePath,
        call: Call,
        positions: Annotated[bool, "also tell where each line stands"] = False,
    ) -> Reading:
        """Read the text in a picture: a scan, a screenshot, a photograph of a page or a sign."""
        lines = self._reader.read(open_picture(load(call, image), _name(image)))
        return Reading(
            text=_shown(lines), faint=_faint(lines), lines=[_placed(x) for x in lines] if positions else None
        )

    @syscall(effect="read", retry="safe", deadline=180)
    def describe(self, image: ImagePath, call: Call) -> Description:
        """Describe a picture: its size and colours, what it seems to show, the text in it."""
        return self._describe(open_picture(load(call, image), _name(image)))

    @syscall(effect="read", retry="safe", deadline=300)
    def ask(self, image: ImagePath, question: str, call: Call) -> str:
        """Answer a question about a picture."""
        data = load(call, image)
        picture = open_picture(data, _name(image))  # whoever looks, it is sound and bounded
        if self._looker is not None:
            return self._looker.look(Image(data, f"image/{picture.format.lower()}"), question)
        return call.ask(_prompt(self._describe(picture), question))

    def _describe(self, picture: Picture) -> Description:
        notes = [f"only the first of {picture.frames} frames"] if picture.frames > 1 else []
        try:
            shows = self._namer.name(picture.rgb)
        except MediaError as error:
            shows = []
            notes.append(f"what it shows is not known: {error}")
        lines = self._reader.read(picture)
        return Description(
            width=picture.width,
            height=picture.height,
            format=picture.format,
            frames=picture.frames,
            colours=[Shade(name=c.name, hex=c.hex, share=c.share) for c in dominant(picture.rgb)],
            shows=[Guess(name=n.name, likelihood=n.share) for n in shows],
            text=_shown(lines),
            faint=_faint(lines),
            notes=notes,
        )


def _name(image: str) -> str:
    return "the picture" if image.startswith("data:") else image


def _shown(lines: list[Line]) -> str:
    return rows([line for line in lines if not line.faint])


def _faint(lines: list[Line]) -> list[str]:
    return [line.text for line in lines if line.faint]


def _placed(line: Line) -> Placed:
    x, y, width, height = line.box
    return Placed(
        text=line.text, x=x, y=y, width=width, height=height, confidence=line.confidence, faint=line.faint
    )


def _prompt(seen: Description, question: str) -> str:
    """What the caller's model is asked: the question, and all that is known of the picture."""
    guesses = ", ".join(f"{g.name} ({g.likelihood:.0%})" for g in seen.shows) or "not known"
    facts = [
        f"Size: {seen.width} x {seen.height} pixels.",
        f"Colours: {', '.join(f'{c.name} {c.share:.0%}' for c in seen.colours)}.",
        f"It seems to show: {guesses}.",
        f"Text in it:\n{seen.text}" if seen.text else "There is no text in it.",
    ]
    if seen.faint:
        facts.append("Text in it that people would hardly see:\n" + "\n".join(seen.faint))
    return (
        "This is what is known of a picture:\n\n"
        + "\n".join(facts)
        + "\n\nAnswer this question about the picture "
        f"in one sentence. If the answer is not there, say that you cannot tell.\n\n{question}"
    )
