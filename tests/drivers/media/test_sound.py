"""Sound: what is decoded, what is refused, what a header may not do."""

import io
import struct
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmos.drivers.media.errors import MediaError
from llmos.drivers.media.sound import HEARD_RATE, Sound, joined, open_sound, wav

TONE = Sound(
    np.sin(np.arange(HEARD_RATE, dtype=np.float32) * np.float32(2 * np.pi * 440 / HEARD_RATE)) * 0.5,
    HEARD_RATE,
)


def encoded(form: str, codec: str, rate: int = 48_000, layout: str = "stereo") -> bytes:
    """A second of a tone in a container."""
    out = io.BytesIO()
    with av.open(out, "w", format=form) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.layout = layout
        frame = av.AudioFrame.from_ndarray(TONE.samples[None], format="flt", layout="mono")
        frame.sample_rate = HEARD_RATE
        resampler = av.AudioResampler(stream.format, layout, rate, stream.codec_context.frame_size or 1024)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            piece.pts = None
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return out.getvalue()


def test_a_wav_file_goes_out_and_comes_in() -> None:
    again = open_sound(wav(TONE))
    assert again.rate == HEARD_RATE and again.seconds == 1.0
    np.testing.assert_allclose(again.samples, TONE.samples, atol=1e-4)
    assert open_sound(wav(TONE), rate=8000).seconds == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    ("form", "codec"),
    [
        ("mp3", "libmp3lame"), ("ogg", "libopus"), ("flac", "flac"), ("ipod", "aac"), ("webm", "libopus"),
        ("aiff", "pcm_s16be"), ("adts", "aac"), ("wav", "pcm_f32le"),
    ],
)  # fmt: skip
def test_containers(form: str, codec: str) -> None:
    sound = open_sound(encoded(form, codec))
    assert sound.seconds == pytest.approx(1.0, abs=0.15)
    spectrum = np.abs(np.fft.rfft(sound.samples))
    assert spectrum.argmax() / sound.seconds == pytest.approx(440, abs=3)  # Hz


PLAYLIST = b"#EXTM3U\n#EXTINF:10,\n/etc/passwd\nhttp://127.0.0.1:1/x.wav\n"
CONCAT = b"ffconcat version 1.0\nfile /etc/passwd\n"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "0 bytes"),
        (b"words", "no known format"),
        (PLAYLIST, "no known format"),
        (CONCAT, "no known format"),
        (b"RIFF\x00\x00\x00\x00WAVE" + PLAYLIST, "damaged|holds no sound"),
        (wav(Sound(np.zeros(0, np.float32), 16_000)), "lasts 0 seconds|damaged"),
        (wav(TONE)[:20], "damaged|holds no sound"),
        (b"ID3" + bytes(2000), "damaged|holds no sound"),
        (b"OggS" + bytes(500), "damaged|holds no sound"),
        (b"\x00\x00\x00\x18ftypM4A " + bytes(300), "damaged|holds no sound"),
    ],
)
def test_what_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(MediaError, match=words) as caught:
        open_sound(data, "r.wav")
    assert "r.wav" in caught.value.what and caught.value.do


def test_length_is_bounded_whatever_a_header_claims() -> None:
    with pytest.raises(MediaError, match="more than 3 seconds"):
        open_sound(wav(joined([TONE] * 5)), longest=3)
    huge = bytearray(wav(TONE))
    huge[40:44] = struct.pack("<I", 0x7FFFFFFF)  # a data chunk of 2 GiB
    assert open_sound(bytes(huge)).seconds <= 1.01
    quick = bytearray(wav(TONE))
    quick[24:28] = struct.pack("<I", 1)  # one sample a second: hours of silence to make up
    with pytest.raises(MediaError, match=r"more than 3600 seconds|damaged"):
        open_sound(bytes(quick))
    # a minute of silence in 12 KiB of FLAC is decoded only as far as it may be
    silence = np.zeros((1, HEARD_RATE * 60), np.float32)
    out = io.BytesIO()
    with av.open(out, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=HEARD_RATE)
        frame = av.AudioFrame.from_ndarray((silence * 0).astype(np.int16), format="s16", layout="mono")
        frame.sample_rate = HEARD_RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(MediaError, match="more than 10 seconds"):
        open_sound(out.getvalue(), longest=10)


FORMS = {"wav": wav(TONE)[:4000], "flac": encoded("flac", "flac"), "ogg": encoded("ogg", "libopus")}


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(FORMS)), st.data())
def test_damage_is_a_typed_error_or_a_sound(form: str, data: st.DataObject) -> None:
    raw = bytearray(FORMS[form])
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        sound = open_sound(bytes(raw[: data.draw(st.integers(1, len(raw)))]), longest=30)
        assert np.isfinite(sound.samples).all() and np.abs(sound.samples).max() <= 1
    except MediaError as error:
        assert error.what and error.why


def test_what_is_written_is_bounded_and_joined_with_pauses(tmp_path: Path) -> None:
    loud = Sound(np.array([5, -5, np.float32(0.5)], np.float32), 8000)
    (tmp_path / "loud.wav").write_bytes(wav(joined([loud, loud], pause=0.001)))
    with wave.open(str(tmp_path / "loud.wav")) as file:
        samples = np.frombuffer(file.readframes(100), "<i2")
    assert samples.tolist() == [32767, -32767, 16384, *[0] * 8, 32767, -32767, 16384]
    with pytest.raises(MediaError, match="nothing to hear"):
        joined([])
