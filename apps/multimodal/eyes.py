"""The app `eyes`: text in pictures, what they show, questions about them.

What: OCR with positions, size, colours and ImageNet classes; a question is answered by a vision-language model where
    one is configured, else by the caller's own model from what the other two found.
Invariant: text from a picture is untrusted, and text that people would hardly see is told apart from the rest.
    A model elsewhere gets no picture that is asked about in words which it may not read.
Interface: `Eyes`: `eyes.read`, `eyes.describe`, `eyes.ask`. Configuration: `Settings`, under `apps: eyes:` in
    `llmos.yaml`.
"""

from __future__ import annotations

import asyncio
from typing import Annotated

from pydantic import field_validator

from llmos.abi.app import App, Call, Image, syscall
from llmos.abi.config import RemoteConfig, Section
from llmos.abi.settings import settings
from llmos.apps.multimodal.places import load
from llmos.drivers.media.colours import dominant
from llmos.drivers.media.errors import MediaError
from llmos.drivers.media.naming import Namer
from llmos.drivers.media.ocr import Line, Reader, rows
from llmos.drivers.media.pictures import Picture, open_picture

REMOTE = "eyes"  # what the remote model is called, as a reader of words, and the secret that holds its key
ImagePath = Annotated[str, 'a picture file in the working volume, such as "photo.png"']


class Settings(Section):
    """What `llmos.yaml` may say about this app: `remote`, a vision-language model that answers questions. Its key is
    the app's secret `eyes`."""

    remote: RemoteConfig | None = None

    @field_validator("remote")
    @classmethod
    def _own_key(cls, remote: RemoteConfig | None) -> RemoteConfig | None:
        if remote is not None and remote.key not in (None, f"secret:{REMOTE}"):
            raise ValueError(f"expected key: secret:{REMOTE}, the one secret that this app is given")
        return remote


class Eyes(App, settings=Settings, secrets=[REMOTE]):
    """Pictures: the text in them, what they show, questions about them."""

    def __init__(self) -> None:
        self._remote, self._reader, self._namer = settings("eyes", Settings).remote, Reader(), Namer()

    @syscall(effect="read", retry="safe", deadline=180)
    def read(
        self,
        image: ImagePath,
        call: Call,
        positions: Annotated[bool, "also tell where each line stands"] = False,
    ) -> str:
        """Read the text in a picture: a scan, a screenshot, a photograph of a page or a sign."""
        lines = self._reader.read(open_picture(load(call, image), _name(image)))
        return "\n".join(map(_placed, lines)) if positions and lines else _text(lines)

    @syscall(effect="read", retry="safe", deadline=180)
    def describe(self, image: ImagePath, call: Call) -> str:
        """Describe what a picture shows: its width and height in pixels, its colours, what seems to be in it, the
        text in it."""
        return self._describe(open_picture(load(call, image), _name(image)))

    @syscall(effect="read", retry="safe", deadline=300)
    def ask(self, image: ImagePath, question: Annotated[str, "in the user's words"], call: Call) -> str:
        """Answer a question about a picture or photo."""
        data = load(call, image)
        picture = open_picture(data, _name(image))  # whoever looks, it is sound and bounded
        if self._remote is not None and (call.label.readers is None or REMOTE in call.label.readers):
            return _look(self._remote, call, Image(data, f"image/{picture.format.lower()}"), question)
        return call.ask(
            f"This is what is known of a picture:\n\n{self._describe(picture)}\n\nAnswer this question about the "
            f"picture in one sentence. If the answer is not there, say that you cannot tell.\n\n{question}"
        )

    def _describe(self, picture: Picture) -> str:
        colours = ", ".join(f"{c.name} ({c.hex}) {c.share:.0%}" for c in dominant(picture.rgb))
        try:
            named = ", ".join(f"{n.name} ({n.share:.0%} sure)" for n in self._namer.name(picture.rgb))
            shows = f"It seems to show: {named}." if named else "It shows nothing that has a name here."
        except MediaError as error:
            shows = f"What it shows is not known: {error}"
        frames = f", the first of {picture.frames} frames" if picture.frames > 1 else ""
        return (
            f"The picture is {picture.width} x {picture.height} pixels ({picture.format}{frames}).\n"
            f"Its colours: {colours}.\n{shows}\n{_text(self._reader.read(picture))}"
        )


def _look(remote: RemoteConfig, call: Call, image: Image, question: str) -> str:
    """The answer of a model elsewhere; RemoteError, SecretMissing."""
    from llmos.drivers.remote import Endpoint, Remote  # who asks no model elsewhere need not wait for it

    key = call.secret(REMOTE) if remote.key is not None else ""
    return asyncio.run(Remote(Endpoint.of(REMOTE, remote, key)).look(image, question))


def _name(image: str) -> str:
    return "the picture" if image.startswith("data:") else image


def _text(lines: list[Line]) -> str:
    """What is written in a picture; what hardly stands out is said apart."""
    shown, faint = rows([x for x in lines if not x.faint]), [x.text for x in lines if x.faint]
    text = f"The text in it:\n{shown}" if shown else "There is no text in it that people would see."
    return "\n".join([text, *(["Faint text that people would hardly see:", *faint] if faint else [])])


def _placed(line: Line) -> str:
    left, top, width, height = line.box
    mark = ", faint" if line.faint else ""
    return f"x {left}, y {top}, {width} x {height}{mark}: {line.text}"
