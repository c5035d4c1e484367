"""Microphone and loudspeaker, by PortAudio.

What: records one utterance (from the first loud moment to a pause), plays sounds one after the other.
Invariant: a device that is not there is a `MediaError` that says what to do instead. Recording ends by itself.
Interface: `record(...) -> Sound`; `Loudspeaker(rate)`, a context manager: `.play(sound)`, `.close()`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from llmos.drivers.media.errors import MediaError, NothingSaid, part
from llmos.drivers.media.sound import HEARD_RATE, Samples, Sound

BLOCK = 0.1  # seconds between two looks at the level
PAUSE = 1.2  # seconds of quiet that end an utterance
LONGEST = 60.0  # seconds of one utterance
PATIENCE = 30.0  # seconds until somebody must have begun
_LOUDER, _LEAST = (
    3.0,
    0.008,
)  # speech is so many times the room's noise, and at least so loud (root mean square)
_ROOM = 0.02  # the noise of a room of which nothing is known yet
_BEFORE = 5  # blocks before the first loud one that belong to it


def record(
    *, pause: float = PAUSE, longest: float = LONGEST, patience: float = PATIENCE, device: Any = None
) -> Sound:
    """One utterance from the microphone, at 16 kHz.

    Raises:
        MediaError: no microphone.
        NothingSaid: nobody spoke.
    """
    audio = _portaudio()
    try:
        with audio.InputStream(HEARD_RATE, channels=1, dtype="float32", device=device) as stream:
            return utterance(
                lambda count: stream.read(count)[0][:, 0], pause=pause, longest=longest, patience=patience
            )
    except audio.PortAudioError as error:
        raise MediaError(
            "there is no microphone that can be used",
            why=str(error)[:200],
            do="plug one in, or give a recording: llmos talk question.wav",
        ) from None


def utterance(
    read: Callable[[int], Samples],
    *,
    pause: float = PAUSE,
    longest: float = LONGEST,
    patience: float = PATIENCE,
) -> Sound:
    """From the first loud moment to a pause, of what `read(count)` gives: the next `count` samples at 16 kHz.

    Raises:
        NothingSaid: nobody spoke.
    """
    block = round(BLOCK * HEARD_RATE)
    heard: list[Samples] = []
    floor, began, quiet = _ROOM, False, 0.0
    while len(heard) * BLOCK < (longest if began else patience):
        samples = np.clip(np.nan_to_num(np.asarray(read(block), np.float32)), -1.0, 1.0)
        level = float(np.sqrt(np.mean(samples**2)))
        loud = level > max(_LEAST, _LOUDER * floor)
        floor = min(floor, level)
        if loud and not began:
            began, heard = True, heard[-_BEFORE:]
        heard.append(samples)
        quiet = 0.0 if loud else quiet + BLOCK
        if began and quiet >= pause:
            break
    if not began:
        raise NothingSaid(
            "nobody spoke", why=f"{patience:.0f} seconds of quiet", do="speak up, or check the microphone"
        )
    return Sound(np.concatenate(heard), HEARD_RATE)


class Loudspeaker:
    """Plays in order; `play` returns when the sound is under way, `close` when the last one is over.

    Raises:
        MediaError: no loudspeaker.
    """

    def __init__(self, rate: int, device: Any = None) -> None:
        audio = _portaudio()
        try:
            self._stream = audio.OutputStream(rate, channels=1, dtype="float32", device=device)
            self._stream.start()
        except audio.PortAudioError as error:
            raise MediaError(
                "there is no loudspeaker that can be used",
                why=str(error)[:200],
                do="plug one in, or write the answers to files: --out FOLDER",
            ) from None

    def __enter__(self) -> Loudspeaker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let what is under way be heard, then let go of the device."""
        self._stream.stop()
        self._stream.close()

    def play(self, sound: Sound) -> None:
        """Add a sound, at the rate that the loudspeaker was opened with."""
        self._stream.write(np.ascontiguousarray(sound.samples[:, None]))


def _portaudio() -> Any:
    try:
        return part("sounddevice")
    except OSError as error:  # it looks for the library while it is imported
        raise MediaError(
            "sound devices cannot be used", why=str(error)[:200], do="apt-get install libportaudio2"
        ) from None
