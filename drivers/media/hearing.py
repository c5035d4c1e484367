"""Speech to text, with times and language.

What: Whisper in CTranslate2's format, by `faster-whisper`, from a catalogue model's folder.
Invariant: nothing is fetched. Silence is passed over before the model sees it, so that it does not dream words into it.
    What is heard comes piece by piece; whoever stops reading stops the work.
Interface: `Listener(model).hear(sound, language) -> Heard`: iterate its pieces.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from llmos.drivers.media.errors import MediaError, model, part
from llmos.drivers.media.sound import HEARD_RATE, Sound

MODELS = ("whisper-base", "whisper-tiny.en")
"""What is listened with: the first of these that is on this machine."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some words, and when they were said: seconds from the beginning."""

    start: float
    end: float
    text: str


@dataclass(frozen=True, slots=True)
class Heard:
    """What is being heard: the language (and how sure that is, 0 to 1), then the pieces, as they are understood."""

    model: str
    language: str
    confidence: float
    seconds: float
    pieces: Iterator[Piece]


class Listener:
    """Loads its model when it first hears something.

    Args:
        name: a catalogue model; "" for the best that is on this machine.
        threads: of the processor; 0 for as many as it has, 4 at most.
    """

    def __init__(self, name: str = "", threads: int = 0) -> None:
        self._name, self._threads = name, threads
        self._loading = threading.Lock()

    @cached_property
    def name(self) -> str:
        """The model's name; MediaError where there is none on this machine."""
        for name in (self._name,) if self._name else MODELS:
            try:
                model(name)
                return name
            except MediaError as error:
                missing = error
        raise MediaError(
            "there is no model that hears",
            why=missing.what,
            do=f"`llmos models pull {self._name or MODELS[0]}`",
        )

    @cached_property
    def _whisper(self) -> Any:
        files = model(self.name)
        whisper = part("faster_whisper").WhisperModel
        try:
            return whisper(
                str(files.folder),
                device="cpu",
                compute_type="int8",
                cpu_threads=self._threads,
                local_files_only=True,
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise MediaError(
                f"{self.name} cannot be run", why=str(error)[:300], do=f"`llmos models verify {self.name}`"
            ) from None

    def hear(self, sound: Sound, language: str = "") -> Heard:
        """Begin to listen.

        Args:
            sound: at 16 kHz.
            language: such as "en", "de"; "" to tell it from the sound.

        Raises:
            MediaError: no model, no such language, or a sound of another rate.
        """
        if sound.rate != HEARD_RATE:
            raise MediaError(f"a sound of {sound.rate} samples a second", do=f"decode it at {HEARD_RATE}")
        with self._loading:
            whisper = self._whisper
        known = whisper.supported_languages
        language = language.lower().replace("_", "-").partition("-")[0]
        if language and language not in known:
            raise MediaError(
                f"{self.name} does not hear {language!r}",
                why=f"it hears {', '.join(known[:12])}{', ...' if len(known) > 12 else ''}",
                do="give another language's code, or none"
                + ("; whisper-base hears 99" if len(known) == 1 else ""),
            )
        segments, info = whisper.transcribe(
            sound.samples, language=language or None, vad_filter=True, beam_size=5
        )
        return Heard(
            self.name, info.language, round(info.language_probability, 3), sound.seconds, _pieces(segments)
        )


def _pieces(segments: Any) -> Iterator[Piece]:
    for segment in segments:
        if text := segment.text.strip():
            yield Piece(round(segment.start, 2), round(segment.end, 2), text)
