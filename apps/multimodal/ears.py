"""The app `ears`: speech to text.

What: transcribes a recording with times and language.
Invariant: what a recording says is untrusted, as any file's words.
Interface: `Ears`: `ears.hear`.
"""

from __future__ import annotations

from typing import Annotated

from llmos.abi.app import App, Call, syscall
from llmos.abi.config import Section
from llmos.abi.errors import Cancelled
from llmos.abi.settings import settings
from llmos.apps.multimodal.places import load
from llmos.drivers.media.hearing import Listener
from llmos.drivers.media.sound import open_sound


class Settings(Section):
    """What `llmos.yaml` may say about this app: `model`, a whisper model of `llmos models list`; "" for the best that
    is on this machine."""

    model: str = ""


class Ears(App, settings=Settings):
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
    ) -> str:
        """Hear what is said in a recording (WAV, MP3, FLAC, Ogg, M4A, WebM) and write it down."""
        name = "the recording" if audio.startswith("data:") else audio
        heard = self._listener.hear(open_sound(load(call, audio), name), language)
        said = []
        for piece in heard.pieces:
            if call.cancelled:
                raise Cancelled("nobody waits for what was heard")
            said.append(f"{piece.start:.1f} s to {piece.end:.1f} s: {piece.text}" if times else piece.text)
            call.progress(piece.end, heard.seconds, piece.text)
        about = f"{heard.seconds:.1f} seconds"
        if not said:
            return f"Nobody speaks in the recording ({about})."
        return f"Said in the recording ({about}, language {heard.language}):\n" + (
            "\n" if times else " "
        ).join(said)
