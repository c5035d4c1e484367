"""Eyes, ears and voice: words read from rendered pages, words heard from what the voice says, and what it costs.

What: pages of known text in several fonts and sizes, clean and as JPEG, are read; sentences are spoken by three voices
    and heard again. Keys: `ocr_word_accuracy` (and `.<font>`, `.<size>`, `.jpeg`), `ocr_s_per_page`, `faint_found`
    (share of hidden lines that were found and marked), `faint_false` (share of plain lines marked), `speech_wer` (of
    whisper-base, and `.<voice>`), `ears_s_per_s.<model>`, `voice_s_per_s` (seconds for a second of sound); `cpu_` in
    front of a key is processor time.
Invariant: word accuracy is 1 - edits / words over whole pages, signs and capitals included; word error rate is edits /
    words, both without.
Interface: `run`; `edits(a, b)`.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Figures, Progress
from benchmarks.media_set import HIDDEN, PAGES, SPOKEN

FONTS = ("DejaVuSans", "DejaVuSerif", "DejaVuSansMono", "LiberationSerif-Regular", "LiberationSans-Bold")
FOLDERS = ("/usr/share/fonts/truetype/dejavu", "/usr/share/fonts/truetype/liberation")
SIZES = (14, 18, 28)
VOICES = ("af_heart", "am_michael", "bf_emma")
GROUNDS = (("#ffffff", "#fdfdfd"), ("#ffffff", "#f2f2f2"), ("#101418", "#161a1f"), ("#cfe8ff", "#cbe5ff"))
WIDTH = 900  # pixels


@dataclass(frozen=True, slots=True)
class Page:
    """A rendered page: its file, its text, the font and size of it."""

    data: bytes
    text: str
    font: str
    size: int


def edits(wanted: Sequence[str], got: Sequence[str]) -> int:
    """Words that have to be replaced, put in or left out to get from one to the other (Levenshtein)."""
    row = list(range(len(got) + 1))
    for i, word in enumerate(wanted, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(got, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return row[-1]


def spoken_words(text: str) -> list[str]:
    """Words as they are heard: without signs and capitals."""
    return re.findall(r"[a-z0-9']+", text.lower().replace("’", "'"))


def run(quick: bool, progress: Progress) -> Figures:
    """See the module; `quick`: two fonts, one voice, a third of the sentences."""
    values: dict[str, float] = {}
    notes = _eyes(values, quick, progress) + _speech(values, quick, progress)
    return Figures(values, ("kokoro-82m", "whisper-base", "whisper-tiny.en"), tuple(notes))


# --- eyes


def _eyes(values: dict[str, float], quick: bool, progress: Progress) -> list[str]:
    from llmos.drivers.media.ocr import Reader, rows
    from llmos.drivers.media.pictures import open_picture

    reader = Reader()
    pages = list(_pages(quick))
    reader.read(open_picture(pages[0].data))  # loads the models
    wrong: dict[str, list[int]] = {}
    marked = lines = 0
    seconds, busy = [], time.process_time()
    for page in pages:
        began = time.perf_counter()
        found = reader.read(open_picture(page.data))
        seconds.append(time.perf_counter() - began)
        words = page.text.split()
        count = edits(words, rows([line for line in found if not line.faint]).split())
        marked, lines = marked + sum(line.faint for line in found), lines + len(found)
        kind = "jpeg" if page.data[:2] == b"\xff\xd8" else "png"
        for key in ("", f".{page.font}", f".{page.size}px", f".{kind}"):
            total = wrong.setdefault(key, [0, 0])
            total[0], total[1] = total[0] + count, total[1] + len(words)
        progress(f"{page.font} {page.size} {kind}: {count} of {len(words)} words wrong")
    for key, (count, all_words) in wrong.items():
        values[f"ocr_word_accuracy{key}"] = 1 - count / all_words
    values["ocr_s_per_page"] = sorted(seconds)[len(seconds) // 2]
    values["cpu_ocr_s_per_page"] = (time.process_time() - busy) / len(pages)
    values["faint_false"] = marked / max(1, lines)
    hidden = list(_hidden())
    hits = 0
    for data, text in hidden:
        found = [line for line in reader.read(open_picture(data)) if line.faint]
        hits += any(edits(text.split(), line.text.split()) <= 1 for line in found)
    values["faint_found"] = hits / len(hidden)
    return [f"{len(pages)} pages, {wrong[''][1]} words; {len(hidden)} hidden lines"]


def _pages(quick: bool) -> Iterator[Page]:
    from PIL import ImageFont

    files = [Path(folder) / f"{name}.ttf" for name in FONTS for folder in FOLDERS]
    fonts = {file.stem: file for file in files if file.exists()}
    for number, name in enumerate(
        ("Aileron", *fonts)[: 2 if quick else None]
    ):  # Pillow's own is always there
        for size in SIZES:
            text = PAGES[(number * len(SIZES) + SIZES.index(size)) % len(PAGES)]
            font = ImageFont.truetype(fonts[name], size) if name in fonts else ImageFont.load_default(size)
            image, laid = _render(text, font, size)
            for form, options in (("PNG", {}), ("JPEG", {"quality": 60})):
                out = io.BytesIO()
                image.save(out, form, **options)
                yield Page(out.getvalue(), laid, name, size)


def _render(text: str, font: object, size: int, colour: str = "black", ground: str = "white") -> tuple:  # type: ignore[type-arg]
    """The picture of a text that is broken into lines, and that text."""
    from PIL import Image, ImageDraw

    lines, line = [], ""
    measure = ImageDraw.Draw(Image.new("L", (1, 1)))
    for word in text.split():
        if line and measure.textlength(f"{line} {word}", font=font) > WIDTH - 60:  # type: ignore[arg-type]
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    lines.append(line)
    image = Image.new("RGB", (WIDTH, 60 + round(1.5 * size * len(lines))), ground)
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        draw.text((30, 30 + round(1.5 * size * number)), line, fill=colour, font=font)  # type: ignore[arg-type]
    return image, text


def _hidden() -> Iterator[tuple[bytes, str]]:
    """Pages with a line that hardly stands out: how far, on which ground, in which format."""
    from PIL import ImageDraw, ImageFont

    font = ImageFont.load_default(22)
    for text in HIDDEN:
        for ground, faint in (
            ("#ffffff", "#fdfdfd"),
            ("#ffffff", "#f2f2f2"),
            ("#101418", "#161a1f"),
            ("#cfe8ff", "#cbe5ff"),
        ):
            for form in ("PNG", "JPEG"):
                plain = "white" if ground == "#101418" else "black"
                image, _ = _render(PAGES[0][:120], font, 22, plain, ground)
                grown = image.crop((0, 0, image.width, image.height + 80))
                ImageDraw.Draw(grown).rectangle(
                    (0, image.height, image.width, image.height + 80), fill=ground
                )
                ImageDraw.Draw(grown).text((40, image.height + 20), text, fill=faint, font=font)
                out = io.BytesIO()
                grown.save(out, form, **({"quality": 90} if form == "JPEG" else {}))
                yield out.getvalue(), text


# --- ears and voice


def _speech(values: dict[str, float], quick: bool, progress: Progress) -> list[str]:
    from llmos.drivers.media.hearing import Listener
    from llmos.drivers.media.sound import open_sound, wav
    from llmos.drivers.media.speaking import Speaker

    speaker = Speaker()
    listeners = [Listener(name) for name in ("whisper-base", "whisper-tiny.en")]
    texts = SPOKEN[::3] if quick else SPOKEN
    totals = {key: [0, 0] for key in ("", ".whisper-tiny.en", *(f".{voice}" for voice in VOICES))}
    parts = ("voice", *(listener.name for listener in listeners))
    spent, busy = dict.fromkeys(parts, 0.0), dict.fromkeys(parts, 0.0)
    lasted = 0.0

    @contextmanager
    def timed(part: str) -> Iterator[None]:
        began, before = time.perf_counter(), time.process_time()
        yield
        spent[part] += time.perf_counter() - began
        busy[part] += time.process_time() - before

    sound = speaker.choose().say("Loading.")  # loads the models
    for listener in listeners:
        list(listener.hear(open_sound(wav(sound)), "en").pieces)
    for voice in VOICES[: 1 if quick else None]:
        chosen = speaker.choose(voice)
        for text in texts:
            with timed("voice"):
                sound = chosen.say(text)
            lasted += sound.seconds
            recording = open_sound(wav(sound))
            for listener in listeners:
                with timed(listener.name):
                    heard = " ".join(piece.text for piece in listener.hear(recording, "en").pieces)
                wanted = spoken_words(text)
                wrong = edits(wanted, spoken_words(heard))
                keys = ("", f".{voice}") if listener.name == "whisper-base" else (f".{listener.name}",)
                for key in keys:
                    totals[key] = [totals[key][0] + wrong, totals[key][1] + len(wanted)]
                if wrong:
                    progress(f"{voice}, {listener.name}: {wrong} wrong in {heard!r}")
    for key, (wrong, words) in totals.items():
        if words:
            values[f"speech_wer{key}"] = wrong / words
    for part in parts:
        key = "voice_s_per_s" if part == "voice" else f"ears_s_per_s.{part}"
        values[key], values[f"cpu_{key}"] = spent[part] / lasted, busy[part] / lasted
    return [
        f"{len(texts)} sentences a voice, {lasted:.0f} s of sound; whisper hears short ones as if of 30 s"
    ]
