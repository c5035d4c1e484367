"""A spoken conversation: heard, answered, spoken sentence by sentence; what fails ends the turn and leaves nothing."""

import shutil
import threading
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmos.abi.errors import LLMOSError
from llmos.abi.events import Event, Token
from llmos.apps.multimodal.talk import Talk, WavFile
from llmos.drivers.media.errors import MediaError, model
from llmos.drivers.media.hearing import Listener
from llmos.drivers.media.sound import HEARD_RATE, Sound, open_sound, wav
from llmos.drivers.media.speaking import Chosen, Speaker
from llmos.kernel.kernel import Kernel

pytestmark = pytest.mark.skipif(
    shutil.which("espeak-ng") is None, reason="there is no espeak-ng: apt-get install it"
)

ANSWER = "It is noon. **Lunch** is ready."
SILENCE = Sound(np.zeros(2 * HEARD_RATE, np.float32), HEARD_RATE)


@pytest.fixture(scope="module")
def listener() -> Listener:
    try:
        model("whisper-tiny.en")
    except MediaError as error:
        pytest.skip(str(error))
    return Listener("whisper-tiny.en")


@pytest.fixture(scope="module")
def voice() -> Chosen:
    """The plain voice: quick, and as real."""
    return Speaker().choose("espeak-ng")


@pytest.fixture(scope="module")
def question(voice: Chosen) -> Sound:
    return open_sound(wav(voice.say("What time is it now?")))


def test_a_question_is_heard_and_the_answer_spoken(
    scripted_kernel: Callable[..., Kernel], listener: Listener, voice: Chosen, question: Sound, tmp_path: Path
) -> None:
    process = scripted_kernel(lambda window: ANSWER).spawn()
    heard: list[str] = []
    events: list[Event] = []
    talk = Talk(process, listener, voice, watch=events.append)
    with WavFile(tmp_path / "a.wav", voice.rate) as sink:
        exchange = talk.turn(question, sink, heard.append)
        with wave.open(str(tmp_path / "a.wav")) as growing:  # it is sound before it is closed
            assert growing.getnframes() > voice.rate
    assert heard == [exchange.question] and "time" in exchange.question.lower()
    assert exchange.answer == ANSWER and exchange.sentences == 2
    assert any(isinstance(event, Token) for event in events)
    spoken = open_sound((tmp_path / "a.wav").read_bytes())
    assert spoken.seconds == pytest.approx(exchange.spoken_s + 0.25, abs=0.1)
    words = " ".join(piece.text for piece in listener.hear(spoken).pieces).lower()
    assert "noon" in words and "lunch is ready" in words
    assert 0 < exchange.heard_s < exchange.first_sound_s <= exchange.total_s


class Broken:
    """A loudspeaker that fails at its second sentence."""

    def __init__(self) -> None:
        self.count = 0

    def play(self, sound: Sound) -> None:
        self.count += 1
        if self.count == 2:
            raise MediaError("the loudspeaker is gone")


def test_what_fails_in_speaking_ends_the_turn(
    scripted_kernel: Callable[..., Kernel], listener: Listener, voice: Chosen, question: Sound
) -> None:
    process = scripted_kernel(lambda window: "One more sentence. " * 20).spawn()
    before, sink = threading.active_count(), Broken()
    with pytest.raises(MediaError, match="the loudspeaker is gone"):
        Talk(process, listener, voice).turn(question, sink)
    assert sink.count >= 2 and threading.active_count() <= before + 1
    assert process.current is None
    assert process.ask("Again?").answer  # it is free


def test_where_nobody_speaks_nobody_is_asked(
    scripted_kernel: Callable[..., Kernel], listener: Listener, voice: Chosen, tmp_path: Path
) -> None:
    process = scripted_kernel(lambda window: ANSWER).spawn()
    with pytest.raises(MediaError, match="nothing was said"):
        Talk(process, listener, voice).turn(SILENCE, Broken())
    assert len(process.conversation) == 0


def test_a_file_that_cannot_be_written() -> None:
    with pytest.raises(LLMOSError, match="cannot write"):
        WavFile(Path("/nowhere/a.wav"), 16_000)


def test_the_command_checks_what_it_is_given(run_llmos: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "words.wav").write_text("words")
    damaged = run_llmos("talk", str(tmp_path / "words.wav"), cwd=tmp_path)
    assert damaged.returncode == 1 and "words.wav is no recording that can be read" in damaged.stderr
    absent = run_llmos("talk", "absent.wav", cwd=tmp_path)
    assert absent.returncode == 1 and "absent.wav cannot be read" in absent.stderr
    (tmp_path / "q.wav").write_bytes(wav(SILENCE))
    empty = {"LLMOS_CACHE": str(tmp_path / "empty")}
    unheard = run_llmos("talk", "q.wav", cwd=tmp_path, env=empty)
    assert unheard.returncode == 1 and "llmos models pull whisper-base" in unheard.stderr
    if not Path("/dev/snd").exists():
        mute = run_llmos("talk", cwd=tmp_path)
        assert mute.returncode == 1 and ("--out FOLDER" in mute.stderr or "libportaudio2" in mute.stderr)


def test_the_command(
    run_llmos: Callable[..., Any], question: Sound, tmp_path: Path, listener: Listener
) -> None:
    try:
        model("smollm2-135m")
    except MediaError as error:
        pytest.skip(str(error))
    (tmp_path / "q.wav").write_bytes(wav(question))
    done = run_llmos(
        "talk", "q.wav", "--out", "answers", "--voice", "espeak-ng", "--listener", "whisper-tiny.en",
        "--model", "smollm2-135m", "--max-tokens", "24", cwd=tmp_path, env={"LLMOS_STATE": str(tmp_path / "state")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    you, us = done.stdout.splitlines()[:2]
    assert you.startswith("you: ") and "time" in you.lower() and us.startswith("llmos: ")
    assert open_sound((tmp_path / "answers" / "answer-1.wav").read_bytes()).seconds > 0.3
