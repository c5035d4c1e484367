"""What grows when the machine is asked for 2, 4, 8 times as much: time and memory by window, processes and volume.

What: the window (tokens of context: prefill of it, milliseconds a word behind it, MiB of its pages), the processes
    (milliseconds a step, words a second in all, MiB resident with the weights), the volume (chunks of real passages:
    milliseconds a question, its embedding included, seconds to store and to index, MiB on disk). Keys
    `<what>.<figure>.<size>`.
Invariant: each size is measured in the same run and by the same engine; no prompt is met twice.
Interface: `run(quick, progress) -> Figures`; `--quick` takes the smaller model and the smaller sizes.
"""

from __future__ import annotations

import gzip
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.figures import SMALL, Figures, Progress
from benchmarks.machine import resident_mib
from benchmarks.ours import Ours
from benchmarks.retrieval import ENCODER, MANUAL, questions
from llmos.abi.config import DEFAULT_MODEL
from llmos.abi.errors import DocumentError
from llmos.abi.labels import USER
from llmos.kernel.engine.runner import ModelRunner
from llmos.memory.embedding import Encoder
from llmos.memory.store import ChunkRow, Store
from llmos.memory.volume import Volume

WINDOWS = (512, 1024, 2048, 4096)
PROCESSES = (1, 2, 4, 8, 16, 32)
CHUNKS = (2_000, 4_000, 8_000, 16_000)
MIB = 2**20


def run(quick: bool, progress: Progress) -> Figures:
    """See the module."""
    model = SMALL[0] if quick else DEFAULT_MODEL
    values: dict[str, float] = {}
    with Ours(model, window=WINDOWS[-1] + 512) as ours:
        runner = ours.kernel.runner
        assert isinstance(runner, ModelRunner)
        per_token = sum(pool.nbytes for pool in runner.pools) / (runner.pages * runner.page)
        for window in WINDOWS[: 2 if quick else None]:
            values[f"window.prefill_s.{window}"] = window / ours.prefill(window)
            values[f"window.word_ms.{window}"] = 1e3 / ours.decode(window, 24)
            values[f"window.pages_mib.{window}"] = window * per_token / MIB
            progress(f"a window of {window}: {values[f'window.word_ms.{window}']:.1f} ms a word")
        for n in PROCESSES[: 3 if quick else None]:
            rate = ours.streams(n)
            values |= {f"processes.words_per_s.{n}": rate, f"processes.step_ms.{n}": 1e3 * n / rate}
            values[f"processes.resident_mib.{n}"] = resident_mib()
            progress(f"{n} processes: {rate:.0f} words a second")
    encoder = Encoder.find(ENCODER)
    texts = _texts()
    for count in CHUNKS[: 2 if quick else None]:
        values |= _volume(encoder, texts, count)
        progress(f"a volume of {count} chunks: {values[f'volume.query_ms.{count}']:.1f} ms a question")
    return Figures(values, (model, ENCODER))


def _texts() -> list[str]:
    if not MANUAL.exists():
        raise DocumentError(f"{MANUAL} is not here", do="install Debian's package debian-policy")
    words = gzip.decompress(MANUAL.read_bytes()).decode("utf-8", "replace").split()
    return [" ".join(words[start : start + 120]) for start in range(0, len(words) - 120, 7)]


def _volume(encoder: Encoder, texts: list[str], count: int) -> dict[str, float]:
    """A volume of `count` passages of the manual, which overlap; vectors near those of real ones."""
    chance = np.random.default_rng(0)
    base = encoder.encode(texts[:: max(len(texts) // 256, 1)])
    vectors = base[chance.integers(len(base), size=count)] + 0.03 * chance.standard_normal(
        (count, base.shape[1])
    )
    vectors = np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)
    with tempfile.TemporaryDirectory() as name:
        store = Store(Path(name))
        began = time.perf_counter()
        for start in range(0, count, 200):
            part = range(start, min(start + 200, count))
            rows = [ChunkRow(0, n, "", texts[n % len(texts)], 0, "line", n + 1, n + 1) for n in part]
            store.put_document(
                mount="m", source=f"{start}.txt", hash=str(start), stat="", label=USER, title="", notes=(),
                chunks=rows, vectors=vectors[part.start : part.stop],
            )  # fmt: skip
        stored_s = time.perf_counter() - began
        store.close()
        volume = Volume.open(name, encoder)
        began = time.perf_counter()
        volume.search("warm up", k=5)  # makes the index
        index_s = time.perf_counter() - began
        times = []
        for question, _ in questions()[:30]:
            began = time.perf_counter()
            volume.search(question, k=5)
            times.append(time.perf_counter() - began)
        volume.close()
        size = sum(path.stat().st_size for path in Path(name).iterdir())
    return {
        f"volume.store_s.{count}": stored_s,
        f"volume.index_s.{count}": index_s,
        f"volume.query_ms.{count}": 1e3 * statistics.median(times),
        f"volume.disk_mib.{count}": size / MIB,
    }
