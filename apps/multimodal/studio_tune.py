"""Tunes: what a model may compose, and how that becomes MIDI and sound.

What: a tune as a pydantic model, so that the grammar lets nothing else be written; MIDI of it by mido; sound by the
    program `fluidsynth` (LGPL, so beside us and never linked) with a soundfont of this machine.
Invariant: every tune that the grammar admits can be played, and lasts no longer than `LONGEST` seconds. The program
    sees files of ours alone, and ends.
Interface: `Tune`; `prompt(description)`; `midi(tune)`; `Synthesizer(soundfont).wav(midi)`. MediaError.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from llmos.apps.multimodal.studio_drawing import part
from llmos.drivers.media.errors import MediaError
from llmos.drivers.media.sound import open_sound, wav

MAX_NOTES, MAX_CHORDS = 48, 16  # as many as an answer of usual length holds
TICKS = 480  # of MIDI to a beat
RATE = 22_050  # samples a second, one channel: the longest tune has 8 MiB, and a message holds 16 in base64
SECONDS = 60.0  # that fluidsynth may take; it plays a minute in one
LONGEST = 200.0  # seconds; 48 notes of 4 beats at 60 beats a minute are 192, and the last one fades
MELODY, HARMONY = 96, 60  # how hard notes are struck, to 127
FONTS = ("/usr/share/sounds/sf3", "/usr/share/sounds/sf2", "/usr/share/soundfonts")
GET_FONT = "apt-get install fluidr3mono-gm-soundfont, or name one as `apps: {studio: {soundfont: FILE}}`"

Instrument = Literal[
    "piano", "harpsichord", "vibraphone", "organ", "accordion", "guitar", "bass", "violin", "cello", "strings", "choir",
    "trumpet", "saxophone", "clarinet", "flute", "harp",
]  # fmt: skip
PROGRAMS: dict[str, int] = {  # of General MIDI, counted from 0
    "piano": 0, "harpsichord": 6, "vibraphone": 11, "organ": 19, "accordion": 21, "guitar": 24, "bass": 32,
    "violin": 40, "cello": 42, "harp": 46, "strings": 48, "choir": 52, "trumpet": 56, "saxophone": 65,
    "clarinet": 71, "flute": 73,
}  # fmt: skip
_STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_CHORDS = {
    "": (0, 4, 7),
    "m": (0, 3, 7),
    "7": (0, 4, 7, 10),
    "m7": (0, 3, 7, 10),
    "maj7": (0, 4, 7, 11),
    "dim": (0, 3, 6),
}
_WORD = re.compile(r"(?:([A-G])([#b]?)(maj7|m7|m|7|dim)?(-?\d)?|rest) (1/2|1/4|[1-4])")

Note = Annotated[str, Field(pattern=r"^([A-G][#b]?[2-6]|rest) (1/4|1/2|1|2|3|4)$")]
Chord = Annotated[str, Field(pattern=r"^([A-G][#b]?(m|7|m7|maj7|dim)?|rest) (1|2|3|4)$")]


class Tune(BaseModel):
    """A melody, and chords under it. Each note and chord says how many beats it lasts."""

    title: Annotated[str, Field(min_length=1, max_length=60)]
    instrument: Instrument
    beats_a_minute: Annotated[int, Field(ge=60, le=200)]
    melody: Annotated[list[Note], Field(min_length=8, max_length=MAX_NOTES)]
    chords: Annotated[list[Chord], Field(max_length=MAX_CHORDS)]

    @property
    def seconds(self) -> float:
        """How long the longer of both lasts."""
        return max(_beats(self.melody), _beats(self.chords)) * 60 / self.beats_a_minute


def prompt(description: str) -> str:
    """What the model is asked."""
    return f"""A tune is a melody of notes, each with its octave (C4 is middle C) and how many beats it lasts: \
"C4 1", "F#4 1/2", "rest 1". Slow is 60 beats a minute, fast is 180; high notes have octave 5, low ones 3. Chords lie \
under the melody, such as "C 4", "Am 2", "G7 2": major ones sound glad, minor ones (with m) sad. An example, a glad \
song for the flute:
{{"title": "Morning", "instrument": "flute", "beats_a_minute": 120, "melody": ["E5 1", "D5 1", "C5 2", "E5 1/2", \
"F5 1/2", "G5 1", "C5 2", "rest 2"], "chords": ["C 4", "G 2", "C 2"]}}

Compose another tune of 16 notes or more, with a title of its own: {description}"""


def midi(tune: Tune) -> bytes:
    """The tune as a MIDI file with two tracks."""
    mido = part("mido")
    file = mido.MidiFile(type=1, ticks_per_beat=TICKS)
    tempo = mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(tune.beats_a_minute))
    name = mido.MetaMessage("track_name", name=tune.title.encode("latin-1", "replace").decode("latin-1"))
    program = PROGRAMS[tune.instrument]
    file.tracks.append(mido.MidiTrack([tempo, name, *_track(mido, tune.melody, 0, program, MELODY)]))
    if tune.chords:
        file.tracks.append(mido.MidiTrack(_track(mido, tune.chords, 1, program, HARMONY)))
    out = io.BytesIO()
    file.save(file=out)
    return out.getvalue()


def _track(mido: Any, words: Sequence[str], channel: int, program: int, strength: int) -> list[Any]:
    """The messages of one voice; times are in ticks since the message before."""
    messages = [mido.Message("program_change", channel=channel, program=program, time=0)]
    wait = 0
    for word in words:
        keys, length = _keys(word), round(_length(word) * TICKS)
        for at, key in enumerate(keys):
            messages.append(
                mido.Message("note_on", channel=channel, note=key, velocity=strength, time=0 if at else wait)
            )
        for at, key in enumerate(keys):
            messages.append(mido.Message("note_off", channel=channel, note=key, time=0 if at else length))
        wait = 0 if keys else wait + length
    return messages


def _keys(word: str) -> list[int]:
    """MIDI's keys of a note or chord; none for a rest. Chords lie in the octave below middle C."""
    found = _WORD.fullmatch(word)
    assert found is not None, word  # the model's pattern
    letter, sign, kind, octave, _ = found.groups()
    if letter is None:
        return []
    step = _STEPS[letter] + {"#": 1, "b": -1, "": 0}[sign]
    if octave is not None:
        return [12 * (int(octave) + 1) + step]
    return [48 + step % 12 + above for above in _CHORDS[kind or ""]]


def _length(word: str) -> float:
    top, _, bottom = word.rpartition(" ")[2].partition("/")
    return int(top) / int(bottom or 1)


def _beats(words: Sequence[str]) -> float:
    return sum(map(_length, words))


class Synthesizer:
    """fluidsynth and a soundfont.

    Args:
        soundfont: the owner's choice; one that is installed where it is None.
    """

    def __init__(self, soundfont: Path | None = None) -> None:
        self._chosen = soundfont

    def wav(self, file: bytes) -> bytes:
        """A WAV file (16 bits, one channel) of a MIDI file of ours.

        Raises:
            MediaError: there is no fluidsynth or soundfont, or it does not play.
        """
        program = shutil.which("fluidsynth")
        if program is None:
            raise MediaError(
                "there is no fluidsynth", why="it turns notes into sound", do="apt-get install fluidsynth"
            )
        font = self.soundfont()
        with tempfile.TemporaryDirectory(prefix="llmos-tune-") as folder:
            notes, sound = Path(folder) / "tune.mid", Path(folder) / "tune.wav"
            notes.write_bytes(file)
            words = (
                program,
                "-n",
                "-i",
                "-q",
                "-r",
                str(RATE),
                "-g",
                "0.8",
                "-T",
                "wav",
                "-F",
                sound,
                font,
                notes,
            )
            try:
                done = subprocess.run(
                    words, capture_output=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL
                )
            except (subprocess.SubprocessError, OSError) as error:
                raise MediaError(
                    "fluidsynth failed", why=str(error)[:200], do="reinstall fluidsynth"
                ) from None
            if done.returncode != 0 or not sound.is_file():
                why = " ".join(done.stderr.decode("utf-8", "replace").split())[:200]
                raise MediaError("fluidsynth made no sound", why=why, do=f"look at the soundfont {font.name}")
            return wav(open_sound(sound.read_bytes(), "the tune", rate=RATE, longest=LONGEST))

    def soundfont(self) -> Path:
        """The soundfont; MediaError where there is none, or it is none."""
        found = [self._chosen] if self._chosen is not None else _installed()
        if not found:
            raise MediaError("there is no soundfont", why="it holds the instruments' sounds", do=GET_FONT)
        font = found[0]
        try:
            with font.open("rb") as file:
                head = file.read(12)
        except OSError as error:
            raise MediaError(
                f"the soundfont {font} cannot be read", why=error.strerror or "", do=GET_FONT
            ) from None
        if head[:4] != b"RIFF" or head[8:12] != b"sfbk":
            raise MediaError(
                f"{font} is no soundfont", why="its first bytes are of another format", do=GET_FONT
            )
        return font


def _installed() -> list[Path]:
    """Soundfonts of this machine, in the order of their folders and names."""
    folders = (Path(folder) for folder in FONTS)
    return [f for d in folders if d.is_dir() for f in sorted(d.iterdir()) if f.suffix in (".sf2", ".sf3")]
