"""Text to speech: the best voice that this machine has, sentence by sentence.

What: Kokoro-82M where it is on this machine and speaks the language, else espeak-ng; what was used is said.
Invariant: a sentence is there as soon as it is spoken, before the next one is begun. One call, one engine, one rate.
Interface: `Speaker().choose(voice, language) -> Chosen`; `chosen.say(sentence) -> Sound`; `Speaker.voices()`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from llmos.drivers.media import espeak, kokoro
from llmos.drivers.media.errors import MediaError, model
from llmos.drivers.media.kokoro import LANGUAGES, Kokoro
from llmos.drivers.media.sentences import sayable, sentences
from llmos.drivers.media.sound import Sound

MODEL, PLAIN = "kokoro-82m", "espeak-ng"
DEFAULT = "af_heart"
PAUSE = 0.25  # seconds between two sentences
SLOWEST, FASTEST = 0.5, 2.0


@dataclass(frozen=True, slots=True)
class Chosen:
    """A voice that is ready.

    Attributes:
        engine: "kokoro-82m" or "espeak-ng".
        voice: its name there.
        why: why it is not the better engine; "" where it is.
    """

    engine: str
    voice: str
    why: str
    speed: float
    _kokoro: Kokoro | None

    @property
    def rate(self) -> int:
        """Samples a second of what it says."""
        return espeak.RATE if self._kokoro is None else kokoro.RATE

    def say(self, sentence: str) -> Sound:
        """One sentence; MediaError where nothing in it can be said."""
        if self._kokoro is None:
            return espeak.speak(sentence, self.voice, self.speed)
        return self._kokoro.say(sentence, self.voice, self.speed)

    def speak(self, text: str | Iterable[str]) -> Iterator[tuple[str, Sound]]:
        """(sentence, sound), one after the other; what is only for the eye is left out."""
        for sentence in sentences(text) if isinstance(text, str) else text:
            if plain := sayable(sentence):
                yield plain, self.say(plain)


class Speaker:
    """Loads what it needs when it is first needed."""

    def __init__(self, threads: int = 0) -> None:
        self._threads = threads

    @cached_property
    def _kokoro(self) -> Kokoro:
        files = model(MODEL)
        return Kokoro(files.folder, files.path.name, self._threads)

    def voices(self) -> tuple[str, ...]:
        """Kokoro's voices on this machine; MediaError where it is not here."""
        return self._kokoro.voices

    def choose(self, voice: str = "", language: str = "", speed: float = 1.0) -> Chosen:
        """A voice by name or by language.

        Args:
            voice: one of Kokoro's ("af_heart"), or "espeak-ng"; "" for the best of the language.
            language: "en", "fr", "de", "pt-br", ...; "" for English.
            speed: 1 is usual.

        Raises:
            MediaError: no such voice or language, a speed out of bounds, or nothing here can speak.
        """
        if not SLOWEST <= speed <= FASTEST:
            raise MediaError(f"a speed of {speed}", do=f"choose one from {SLOWEST} to {FASTEST}")
        wanted = (language or LANGUAGES.get(voice[:1], "") * ("_" in voice) or "en").lower().replace("_", "-")
        if voice == PLAIN:
            return _plain(wanted, speed, "")
        try:
            voices = self.voices()
        except MediaError as error:
            return _plain(wanted, speed, str(error))
        if voice in voices:
            return Chosen(MODEL, voice, "", speed, self._kokoro)
        if voice:
            raise MediaError(
                f"there is no voice {voice!r}", do=f"choose one of {', '.join(voices)}, or {PLAIN}"
            )
        ours = {name: LANGUAGES[name[0]] for name in (DEFAULT, *voices)}
        found = [name for name, own in ours.items() if own == wanted]
        found += [name for name, own in ours.items() if _tongue(own) == _tongue(wanted)]
        if found:
            return Chosen(MODEL, found[0], "", speed, self._kokoro)
        return _plain(wanted, speed, f"{MODEL} does not speak {wanted}")


def _plain(language: str, speed: float, why: str) -> Chosen:
    """espeak-ng in a language, or in that language without its region."""
    known = espeak.languages()
    spoken = next((code for code in (language, _tongue(language)) if code in known), None)
    if language == "en" or (spoken is None and _tongue(language) == "en"):
        spoken = "en-us"
    if spoken is None:
        raise MediaError(
            f"nothing here speaks {language!r}", why=why, do="give a language's code: en, de, fr, pt-br"
        )
    return Chosen(PLAIN, spoken, why, speed, None)


def _tongue(language: str) -> str:
    """A language without its region."""
    return language.partition("-")[0]
