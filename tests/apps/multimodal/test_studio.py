"""Studio: what a grammar admits is a sound picture, tune or page; behind the kernel, with the real renderers."""

from __future__ import annotations

import asyncio
import io
import json
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree

import mido
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from llmos.abi.errors import GrammarError
from llmos.abi.events import Result
from llmos.abi.labels import Integrity
from llmos.abi.schema import simplify
from llmos.apps.multimodal import studio_blending as blending
from llmos.apps.multimodal import studio_drawing as drawing
from llmos.apps.multimodal import studio_page as page
from llmos.apps.multimodal import studio_tune as tune
from llmos.apps.multimodal.studio_stencils import SKY, STENCILS
from llmos.drivers.media.errors import MediaError
from llmos.drivers.media.pictures import open_picture
from llmos.drivers.media.sound import open_sound
from llmos.drivers.web.addresses import Gate
from llmos.kernel.engine.grammar import GrammarCompiler
from llmos.kernel.engine.scripted import VOCAB, byte_tokenizer
from llmos.kernel.kernel import Kernel
from llmos.kernel.syscalls import answer_lark
from llmos.testing import call
from tests.drivers.media.drawn import encoded
from tests.drivers.media.drawn import page as drawn
from tests.drivers.remote.hostile import serving
from tests.drivers.web.started import missing_chromium

SCENE = {
    "background": "skyblue", "ground": "grass",
    "parts": [
        {"where": "left", "size": "large", "thing": "house", "colour": "red"},
        {"shape": "circle", "x": 90, "y": 10, "radius": 8, "colour": "yellow"},
        {"shape": "words", "x": 50, "y": 95, "text": 'Tom & <Jerry> "x" \x07', "size": 6, "colour": "black"},
        {"shape": "triangle", "x": 60, "y": 40, "width": 20, "height": 20, "colour": "navy"},
        {"shape": "line", "x": 0, "y": 0, "to_x": 10, "to_y": 0, "thickness": 1, "colour": "black"},
    ],
}  # fmt: skip
TUNE = {
    "title": "Ä ☀", "instrument": "cello", "beats_a_minute": 120,
    "melody": ["A4 1", "rest 1/2", "F#4 1/2", "Bb3 2", "C4 1/4", "D4 1/4", "E4 1/2", "A4 1"],
    "chords": ["Am 4", "rest 1", "Gmaj7 1"],
}  # fmt: skip
PAGE = {
    "title": "<script>alert(1)</script>", "theme": "dark",
    "blocks": [
        {"block": "heading", "text": "One"}, {"block": "paragraph", "text": '<img src=x onerror="y">'},
        {"block": "list", "items": ["a", "</ul>"]}, {"block": "table", "rows": [["x", "y"], ["1", "2"]]},
        {"block": "reveal", "text": "Q", "button": "Show", "hidden": "</style><script>"},
    ],
    "footer": "end",
}  # fmt: skip
needs_font = pytest.mark.skipif(
    shutil.which("fluidsynth") is None or not tune._installed(),
    reason="there is no fluidsynth or no soundfont: apt-get install fluidsynth fluidr3mono-gm-soundfont",
)


needs_chromium = pytest.mark.skipif(
    bool(missing_chromium()), reason=missing_chromium() or "there is Chromium"
)


# -- what the grammar admits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "good"),
    [
        (drawing.Drawing, SCENE),
        (tune.Tune, TUNE),
        (page.Page, PAGE),
        (
            drawing.form("two red cats and the word hi"),
            {
                "cat_1": {"where": "left", "size": "small"}, "cat_2": {"where": "right", "size": "large"},
                "words": {"shape": "words", "x": 1, "y": 2, "text": "hi", "size": 9, "colour": "red"},
                "background": "navy", "ground": "none",
            },
        ),
    ],
)  # fmt: skip
def test_forms_compile_and_admit_what_they_describe(kind: type[Any], good: dict[str, Any]) -> None:
    value = TypeAdapter(kind).validate_python(good)
    schema = simplify(TypeAdapter(kind).json_schema())
    assert not schema.loosened
    order = {name: json.loads(value.model_dump_json())[name] for name in schema.schema["properties"]}
    compiler = GrammarCompiler(byte_tokenizer(), VOCAB)
    grammar = compiler.compile(answer_lark(schema.schema))
    text = json.dumps(order, ensure_ascii=False).replace("\\u0007", "")
    grammar.take(list(text.encode()))
    with pytest.raises(GrammarError):
        compiler.compile(answer_lark(schema.schema)).take(list(text.replace(": ", ": @", 1).encode()))
    with pytest.raises(ValidationError):
        kind.model_validate({**good, **dict.fromkeys(good, 7)})


def test_what_a_description_names_has_to_be_drawn() -> None:
    assert drawing.named("A red house, two trees and the yellow boxes; 3 navy stars.") == [
        ("house", "red"), ("tree", "green"), ("tree", "green"), ("rectangle", "yellow"),
        ("star", "navy"), ("star", "navy"), ("star", "navy"),
    ]  # fmt: skip
    assert drawing.named("an idea") == [] and drawing.form("an idea") is drawing.Drawing
    assert len(drawing.named("99 cats")) == drawing.MAX_PARTS
    wish = 'a cat at night in the snow, with "Hi"'
    form = drawing.form(wish)
    assert set(form.model_fields) == {"cat_1", "words", "background", "ground"}
    assert get_args(form.model_fields["background"].annotation) == ("navy", "black")
    words = {"shape": "words", "x": 5, "y": 6, "text": "Hi", "size": 7, "colour": "red"}
    answer = {
        "cat_1": {"where": "left", "size": "small"},
        "words": words,
        "background": "navy",
        "ground": "snow",
    }
    made = drawing.drawing(form.model_validate(answer), wish)
    assert [part.model_dump() for part in made.parts] == [
        {"thing": "cat", "colour": "gray", "where": "left", "size": "small"}, words
    ]  # fmt: skip
    circles = drawing.form("two red circles")
    circle = {"shape": "circle", "x": 1, "y": 2, "radius": 3, "colour": "blue"}
    answer = {"circle_1": circle, "circle_2": circle, "background": "white", "ground": "none"}
    made = drawing.drawing(circles.model_validate(answer), "two red circles")
    assert [part.colour for part in made.parts] == ["red", "red"]
    assert "red" not in get_args(circles.model_fields["background"].annotation)


# -- drawings ----------------------------------------------------------------------------------------------------------


def test_every_stencil_is_known_and_drawn() -> None:
    assert get_args(drawing.Name) == tuple(STENCILS) and SKY < STENCILS.keys() == drawing._NATURAL.keys()
    for name in STENCILS:
        part = {"where": "middle", "size": "large", "thing": name, "colour": "purple"}
        made = drawing.Drawing.model_validate({"background": "white", "ground": "none", "parts": [part]})
        rgb = open_picture(drawing.png(drawing.svg(made), 64)).rgb
        assert (rgb < 250).any(axis=2).mean() > 0.01, name


def test_a_drawing_is_sound_svg_and_shows_its_parts() -> None:
    source = drawing.svg(drawing.Drawing.model_validate(SCENE))
    root = ElementTree.fromstring(source)
    assert {element.tag.rpartition("}")[2] for element in root.iter()} <= {
        "svg", "rect", "g", "circle", "polygon", "text", "line"
    }  # fmt: skip
    assert not re.search(r"href|url\(|script|style|<!|on\w+=", source)
    assert root.findtext(".//{*}text") == 'Tom & <Jerry> "x" '
    rgb = open_picture(drawing.png(source, 200)).rgb
    assert rgb.shape == (200, 200, 3)
    assert tuple(rgb[20, 180]) == (255, 255, 0) and tuple(rgb[60, 120]) == (135, 206, 235)
    assert tuple(rgb[199, 5]) == (0, 128, 0) and tuple(rgb[118, 140]) == (0, 0, 128)
    assert np.array_equal(rgb[118, 140], open_picture(drawing.png(source, 100)).rgb[59, 70])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(min_size=1, max_size=40))
def test_whatever_words_say_the_svg_is_sound(text: str) -> None:
    words = {"shape": "words", "x": 1, "y": 1, "text": text, "size": 5, "colour": "black"}
    source = drawing.svg(
        drawing.Drawing.model_validate({"background": "white", "ground": "none", "parts": [words]})
    )
    assert ElementTree.fromstring(source.encode("utf-8", "surrogatepass")) is not None
    assert open_picture(drawing.png(source, 16)).width == 16


def test_things_in_one_place_step_aside() -> None:
    part = {"where": "middle", "size": "small", "thing": "star", "colour": "red"}
    made = drawing.Drawing.model_validate({"background": "white", "ground": "none", "parts": [part] * 10})
    places = re.findall(r"translate\(([^)]*)\)", drawing.svg(made))
    assert len(set(places)) == 10


# -- blending ----------------------------------------------------------------------------------------------------------


def plain(width: int, height: int, *colour: int) -> Any:
    return np.full((height, width, 3), colour, np.uint8)


@pytest.mark.parametrize(
    "mode", ["mix", "multiply", "screen", "overlay", "darken", "lighten", "difference", "add"]
)
def test_modes_are_those_of_painting_programs(mode: blending.Mode) -> None:
    first, second = plain(4, 3, 100, 50, 20), plain(4, 3, 100, 150, 230)
    share = 0.5 if mode == "mix" else 1.0
    made = blending.blend(first, second, mode, share)
    below, above = first[0, 0] / 255, second[0, 0] / 255
    want = {
        "mix": (below + above) / 2, "multiply": below * above, "screen": 1 - (1 - below) * (1 - above),
        "overlay": np.where(below < 0.5, 2 * below * above, 1 - 2 * (1 - below) * (1 - above)),
        "darken": np.minimum(below, above), "lighten": np.maximum(below, above),
        "difference": np.abs(below - above), "add": np.minimum(below + above, 1),
    }[mode]  # fmt: skip
    assert made.shape == first.shape and np.abs(made[1, 2] - want * 255).max() < 1
    assert np.array_equal(blending.blend(first, second, mode, 0.0), first)
    assert made.dtype == np.uint8


def test_masks_fades_and_places() -> None:
    black, white = plain(8, 4, 0, 0, 0), plain(8, 4, 255, 255, 255)
    mask = black.copy()
    mask[:, 4:] = 255
    masked = blending.blend(black, white, "mix", 1.0, mask)
    assert masked[0, 1, 0] == 0 and masked[0, 6, 0] == 255
    faded = blending.blend(black, white, "fade_right", 0.5)[0, :, 0].tolist()
    assert faded == sorted(faded) and (faded[0], faded[-1]) == (0, 255)
    assert blending.blend(black, white, "fade_down", 0.5)[-1, 0, 0] == 255
    assert blending.blend(black, plain(4, 8, 1, 1, 1), "beside").shape == (4, 10, 3)
    assert blending.blend(black, plain(4, 8, 1, 1, 1), "below").shape == (20, 8, 3)
    inset = blending.blend(plain(100, 60, 0, 0, 0), plain(10, 5, 255, 255, 255), "inset", 0.2)
    assert inset.shape == (60, 100, 3) and inset[55, 90, 0] == 255 and (inset > 0).any(axis=2).sum() == 200
    assert blending.blend(black, plain(2, 900, 9, 9, 9), "inset", 1.0).shape == black.shape
    with pytest.raises(MediaError, match="leave the mask out"):
        blending.blend(black, white, "beside", 0.5, mask)


def test_what_is_made_is_bounded() -> None:
    wide = plain(5000, 10, 1, 2, 3)
    assert max(blending.blend(wide, plain(9, 9, 0, 0, 0), "mix").shape) == blending.LARGEST
    with pytest.raises(MediaError, match="do not go together"):
        blending.blend(plain(10, 1500, 0, 0, 0), plain(3000, 1, 0, 0, 0), "beside")
    noise = np.random.default_rng(0).integers(0, 256, (blending.LARGEST, blending.LARGEST, 3), np.uint8)
    assert len(blending.encoded(noise)) * 4 / 3 < 15 << 20  # what a message holds


# -- tunes -------------------------------------------------------------------------------------------------------------


def test_notes_and_chords_are_the_keys_that_they_name() -> None:
    assert [tune._keys(note) for note in ("C4 1", "A4 1", "F#4 1/2", "Bb3 2", "rest 1")] == [
        [60], [69], [66], [58], []
    ]  # fmt: skip
    assert tune._keys("C 4") == [48, 52, 55] and tune._keys("Am 2") == [57, 60, 64]
    assert tune._keys("Gmaj7 1") == [55, 59, 62, 66] and tune._keys("Cb 1") == [59, 63, 66]
    made = tune.Tune.model_validate(TUNE)
    file = mido.MidiFile(file=io.BytesIO(tune.midi(made)))
    assert file.length == pytest.approx(made.seconds) == 3.0
    played = [m for m in file.tracks[0] if m.type == "note_on"]
    assert [m.note for m in played] == [69, 66, 58, 60, 62, 64, 69] and played[1].time == tune.TICKS // 2


@pytest.mark.parametrize("note", ["H4 1", "C9 1", "C4", "C4 5", "C4 1/0", "", "C4 1 1", "rest 9"])
def test_what_is_no_note_is_refused(note: str) -> None:
    with pytest.raises(ValidationError):
        tune.Tune.model_validate({**TUNE, "melody": [note] * 8})


def test_the_longest_tune_fits_a_message() -> None:
    longest = tune.Tune.model_validate(
        {**TUNE, "beats_a_minute": 60, "melody": ["C4 4"] * tune.MAX_NOTES, "chords": []}
    )
    assert longest.seconds + 5 < tune.LONGEST and tune.LONGEST * tune.RATE * 2 * 4 / 3 < 15 << 20


@needs_font
def test_a_tune_sounds() -> None:
    made = tune.Tune.model_validate(TUNE)
    sound = open_sound(tune.Synthesizer().wav(tune.midi(made)), rate=tune.RATE)
    assert made.seconds - 0.1 < sound.seconds < made.seconds + 5
    first = sound.samples[round(0.1 * tune.RATE) : round(0.45 * tune.RATE)]
    assert np.abs(first).max() > 0.02
    spectrum = np.abs(np.fft.rfft(first * np.hanning(len(first)), 1 << 16))
    pitch = np.fft.rfftfreq(1 << 16, 1 / tune.RATE)
    near = {key: spectrum[np.abs(pitch - 440 * 2 ** ((key - 69) / 12)) < 6].max() for key in (69, 67, 71)}
    assert near[69] > 3 * max(near[67], near[71])  # A4, and neither G4 nor B4


def test_a_missing_or_false_soundfont_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    false = tmp_path / "false.sf2"
    false.write_bytes(struct.pack("<4sI4s", b"RIFF", 4, b"WAVE"))
    with pytest.raises(MediaError, match="is no soundfont"):
        tune.Synthesizer(false).soundfont()
    with pytest.raises(MediaError, match="cannot be read"):
        tune.Synthesizer(tmp_path / "absent.sf2").soundfont()
    monkeypatch.setattr(tune, "FONTS", (str(tmp_path),))
    assert tune.Synthesizer().soundfont is not None
    false.unlink()
    with pytest.raises(MediaError, match="there is no soundfont"):
        tune.Synthesizer().soundfont()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MediaError, match="apt-get install fluidsynth"):
        tune.Synthesizer().wav(b"")


# -- pages -------------------------------------------------------------------------------------------------------------


def test_a_page_holds_words_and_nothing_active() -> None:
    source = page.html(page.Page.model_validate(PAGE))
    assert source.count("<script") == 0 and "<img" not in source and source.count("</style>") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in source and "<details><summary>Show</summary>" in source
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', source)
    assert policy is not None and policy[1].startswith("default-src 'none'; style-src 'sha256-")
    assert "http:" not in source and "https:" not in source and "unsafe" not in source


@needs_chromium
def test_chromium_shows_a_page_as_it_is_meant() -> None:
    made = page.html(page.Page.model_validate(PAGE))
    rgb = open_picture(asyncio.run(page.picture(made))).rgb
    assert rgb.shape[1] >= 800 and tuple(rgb[-1, 0]) == (0x16, 0x18, 0x1D)  # the style's hash holds
    assert (np.abs(rgb.astype(int) - (0x7A, 0xA2, 0xF7)).max(axis=2) < 8).sum() > 500  # so does its accent


@needs_chromium
def test_nothing_is_loaded_for_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even a page that is none of ours reaches no address."""
    with serving(lambda request: request.send(b"", mime="image/png")) as server:
        hostile = f'<img src="{server.url}/a.png"><p>hello</p>'
        assert open_picture(asyncio.run(page.picture(hostile))).width >= 800
        assert server.seen == []
        monkeypatch.setattr(page, "Gate", lambda resolve: Gate(["127.0.0.1"]))  # it is the gate that holds
        asyncio.run(page.picture(hostile))
        assert [request.path for request in server.seen] == ["/v1/a.png"]


# -- behind the kernel -------------------------------------------------------------------------------------------------


class Machine:
    """A kernel whose model makes one call, and answers what the studio asks back."""

    def __init__(self, make: Callable[..., Kernel], answer: Any, **options: Any) -> None:
        self.name, self.next, self.asked, self.count = "", "", "", 0

        def script(window: str) -> str:
            if "go on." in window:
                return "Done." if self.name in window.rpartition("go on.")[2] else self.next
            self.asked = window
            return json.dumps(answer, ensure_ascii=False)

        self.kernel = make(script, window=16384, **options)
        self.process = self.kernel.spawn(grants=["studio"])
        self.volume = self.kernel.workspace(self.process.pid)

    def make(self, syscall: str, /, **arguments: Any) -> Result:
        self.name, self.next = syscall, call(syscall, **arguments)
        self.process.forget()
        self.count += 1
        (result,) = [e for e in self.process.ask(f"{self.count}: go on.") if isinstance(e, Result)]
        return result


def ordered(kind: type[Any], value: dict[str, Any]) -> Any:
    return json.loads(kind.model_validate(value).model_dump_json())


def test_draw_and_blend(scripted_kernel: Callable[..., Kernel]) -> None:
    parts = [{"where": "left", "size": "large", "thing": "house", "colour": "red"}]
    machine = Machine(
        scripted_kernel, ordered(drawing.Drawing, {"background": "blue", "ground": "none", "parts": parts})
    )
    made = machine.make("studio.draw", description="an idea", name="one", width=64)
    assert made.ok and "64 x 64 pixels with 1 parts" in made.text and made.label.integrity == Integrity.USER
    assert [Path(file).name for file in made.files] == ["one.png", "one.svg"] and "an idea" in machine.asked
    assert open_picture((machine.volume / "one.png").read_bytes()).width == 64
    (machine.volume / "two.png").write_bytes(encoded(drawn([], (30, 20))))
    blended = machine.make("studio.blend", first="one.png", second="two.png", mode="beside")
    assert blended.ok and "160 x 64" in blended.text and (machine.volume / "blend.png").exists()
    again = machine.make("studio.blend", first="one.png", second="two.png", share=0.0)
    assert [Path(file).name for file in again.files] == ["blend-2.png"]  # nothing is replaced
    (machine.volume / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nxx")
    for wrong in ("../secret.png", "/etc/passwd", "absent.png", "broken.png", "http://127.0.0.1/a.png"):
        refused = machine.make("studio.blend", first=wrong, second="two.png")
        assert not refused.ok and "error" in refused.text
    assert sorted(p.name for p in machine.volume.iterdir() if p.is_file()) == [
        "blend-2.png", "blend.png", "broken.png", "one.png", "one.svg", "two.png"
    ]  # fmt: skip


@needs_font
def test_compose(scripted_kernel: Callable[..., Kernel]) -> None:
    machine = Machine(scripted_kernel, TUNE)
    made = machine.make("studio.compose", description="something slow")
    assert made.ok and "7 notes, cello, 3.0 s" in made.text and "something slow" in machine.asked
    assert [Path(file).name for file in made.files] == ["tune.wav", "tune.mid"]
    assert open_sound((machine.volume / "tune.wav").read_bytes()).seconds > 2.9


@needs_chromium
def test_a_site_from_a_sketch(scripted_kernel: Callable[..., Kernel]) -> None:
    machine = Machine(scripted_kernel, PAGE)
    sketch = drawn([(20, 20, "My joke website", "black"), (20, 110, "Say there is a sale", "#fafafa")])
    (machine.volume / "sketch.png").write_bytes(encoded(sketch))
    made = machine.make("studio.site", sketch="sketch.png")
    assert made.ok and "5 blocks" in made.text and made.label.integrity == Integrity.UNTRUSTED
    assert [Path(file).name for file in made.files] == ["site.html", "site.png"]
    assert "My joke website" in machine.asked and "sale" not in machine.asked  # what nobody sees is no wish
    assert "Content-Security-Policy" in (machine.volume / "site.html").read_text()
    empty = machine.make("studio.site")
    assert not empty.ok and "nothing to make a page of" in empty.text


def test_what_the_model_breaks_off_is_an_error(scripted_kernel: Callable[..., Kernel]) -> None:
    long = {**PAGE, "blocks": [{"block": "paragraph", "text": "x" * 400}] * 12}
    machine = Machine(scripted_kernel, long)
    made = machine.make("studio.site", description="long")
    assert not made.ok and "AskRefused" in made.text and not list(machine.volume.glob("*.html"))
