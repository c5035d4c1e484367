"""The app `voice`: text to speech.

What: speaks a text into a WAV file of the working volume, sentence by sentence; each is told as progress.
Invariant: the file is there whole or not at all. Which engine spoke is said.
Interface: `Voice`: `voice.say`, `voice.voices`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from llmos.abi.app import App, Call, Target, syscall
from llmos.abi.config import Section
from llmos.abi.errors import Cancelled
from llmos.abi.settings import settings
from llmos.apps.multimodal.places import store
from llmos.drivers.media.errors import MediaError
from llmos.drivers.media.sound import Sound, joined, wav
from llmos.drivers.media.speaking import FASTEST, PAUSE, SLOWEST, Speaker

MAX_TEXT = 20_000  # characters; some 25 minutes


class Settings(Section):
    """What `llmos.yaml` may say about this app: `voice`, the one that speaks where a call names neither voice nor
    language."""

    voice: str = ""


class Voice(App, settings=Settings):
    """Speech: reads a text aloud into a WAV file."""

    def __init__(self, speaker: Speaker | None = None) -> None:
        self._speaker = speaker or Speaker()
        self._usual = settings("voice", Settings).voice

    @syscall(effect="write", retry="safe", returns="user", deadline=1800)
    def say(
        self,
        text: Annotated[str, Field(min_length=1, max_length=MAX_TEXT), "the words to speak"],
        call: Call,
        file: Annotated[
            str, Target, 'the WAV file to write in the working volume, such as "hello.wav"'
        ] = "speech.wav",
        language: Annotated[str, 'the language of the text, such as "en" or "fr"'] = "",
        voice: Annotated[str, "one of voice.voices, or espeak-ng; empty for the language's own"] = "",
        speed: Annotated[float, Field(ge=SLOWEST, le=FASTEST)] = 1.0,
    ) -> str:
        """Text to speech: speak words, read aloud, announce or record them in a sound file."""
        chosen = self._speaker.choose(voice or ("" if language else self._usual), language, speed)
        said: list[Sound] = []
        for sentence, sound in chosen.speak(text):
            if call.cancelled:
                raise Cancelled("nobody waits for what is said")
            said.append(sound)
            call.progress(len(said), message=sentence)
        if not said:
            raise MediaError(
                "there is nothing in the text that can be said", do="give it words, not only signs or code"
            )
        whole = joined(said, PAUSE)
        store(call, file, wav(whole))
        speaker = f"{chosen.engine}, voice {chosen.voice}" + (f" ({chosen.why})" if chosen.why else "")
        return f"{file} is written: {whole.seconds:.1f} seconds of speech by {speaker}."

    @syscall(effect="read", retry="safe", returns="user")
    def voices(self) -> list[str]:
        """List the voices: the first letter is the language (a American, b British, e Spanish, f French, h Hindi,
        i Italian, p Portuguese), the second f or m."""
        return list(self._speaker.voices())
