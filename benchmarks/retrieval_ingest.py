"""Ingestion: how fast documents become a volume, and that memory does not grow with it.

What: Python's documentation is mounted, in a process of its own. Speed with the real encoder over some of it; peak
    memory over 1, 2, 4 and 8 times so many files, with vectors drawn at random, because the encoder takes a batch at a
    time whatever follows and would take an hour here. Everything else is a mount as it is, the index included.
Invariant: the system's own count of the process's peak.
Interface: `speed() -> {key: figure}`, `growth(progress) -> {key: figure}`. `python -m benchmarks.retrieval_ingest FILES
    COPIES [random]` is the child.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.figures import Progress
from benchmarks.machine import peak_mib
from benchmarks.page_in_set import SOURCES
from llmos.memory.embedding import Encoder
from llmos.memory.minilm import DIMENSION
from llmos.memory.volume import Volume

SPEED_FILES, GROWTH_FILES = 16, 180  # eight times the latter are more than an index compares in full
COPIES = (1, 2, 4, 8)


class Drawn:
    """Counts as the encoder does; its vectors are random."""

    def __init__(self, encoder: Encoder) -> None:
        self.identity, self.count = "drawn", encoder.count
        self._rng = np.random.default_rng(0)

    def encode(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> np.ndarray:
        vectors = self._rng.standard_normal((len(texts), DIMENSION), np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def speed() -> dict[str, float]:
    """`ingest_tokens_per_s`, `ingest_mb_per_s`, `ingest_cpu_tokens_per_s` with the real encoder."""
    found = _child(SPEED_FILES, 1)
    return {
        "ingest_tokens_per_s": found["tokens"] / found["seconds"],
        "ingest_mb_per_s": found["bytes"] / 1e6 / found["seconds"],
        "ingest_tokens_per_cpu_s": found["tokens"] / found["cpu_s"],
    }


def growth(progress: Progress) -> dict[str, float]:
    """`ingest_peak_mib.1x` to `.8x`, with `ingest_chunks` and `ingest_s`."""
    values: dict[str, float] = {}
    for copies in COPIES:
        found = _child(GROWTH_FILES, copies, "random")
        progress(f"{copies} x: {found['peak_mib']:.0f} MiB for {found['chunks']:.0f} chunks")
        values |= {f"ingest_{key}.{copies}x": found[key] for key in ("peak_mib", "chunks", "seconds")}
    return values


def _child(files: int, copies: int, *how: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.retrieval_ingest", str(files), str(copies), *how]
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Copy the files, each copy with a line of its own, mount them, and print what it took."""
    files = sorted((SOURCES / "library").glob("[a-z]*.txt"))[: int(sys.argv[1])]
    encoder = Encoder.find("all-minilm-l6-v2")
    with tempfile.TemporaryDirectory() as folder:
        documents, size = Path(folder, "documents"), 0
        documents.mkdir()
        for copy in range(int(sys.argv[2])):
            for file in files:
                text = f"{file.read_text()}\n\nCopy {copy}.\n"
                size += Path(documents, f"{copy}-{file.name}").write_text(text)
        volume = Volume.open(Path(folder, "volume"), Drawn(encoder) if "random" in sys.argv else encoder)
        began, processor = time.perf_counter(), time.process_time()
        report = volume.mount(documents)
        took = {"seconds": time.perf_counter() - began, "cpu_s": time.process_time() - processor}
        peak = peak_mib()
        rows = volume._store.rows(volume._store.ids().tolist()).values()
        tokens = sum(encoder.count([row.text for row in rows]))
        print(json.dumps(took | {"tokens": tokens, "bytes": size, "chunks": report.chunks, "peak_mib": peak}))
        volume.close()


if __name__ == "__main__":
    main()
