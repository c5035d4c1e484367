"""Volumes of 10 thousand to a million chunks: how long a question takes, what the index holds and finds.

What: a real volume's chunks are multiplied. Each has the vector of a real one plus noise (their cosine is 0.8, as of
    passages about one subject) and the words of two real ones, shuffled, so that words are as frequent as they are.
Invariant: the tables are those of a mount, filled in bulk; index and questions go the way of every other volume.
    Dense is the index and the exact cosines of what it proposes; fused is all of `Volume.search`, embedding included.
Interface: `grow(volume, texts, vectors, size)`, `measured(volume, questions, label) -> {key: figure}`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from llmos.abi.progress import silent
from llmos.memory.store import Store
from llmos.memory.volume import CANDIDATES, Volume

COSINE = 0.8
TOP = 10
_ROWS = 10_000  # of one transaction, and of one step of the exact search
_DOCUMENT = "INSERT OR IGNORE INTO documents VALUES (1, '/grown', 'grown', '', '', '', '[]', NULL, 0, NULL)"
_CHUNK = "INSERT INTO chunks VALUES (?1, 1, ?1, '', '', ?2, 0, 'line', 1, 1, ?3)"
_WORDS = "INSERT INTO words (rowid, title, heading, text) VALUES (?, '', '', ?)"


def grow(volume: Volume, texts: Sequence[str], vectors: np.ndarray, size: int) -> None:
    """Fill an empty volume with `size` chunks.

    Args:
        vectors: of the texts, float32 [N, D], unit.
    """
    store, rng = volume._store, np.random.default_rng(0)
    words = [text.split() for text in texts]
    noise = np.sqrt((1 / COSINE**2 - 1) / vectors.shape[1])
    with store.writing():
        store.set("recipe", volume._recipe())
        for start in range(0, size, _ROWS):
            a, b = rng.integers(len(texts), size=(2, min(_ROWS, size - start)))
            made = vectors[a] + noise * rng.standard_normal((len(a), vectors.shape[1]), np.float32)
            made /= np.linalg.norm(made, axis=1, keepdims=True)
            rows = []
            for n, (one, other) in enumerate(zip(a, b, strict=True)):
                both = words[one] + words[other]
                kept = rng.permutation(len(both))[: len(both) // 2]
                rows.append((start + n + 1, " ".join(both[i] for i in kept), made[n].astype("<f4").tobytes()))
            with store._transaction():
                store._db.execute(_DOCUMENT)
                store._db.executemany(_CHUNK, rows)
                store._db.executemany(_WORDS, [row[:2] for row in rows])
                store._bump()


def measured(volume: Volume, questions: Sequence[str], label: str) -> dict[str, float]:
    """Figures of a grown volume under `KEY.label`; its index is made first, and written."""
    began, processor = time.perf_counter(), time.process_time()
    index = volume._index(silent)
    values = {"build_s": time.perf_counter() - began, "build_cpu_s": time.process_time() - processor}
    (file,) = volume._store.folder.glob("dense-*.faiss")
    values["index_mib"] = file.stat().st_size / 2**20
    asked = volume._encoder.encode(questions)

    def dense(n: int) -> list[int]:
        ids, vectors = volume._store.vectors(index.search(asked[n : n + 1], CANDIDATES)[0])
        return [ids[place] for place in np.argsort(-(vectors @ asked[n]), kind="stable")[:TOP]]

    def fused(n: int) -> object:
        return volume.search(questions[n], k=TOP)

    exact = _exact(volume._store, asked)
    found = [len({*dense(n)} & set(exact[n].tolist())) / TOP for n in range(len(questions))]
    values["index_recall10"] = sum(found) / len(found)
    for name, ask in (("dense", dense), ("fused", fused)):
        values |= {f"{name}_{key}": figure for key, figure in _times(ask, len(questions)).items()}
    return {f"{key}.{label}": figure for key, figure in values.items()}


def _times(ask: Callable[[int], object], count: int) -> dict[str, float]:
    """Milliseconds of a question: of the clock, and of the processor."""
    clock, processor = [], []
    for n in range(count):
        began, used = time.perf_counter(), time.process_time()
        ask(n)
        clock.append(1000 * (time.perf_counter() - began))
        processor.append(1000 * (time.process_time() - used))
    p50, p99 = np.percentile(clock, (50, 99))
    return {"p50_ms": float(p50), "p99_ms": float(p99), "cpu_p50_ms": float(np.median(processor))}


def _exact(store: Store, asked: np.ndarray) -> np.ndarray:
    """Ids of the vectors nearest to each question, by comparing all: int64 [questions, TOP]."""
    best = np.full((len(asked), TOP), -2.0, np.float32)
    ids = np.zeros((len(asked), TOP), np.int64)
    for some, vectors in _vectors(store):
        scores = np.concatenate([best, asked @ vectors.T], axis=1)
        names = np.concatenate([ids, np.broadcast_to(some, (len(asked), len(some)))], axis=1)
        order = np.argpartition(-scores, TOP, axis=1)[:, :TOP]
        best, ids = np.take_along_axis(scores, order, 1), np.take_along_axis(names, order, 1)
    return ids


def _vectors(store: Store) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    every = store.ids()
    for start in range(0, len(every), _ROWS):
        some, vectors = store.vectors(every[start : start + _ROWS].tolist())
        yield np.array(some, np.int64), vectors
