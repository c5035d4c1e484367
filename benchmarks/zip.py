"""Text made small by a model: bits per byte beside xz -9e and zstd -19, and whether all files come back.

What: `bits_per_byte.<model>` on English prose, all that a file holds counted; `xz` and `zstd` on the same, each text by
    itself; `of_xz.<model>`, ours as a share of xz's; the same by text. `roundtrip`: the share of small files of every
    kind that come back byte for byte, zipped and unzipped by two zippers. `zip_bytes_per_s`, `unzip_bytes_per_s`: of
    prose, with the smallest model.
Invariant: what is counted is the size of files that `llmos unzip` takes. zstd's figure is absent where it is not
    installed.
Interface: `run(quick, progress)`.
"""

from __future__ import annotations

import lzma
import shutil
import subprocess
import time

from benchmarks.figures import Figures, Progress, models
from benchmarks.zip_set import files, texts
from llmos.connect import load_config
from llmos.kernel.learn.zipping import Zipper, zipper

BATCH = 250  # files that are zipped at once


def run(quick: bool, progress: Progress) -> Figures:
    prose = texts(quick, progress)
    size = sum(map(len, prose.values()))
    xz = {name: len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) for name, text in prose.items()}
    values: dict[str, float] = {"bytes": size, "xz": 8 * sum(xz.values()) / size}
    if shutil.which("zstd"):
        values["zstd"] = 8 * sum(map(_zstd, prose.values())) / size
    used = list(models(quick))
    for name in used:
        progress(f"{name}: {size:,} bytes of prose")
        made = zipper(load_config(model=name)).zip(list(prose.values()))
        values[f"bits_per_byte.{name}"] = 8 * sum(map(len, made)) / size
        values[f"of_xz.{name}"] = sum(map(len, made)) / sum(xz.values())
        for text, file in zip(prose, made, strict=True):
            values[f"of_xz.{name}.{text}"] = len(file) / xz[text]
    first, second = (zipper(load_config(model=used[0])) for _ in range(2))
    text = b"".join(prose.values())[: 4 << 10 if quick else 64 << 10]
    values |= _speed(first, second, text)
    count = 28 if quick else 1000
    values["files"], values["roundtrip"] = count, _roundtrip(first, second, files(count), progress)
    return Figures(values, tuple(used), _notes(prose))


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


def _roundtrip(first: Zipper, second: Zipper, given: list[bytes], progress: Progress) -> float:
    exact = 0
    for at in range(0, len(given), BATCH):
        part = given[at : at + BATCH]
        exact += sum(a == b for a, b in zip(part, second.unzip(first.zip(part)), strict=True))
        progress(f"{exact} of {at + len(part)} files came back")
    return exact / len(given)


def _notes(prose: dict[str, bytes]) -> tuple[str, ...]:
    told = ", ".join(f"{name} {len(text):,}" for name, text in prose.items())
    return (
        f"bytes of prose: {told}",
        "xz and zstd need no model; ours needs the same weights on both sides",
    )
