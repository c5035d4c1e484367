"""Microphone and loudspeaker: an utterance is found; a device that is not there says what to do.

With PortAudio installed, ALSA itself plays into a file and records from one.
"""

import os
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path

import numpy as np
import pytest

from llmos.drivers.media.device import Loudspeaker, record, utterance
from llmos.drivers.media.errors import MediaError, part
from llmos.drivers.media.sound import Samples

RATE = 16_000


def microphone(*parts: tuple[float, float]) -> "Reader":
    """Parts of (seconds, level), with a little noise."""
    noise = np.random.default_rng(0).standard_normal(int(RATE * sum(s for s, _ in parts))).astype(np.float32)
    levels = np.concatenate([np.full(int(RATE * s), level, np.float32) for s, level in parts])
    return Reader(noise * levels)


class Reader:
    def __init__(self, samples: Samples) -> None:
        self.samples, self.at = samples, 0

    def __call__(self, count: int) -> Samples:
        self.at += count
        assert self.at <= len(self.samples), "it read on after the end"
        return self.samples[self.at - count : self.at]


def test_an_utterance_begins_with_the_first_loud_moment_and_ends_with_a_pause() -> None:
    read = microphone((2.0, 0.001), (1.0, 0.1), (0.5, 0.001), (1.0, 0.1), (3.0, 0.001))
    sound = utterance(read, pause=1.0)
    assert sound.seconds == pytest.approx(0.5 + 1.0 + 0.5 + 1.0 + 1.0, abs=0.21)
    assert read.at / RATE == pytest.approx(5.5, abs=0.21)


def test_a_noisy_room_and_one_who_speaks_at_once() -> None:
    assert utterance(microphone((2.0, 0.02), (1.0, 0.2), (3.0, 0.02))).seconds < 3
    assert utterance(microphone((1.0, 0.1), (3.0, 0.001))).seconds == pytest.approx(2.2, abs=0.21)


def test_bounds() -> None:
    with pytest.raises(MediaError, match="nobody spoke"):
        utterance(microphone((6.0, 0.001)), patience=5.0)
    assert utterance(microphone((1.0, 0.001), (20.0, 0.1)), longest=4.0).seconds == pytest.approx(
        4.0, abs=0.6
    )


CONFIG = """
</usr/share/alsa/alsa.conf>
pcm.!default {{ type file slave.pcm "null" file "{played}" infile "{spoken}" format "wav" }}
ctl.!default {{ type hw card 0 }}
"""
PLAY = """
with Loudspeaker(24000) as speaker:
    speaker.play(Sound(np.full(24000, 0.5, np.float32), 24000))
    speaker.play(Sound(np.full(2400, 0.25, np.float32), 24000))
"""
IMPORTS = """
import numpy as np
from llmos.drivers.media.device import Loudspeaker, record
from llmos.drivers.media.sound import Sound
"""
HAS_PORTAUDIO = find_library("portaudio") is not None and Path("/usr/share/alsa/alsa.conf").exists()


def with_device(folder: Path, script: str) -> str:
    """What a program says on a machine whose only sound device plays into a file and records from one."""
    config = folder / "asound.conf"
    config.write_text(CONFIG.format(played=folder / "played.wav", spoken=folder / "spoken.raw"))
    environment = {**os.environ, "ALSA_CONFIG_PATH": str(config)}
    command = [sys.executable, "-c", IMPORTS + script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not HAS_PORTAUDIO, reason="there is no PortAudio: apt-get install libportaudio2")
def test_the_loudspeaker_plays_and_the_microphone_records(tmp_path: Path) -> None:
    microphone((2.0, 0.001), (1.0, 0.1), (3.0, 0.001)).samples.tofile(tmp_path / "spoken.raw")
    with_device(tmp_path, PLAY)
    played = np.fromfile(tmp_path / "played.wav", "<f4", offset=44)
    np.testing.assert_array_equal(np.unique(played), np.array([0.25, 0.5], np.float32))
    assert len(played) == 24000 + 2400
    assert float(with_device(tmp_path, "print(record().seconds)")) == pytest.approx(2.7, abs=0.21)


def test_a_missing_device_says_what_to_do() -> None:
    if HAS_PORTAUDIO and part("sounddevice").query_devices():
        pytest.skip("this machine has a sound device")
    with pytest.raises(MediaError, match=r"llmos talk question.wav|apt-get install libportaudio2"):
        record()
    with pytest.raises(MediaError, match=r"--out FOLDER|apt-get install libportaudio2"):
        Loudspeaker(24_000)
