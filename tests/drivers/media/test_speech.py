"""Voice and ears, with the real models: what one says the other hears."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llmos.drivers.media import espeak, kokoro
from llmos.drivers.media.errors import MediaError
from llmos.drivers.media.hearing import Listener
from llmos.drivers.media.kokoro import MAX_TOKENS, _runs, _tokens, sounds_of
from llmos.drivers.media.sound import Sound, joined, open_sound, wav
from llmos.drivers.media.speaking import Speaker

pytestmark = pytest.mark.skipif(
    shutil.which("espeak-ng") is None, reason="there is no espeak-ng: apt-get install it"
)

SAID = "The quick brown fox jumps over the lazy dog."


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


@pytest.fixture(scope="module")
def listener(model_path: Callable[[str], Path]) -> Listener:
    model_path("whisper-tiny.en")
    return Listener("whisper-tiny.en")


@pytest.fixture(scope="module")
def speaker(model_path: Callable[[str], Path]) -> Speaker:
    model_path("kokoro-82m")
    return Speaker()


def test_what_kokoro_says_whisper_hears(speaker: Speaker, listener: Listener) -> None:
    chosen = speaker.choose()
    assert (chosen.engine, chosen.voice, chosen.why) == ("kokoro-82m", "af_heart", "")
    ((sentence, sound),) = chosen.speak(f"**{SAID}**")
    assert sentence == SAID and sound.rate == chosen.rate and 1.5 < sound.seconds < 6
    heard = listener.hear(open_sound(wav(sound)))
    pieces = list(heard.pieces)
    assert words(" ".join(piece.text for piece in pieces)) == words(SAID)
    assert (heard.language, heard.model) == ("en", "whisper-tiny.en")
    assert 0 <= pieces[0].start < pieces[-1].end <= sound.seconds + 1


def test_voices_by_name_and_language(speaker: Speaker) -> None:
    assert {"af_heart", "bf_emma", "ff_siwis"} <= set(speaker.voices())
    chosen = {code: speaker.choose(language=code) for code in ("en", "en-GB", "en_AU", "fr", "pt", "de")}
    assert {code: c.voice[0] for code, c in chosen.items()} == {
        "en": "a", "en-GB": "b", "en_AU": "a", "fr": "f", "pt": "p", "de": "d",
    }  # fmt: skip
    assert chosen["de"].engine == "espeak-ng" and "does not speak de" in chosen["de"].why
    assert speaker.choose("espeak-ng", "en-gb").voice == "en-gb"
    for bad, words in (
        ({"voice": "de"}, "no voice"),
        ({"voice": "af_nobody"}, "no voice"),
        ({"language": "tlh-klingon"}, "nothing here speaks"),
        ({"speed": 0.1}, "speed"),
        ({"speed": float("nan")}, "speed"),
    ):
        with pytest.raises(MediaError, match=words):
            speaker.choose(**bad)  # type: ignore[arg-type]


def test_without_kokoro_espeak_speaks_and_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLMOS_CACHE", str(tmp_path))
    chosen = Speaker().choose("af_heart")
    assert (chosen.engine, chosen.voice) == ("espeak-ng", "en-us")
    assert "llmos models pull kokoro-82m" in chosen.why
    slow, fast = (Speaker().choose(language="de", speed=speed) for speed in (0.7, 1.5))
    assert slow.say("Guten Tag zusammen").seconds > 1.3 * fast.say("Guten Tag zusammen").seconds > 0.3


def test_parts_that_are_missing_say_how_to_get_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLMOS_CACHE", str(tmp_path))
    with pytest.raises(MediaError, match="llmos models pull whisper-base"):
        Listener().hear(Sound(np.zeros(16_000, np.float32), 16_000))
    with pytest.raises(MediaError, match="llmos models pull kokoro-82m"):
        Speaker().voices()
    monkeypatch.setenv("PATH", str(tmp_path))
    espeak.languages.cache_clear()
    with pytest.raises(MediaError, match="apt-get install espeak-ng"):
        Speaker().choose()


def test_silence_is_not_dreamt_into_words(listener: Listener) -> None:
    silence = Sound(np.zeros(3 * 16_000, np.float32), 16_000)
    assert list(listener.hear(silence).pieces) == []
    with pytest.raises(MediaError, match="does not hear 'de'"):
        listener.hear(silence, "de")
    with pytest.raises(MediaError, match="decode it at 16000"):
        listener.hear(Sound(silence.samples, 8000))


def test_text_is_data_to_espeak() -> None:
    assert espeak.phonemes("[[h@l'oU]]", "en-us") == espeak.phonemes("h@l'oU", "en-us")
    assert "slˈæʃ" not in espeak.phonemes("--version", "en-us")
    assert espeak.phonemes("<voice name='de'>yes", "en-us")  # no markup is obeyed, and none breaks it
    with pytest.raises(MediaError, match="does not speak"):
        espeak.phonemes("x", "../../etc")


def test_notation() -> None:
    """The clause marks stay in place; numbers and titles are not taken apart."""
    assert sounds_of("Hello, world!", "en-us") == "həlˈO, wˈɜɹld!"
    assert sounds_of("Dr. Who paid 1,234.5 (twice).", "en-us").count(".") == 1
    assert sounds_of("...", "en-us") == "..."
    vowels = set(sounds_of("The judge's little bottle church", "en-us")) - set(" ˈ")
    assert vowels <= set(kokoro._vocabulary())


def test_text_beyond_the_model_is_said_in_several_runs() -> None:
    tokens = _tokens(sounds_of("nine hundred bottles " * 40, "en-us"))
    runs = list(_runs(tokens))
    assert len(tokens) > MAX_TOKENS and max(map(len, runs)) <= MAX_TOKENS
    assert [token for run in runs for token in run] == tokens
    with pytest.raises(MediaError, match="nothing to hear"):
        joined([])
