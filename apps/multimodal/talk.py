"""A spoken conversation: what is said goes to a process, its answer is spoken while it is still being written.

What: sound -> words -> a turn -> sentences -> sound. Three things run side by side: the model writes, a sentence is
    spoken, the one before is heard.
Invariant: sentences are heard in order, each as soon as it is complete. What fails in speaking ends the turn and is
    raised; nothing is left running.
Interface: `Talk(process, listener, voice).turn(sound, sink) -> Exchange`; the sinks `WavFile` and
    `drivers.media.device.Loudspeaker`.
"""

from __future__ import annotations

import os
import time
import wave
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from llmos.abi.errors import DiskFull
from llmos.abi.events import Event, Token
from llmos.abi.machine import AnyProcess, AnyTurn
from llmos.drivers.media.errors import MediaError, NothingSaid
from llmos.drivers.media.hearing import Listener
from llmos.drivers.media.sentences import Sentences, sayable
from llmos.drivers.media.sound import Sound
from llmos.drivers.media.speaking import PAUSE, Chosen

INSTRUCTIONS = "You are talking with somebody. Answer in one or two short sentences."


class Sink(Protocol):
    """Where a spoken answer goes."""

    def play(self, sound: Sound) -> None:
        """Take the next sentence."""
        ...


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question and answer.

    Attributes:
        language: of the question.
        sentences: that were spoken.
        heard_s, first_sound_s, total_s: seconds from the beginning until the question was understood, the first
            sentence was spoken, and all was; first_sound_s is 0 where nothing was said.
        spoken_s: seconds that the answer lasts.
    """

    question: str
    answer: str
    language: str
    sentences: int
    heard_s: float
    first_sound_s: float
    total_s: float
    spoken_s: float


class Talk:
    """One process, many spoken turns.

    Args:
        voice: speaks the answers.
        language: that is heard; "" to tell it from the sound.
        ask: starts a turn for a question; `process.ask` where it is not given.
        watch: sees the events of each turn, on the caller's thread.
    """

    def __init__(
        self,
        process: AnyProcess,
        listener: Listener,
        voice: Chosen,
        *,
        language: str = "",
        ask: Callable[[str], AnyTurn] | None = None,
        watch: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self._ask = ask or process.ask
        self._listener, self._voice, self._language, self._watch = listener, voice, language, watch

    def turn(
        self, sound: Sound, sink: Sink, heard: Callable[[str], None] = lambda question: None
    ) -> Exchange:
        """Hear a question, have it answered, speak the answer.

        Args:
            heard: told the question as soon as it is understood.

        Raises:
            NothingSaid: nobody speaks in the sound; nobody was asked.
            MediaError: a part that is needed is missing.
        """
        began = time.perf_counter()
        listened = self._listener.hear(sound, self._language)
        question = " ".join(piece.text for piece in listened.pieces)
        if not question:
            raise NothingSaid(
                "nothing was said", why=f"{sound.seconds:.1f} seconds without speech", do="speak up"
            )
        heard(question)
        heard_s = time.perf_counter() - began
        mouth, cutter = _Mouth(self._voice, sink, began), Sentences()
        turn = self._ask(question)
        try:
            with mouth:
                for event in turn:
                    self._watch(event)
                    for sentence in cutter.feed(event.text) if isinstance(event, Token) else ():
                        mouth.say(sentence)
                    mouth.check()
                for sentence in cutter.rest():
                    mouth.say(sentence)
        except BaseException:
            turn.cancel()
            for _ in turn:  # what was under way; the process is free after it
                pass
            raise
        told = mouth.told
        return Exchange(
            question=question,
            answer=turn.answer,
            language=listened.language,
            sentences=len(told),
            heard_s=heard_s,
            first_sound_s=told[0][0] if told else 0.0,
            total_s=time.perf_counter() - began,
            spoken_s=sum(seconds for _, seconds in told),
        )


class _Mouth:
    """Speaks sentences on one thread and plays them on another, both in order. Leaving it waits for the last one."""

    def __init__(self, voice: Chosen, sink: Sink, began: float) -> None:
        self.told: list[tuple[float, float]] = []  # when each sentence was there, and how long it lasts
        self._voice, self._sink, self._began = voice, sink, began
        self._speaking, self._playing = ThreadPoolExecutor(1, "speak"), ThreadPoolExecutor(1, "play")
        self._spoken: list[Future[Future[None]]] = []

    def __enter__(self) -> _Mouth:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            for spoken in self._spoken if kind is None else ():
                spoken.result().result()
        finally:
            for threads in (self._speaking, self._playing):  # after an error: what has not begun is not said
                threads.shutdown(cancel_futures=True)

    def say(self, sentence: str) -> None:
        """Speak a sentence when the ones before it are spoken."""
        if plain := sayable(sentence):
            self._spoken.append(self._speaking.submit(self._say, plain))

    def check(self) -> None:
        """Raise what failed so far."""
        for spoken in self._spoken:
            if spoken.done() and (played := spoken.result()).done():
                played.result()

    def _say(self, sentence: str) -> Future[None]:
        sound = self._voice.say(sentence)
        self.told.append((time.perf_counter() - self._began, sound.seconds))
        return self._playing.submit(self._sink.play, sound)


class WavFile:
    """A WAV file that grows by each sentence and is sound at any moment, so that it can be played meanwhile.

    Raises:
        MediaError: it cannot be written.
    """

    def __init__(self, path: Path, rate: int) -> None:
        self.path, self._rate, self._begun = path, rate, False
        try:
            self._raw = path.open("wb")
        except OSError as error:
            raise MediaError(
                f"cannot write {path}", why=error.strerror or "", do="choose another --out"
            ) from None
        self._file = wave.open(self._raw, "wb")  # noqa: SIM115  closed by __exit__
        self._file.setnchannels(1)
        self._file.setsampwidth(2)
        self._file.setframerate(rate)

    def __enter__(self) -> WavFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._raw.close()

    def play(self, sound: Sound) -> None:
        """Add a sentence."""
        pause = np.zeros(round(PAUSE * self._rate) if self._begun else 0, np.float32)
        samples = np.round(np.clip(np.concatenate([pause, sound.samples]), -1, 1) * 32767).astype("<i2")
        try:
            self._file.writeframes(samples.tobytes())  # it mends the header, too
            self._raw.flush()
        except OSError as error:
            raise DiskFull(
                f"no room for {self.path}", why=os.strerror(error.errno or 0), do="make room"
            ) from None
        self._begun = True
