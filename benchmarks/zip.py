"""Text made small by a model: bits per byte beside xz -9e and zstd -19, and whether all files come back.

What: `bits_per_byte.<model>` on English prose, all that a file holds counted; `xz` and `zstd` on the same, each text by
    itself; `of_xz.<model>`, ours as a share of xz's; the same by text. `roundtrip`: the share of small files of every
    kind that come back byte for byte, zipped and unzipped by two zippers. `zip_bytes_per_s`, `unzip_bytes_per_s`: of
    prose, with the smallest model.
Invariant: what is counted is the size of files that `llmos unzip` takes. zstd's figure is absent where it is not
    installed. A run that was broken off goes on with the text, or the files, where it was.
Interface: `run(quick, progress)`.
"""

from __future__ import annotations

import lzma
import shutil
import subprocess
import time
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.figures import SMALL, Figures, Progress, digest, models
from benchmarks.kept import Kept
from benchmarks.plots import picture
from benchmarks.zip_set import files, texts
from llmos.connect import load_config
from llmos.kernel.learn import zipping
from llmos.kernel.learn.zipping import Zipper, zipper

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BATCH = 100  # files that are zipped at once
LEARNT = "zipping stretches blocks coding plainbytes".split()  # modules that a size depends on


def run(quick: bool, progress: Progress) -> Figures:
    """See the module."""
    used, count = list(models(quick)), 28 if quick else 1000
    dials = digest(Path(zipping.__file__).parent, LEARNT, quick)
    kept = Kept(load_config(None).machine.cache / "benchmarks" / f"zip{'-quick' * quick}.jsonl", dials)
    prose, small = _inputs(quick, count, kept, progress)
    size = sum(map(len, prose.values()))
    xz = {name: len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) for name, text in prose.items()}
    values: dict[str, float] = {"bytes": size, "xz": 8 * sum(xz.values()) / size}
    if shutil.which("zstd"):
        values["zstd"] = 8 * sum(map(_zstd, prose.values())) / size
    sizes = {name: _sizes(name, prose, kept, progress) for name in used if name in SMALL}
    values |= _exact(used[0], prose, small, kept, progress)
    sizes |= {
        name: _sizes(name, prose, kept, progress) for name in used if name not in SMALL
    }  # takes longest
    for name, made in sizes.items():
        values[f"bits_per_byte.{name}"] = 8 * sum(made.values()) / size
        values[f"of_xz.{name}"] = sum(made.values()) / sum(xz.values())
        values |= {f"of_xz.{name}.{text}": made[text] / xz[text] for text in prose}
    notes = [*_notes(prose), *kept.notes]
    kept.done()
    return Figures(values, tuple(used), tuple(notes), partial(_draw, values))


def _inputs(quick: bool, count: int, kept: Kept, progress: Progress) -> tuple[dict[str, bytes], list[bytes]]:
    """Texts and files, as they were when the run began: they are of our own pages and sources, which change."""
    if kept.get("inputs") is None:
        named = {name: b64encode(text).decode() for name, text in texts(quick, progress).items()}
        kept.put("inputs", [named, [b64encode(data).decode() for data in files(count)]])
    prose, small = kept.get("inputs")
    return {name: b64decode(text) for name, text in prose.items()}, [b64decode(data) for data in small]


def _sizes(name: str, prose: Mapping[str, bytes], kept: Kept, progress: Progress) -> dict[str, int]:
    """Bytes of each text's file."""
    left = [text for text in prose if kept.get(f"{name}: {text}") is None]
    made = zipper(load_config(model=name)) if left else None
    for text in left:
        assert made is not None
        progress(f"{name}: {text}, {len(prose[text]):,} bytes")
        kept.put(f"{name}: {text}", len(made.zip([prose[text]])[0]))
    return {text: kept.get(f"{name}: {text}") for text in prose}


def _exact(
    name: str, prose: Mapping[str, bytes], given: Sequence[bytes], kept: Kept, progress: Progress
) -> dict[str, float]:
    """How fast it is, and the share of files that come back."""
    count = len(given)
    parts = {f"files {at}": given[at : at + BATCH] for at in range(0, count, BATCH)}
    left = [part for part in ("speed", *parts) if kept.get(part) is None]
    if left:
        first, second = (zipper(load_config(model=name)) for _ in range(2))
    for part in left:
        if part == "speed":
            text = b"".join(prose.values())[: 4 << 10 if count < BATCH else 32 << 10]
            kept.put(part, _speed(first, second, text))
            continue
        back = second.unzip(first.zip(parts[part]))
        kept.put(part, sum(a == b for a, b in zip(parts[part], back, strict=True)))
        progress(f"{part}: {kept.get(part)} of {len(parts[part])} came back")
    speeds: dict[str, float] = kept.get("speed")
    return {**speeds, "files": count, "roundtrip": sum(kept.get(part) for part in parts) / count}


def _zstd(data: bytes) -> int:
    return len(subprocess.run(["zstd", "-19", "-c"], input=data, capture_output=True, check=True).stdout)


def _speed(first: Zipper, second: Zipper, text: bytes) -> dict[str, float]:
    started = time.perf_counter()
    (file,) = first.zip([text])
    zipped = time.perf_counter()
    assert second.unzip([file]) == [text]
    return {
        "zip_bytes_per_s": len(text) / (zipped - started),
        "unzip_bytes_per_s": len(text) / (time.perf_counter() - zipped),
    }


def _notes(prose: dict[str, bytes]) -> tuple[str, ...]:
    told = ", ".join(f"{name} {len(text):,}" for name, text in prose.items())
    return (
        f"bytes of prose: {told}",
        "xz and zstd need no model; ours needs the same weights on both sides",
    )


def _draw(values: Mapping[str, float], folder: Path) -> list[Path]:
    """Bits a byte of each way to pack."""
    ways = {"xz -9e": values["xz"]} | ({"zstd -19": values["zstd"]} if "zstd" in values else {})
    first = len(ways)
    ways |= {k.partition(".")[2]: v for k, v in values.items() if k.startswith("bits_per_byte.")}

    def paint(axes: Axes) -> None:
        shades = ["#9aa0a6"] * first + ["#c1121f"] * (len(ways) - first)
        axes.bar_label(axes.bar(list(ways), list(ways.values()), color=shades), fmt="%.2f")
        axes.set(ylabel="bits a byte of English prose", title="Who foretells well packs small")

    return picture(folder, "zip", paint)
