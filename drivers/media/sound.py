"""From the bytes of a recording to samples, and back to a WAV file.

What: WAV, FLAC, Ogg (Opus, Vorbis), MP3, M4A/MP4, WebM/Matroska, AIFF, AAC and AMR by FFmpeg's libraries, mixed to one
    channel; 16-bit WAV out.
Invariant: the container is told from the first bytes and FFmpeg is given that one, so that no playlist or script makes
    it open a file or an address. Decoding stops at `MAX_SECONDS`, whatever a header claims.
Interface: `open_sound(data, name, rate=...) -> Sound`; `wav(sound)` as bytes; MediaError says what is wrong.
"""

from __future__ import annotations

import io
import wave
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from llmos.abi.limits import MAX_DOCUMENT_BYTES
from llmos.drivers.media.errors import MediaError, part

MAX_SECONDS = 3600.0  # of one recording: 220 MiB of samples at 16 kHz
HEARD_RATE = 16_000  # samples a second that speech is heard at
READ = "WAV, FLAC, Ogg, Opus, MP3, M4A, MP4, WebM, AIFF, AAC or AMR"
_BEGINNINGS = (
    (0, b"fLaC", "flac"), (0, b"OggS", "ogg"), (0, b"ID3", "mp3"), (4, b"ftyp", "mov"),
    (0, b"\x1aE\xdf\xa3", "matroska"), (0, b"#!AMR", "amr"), (0, b"caff", "caf"), (0, b".snd", "au"),
)  # fmt: skip

Samples = npt.NDArray[np.float32]  # [N], -1 to 1


@dataclass(frozen=True, slots=True)
class Sound:
    """One channel of sound: f32 samples in -1..1, `rate` of them a second."""

    samples: Samples
    rate: int

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.samples) / self.rate


def open_sound(
    data: bytes, name: str = "the recording", *, rate: int = HEARD_RATE, longest: float = MAX_SECONDS
) -> Sound:
    """Decode a recording, mixed to one channel at `rate`.

    Args:
        name: what errors call it.
        longest: seconds; more is refused, not cut.

    Raises:
        MediaError: it is empty, damaged, too long, or no sound that is read.
    """
    if not data:
        raise MediaError(f"{name} is empty", why="the file has 0 bytes", do="record it again")
    if len(data) > MAX_DOCUMENT_BYTES:
        raise MediaError(
            f"{name} is too large", why=f"more than {MAX_DOCUMENT_BYTES >> 20} MiB", do="cut it into pieces"
        )
    kind = _container(data)
    if kind is None:
        raise MediaError(
            f"{name} is no recording that can be read",
            why="its first bytes are of no known format", do=f"give {READ}",
        )  # fmt: skip
    av = part("av")
    try:
        with av.open(io.BytesIO(data), mode="r", format=kind, metadata_errors="ignore") as container:
            samples = _decode(av, container, name, rate, longest)
    except MediaError:
        raise
    except MemoryError:
        raise MediaError(f"{name} does not fit into memory", do="cut it into pieces") from None
    except (av.FFmpegError, ValueError, EOFError, OverflowError) as error:
        raise MediaError(
            f"{name} is damaged", why=f"{type(error).__name__}: {error}"[:300], do="record it again"
        ) from None
    if not samples.size:
        raise MediaError(f"{name} holds no sound", why="it lasts 0 seconds", do="record it again")
    return Sound(samples, rate)


def _container(data: bytes) -> str | None:
    """The demuxer for a recording's first bytes."""
    if data[:4] in (b"RIFF", b"RF64") and data[8:12] == b"WAVE":
        return "wav"
    if data[:4] == b"FORM" and data[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    for offset, beginning, kind in _BEGINNINGS:
        if data[offset : offset + len(beginning)] == beginning:
            return kind
    if data[0] == 0xFF and len(data) > 1 and data[1] & 0xE0 == 0xE0:  # the sync word of an MPEG frame
        return "aac" if data[1] & 0xF6 == 0xF0 else "mp3"
    return None


def _decode(av: Any, container: Any, name: str, rate: int, longest: float) -> Samples:
    if not container.streams.audio:
        raise MediaError(f"{name} holds no sound", why="it has no audio stream", do="give another file")
    resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
    found: list[Samples] = []
    count, broken = 0, None
    frames = container.decode(audio=0)
    while True:
        try:
            frame = next(frames, None)
        except av.FFmpegError as error:
            broken = error
            break
        for piece in resampler.resample(frame):  # None, at the end, gives what it held back
            samples = np.asarray(piece.to_ndarray(), np.float32).reshape(-1)
            count += samples.size
            if count > longest * rate:
                raise MediaError(
                    f"{name} is too long", why=f"more than {longest:.0f} seconds", do="cut it into pieces"
                )
            found.append(samples)
        if frame is None:
            break
    if broken is not None and not count:
        raise broken
    samples = np.concatenate(found) if found else np.zeros(0, np.float32)
    return np.clip(np.nan_to_num(samples), -1.0, 1.0)


def wav(sound: Sound) -> bytes:
    """A WAV file of 16-bit samples."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sound.rate)
        file.writeframes(np.round(np.clip(sound.samples, -1, 1) * 32767).astype("<i2").tobytes())
    return out.getvalue()


def joined(sounds: list[Sound], pause: float = 0.0) -> Sound:
    """One after the other, `pause` seconds of silence between; all of one rate.

    Raises:
        MediaError: there are none.
    """
    if not sounds:
        raise MediaError("there is nothing to hear", do="give it some words")
    rate = sounds[0].rate
    assert all(sound.rate == rate for sound in sounds)
    silence = np.zeros(round(pause * rate), np.float32)
    pieces = [piece for sound in sounds for piece in (sound.samples, silence)][: 2 * len(sounds) - 1]
    return Sound(np.concatenate(pieces), rate)
