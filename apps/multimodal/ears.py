"""The app `ears`: speech to text.

What: transcribes a recording with times and language.
Invariant: what a recording says is untrusted, as any file's words.
Interface: `Ears`: `ears.hear`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel

from llmos.abi.app import App, Call, syscall
from llmos.abi.config import Section
from llmos.abi.errors import Cancelled
from llmos.abi.settings import settings
from llmos.apps.multimodal.places import load
from llmos.drivers.media.hearing import Listener
from llmos.drivers.media.sound import open_sound


class Said(BaseModel):
    """Some words, from second `start` to second `end`."""

    start: float
    end: float
    text: str


class Transcript(BaseModel):
    """What was said in a recording of `seconds`, in `language`; `text` is "" where nobody speaks."""

    text: str
    language: str
    confidence: float
    seconds: float
    model: str
    pieces: list[Said] | None = None


class Settings(Section):
    """What `llmos.yaml` may say about this app: `model`, a whisper model of `llmos models list`; "" for the best that
    is on this machine."""

    model: str = ""


class Ears(App):
    """Recordings: what is said in them."""

    def __init__(self, listener: Listener | None = None) -> None:
        self._listener = listener or Listener(settings("ears", Settings).model)

    @syscall(effect="read", retry="safe", deadline=1800)
    def hear(
        self,
        audio: Annotated[str, 'a recording in the working volume, such as "meeting.mp3"'],
        call: Call,
        language: Annotated[str, 'a code such as "en" or "de"; empty to tell it from the sound'] = "",
        times: Annotated[bool, "also tell when each sentence was said"] = False,
    ) -> Transcript:
        """Write down what is said in a recording (WAV, MP3, FLAC, Ogg, M4A, WebM)."""
        name = "the recording" if audio.startswith("data:") else audio
        heard = self._listener.hear(open_sound(load(call, audio), name), language)
        pieces = []
        for piece in heard.pieces:
            if call.cancelled:
                raise Cancelled("nobody waits for what was heard")
            pieces.append(Said(start=piece.start, end=piece.end, text=piece.text))
            call.progress(piece.end, heard.seconds, piece.text)
        return Transcript(
            text=" ".join(piece.text for piece in pieces),
            language=heard.language,
            confidence=heard.confidence,
            seconds=round(heard.seconds, 2),
            model=heard.model,
            pieces=pieces if times else None,
        )
