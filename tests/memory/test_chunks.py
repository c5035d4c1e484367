"""Chunk KV is found under what made it, in memory and on disk, and never as something else."""

from __future__ import annotations

import queue
from itertools import combinations
from pathlib import Path

import numpy as np

from llmos.memory.chunks import KV, Chunks, chunk_key
from llmos.memory.pages import PageStore

SHAPE = (3, 2, 2, 8)  # of a token: L, K, 2, H


def kv(tokens: int, seed: int = 0) -> KV:
    rng = np.random.default_rng(seed)
    made: KV = rng.integers(0, 1 << 16, (SHAPE[0], tokens, *SHAPE[1:]), np.uint16)
    return made


def test_whatever_makes_kv_makes_another_key() -> None:
    keys = [
        chunk_key("weights/native", (1, 2), (3, 4), b"mine"),
        chunk_key("weights/f32", (1, 2), (3, 4), b"mine"),
        chunk_key("weights/native", (), (3, 4), b"mine"),
        chunk_key("weights/native", (1, 2, 3), (4,), b"mine"),  # the same tokens, cut elsewhere
        chunk_key("weights/native", (1, 2), (3, 5), b"mine"),
        chunk_key("weights/native", (1, 2), (3, 4), b"shared"),
    ]
    assert all(a != b for a, b in combinations(keys, 2))
    assert keys[0] == chunk_key("weights/native", [1, 2], [3, 4], b"mine")


def test_memory_gives_back_what_it_was_given() -> None:
    chunks = Chunks(PageStore(None, ram=1 << 20, disk=0), SHAPE, np.uint16)
    key, other = (chunk_key("w", (), (n,), b"") for n in (1, 2))
    chunks.put(key, kv(9)[:, 2:7])  # a view
    found = chunks.get(key)
    assert found is not None and found.tobytes() == kv(9)[:, 2:7].tobytes() and found.shape == (3, 5, 2, 2, 8)
    assert key in chunks and other not in chunks and chunks.get(other) is None
    assert chunks.token_bytes == kv(1).nbytes


def fetched(chunks: Chunks, keys: list[bytes]) -> tuple[dict[bytes, KV], int]:
    answers: queue.SimpleQueue[tuple[dict[bytes, KV], int]] = queue.SimpleQueue()
    chunks.fetch(keys, lambda found, lost: answers.put((found, lost)))
    return answers.get(timeout=10)


def test_it_survives_a_restart_and_damage_is_noticed(tmp_path: Path) -> None:
    store = PageStore(tmp_path, ram=1 << 20, disk=1 << 20)
    chunks = Chunks(store, SHAPE, np.uint16)
    keys = [chunk_key("w", (), (n,), b"") for n in range(3)]
    for n, key in enumerate(keys):
        chunks.put(key, kv(10 + n, n))
    store.flush(10)
    store.close()

    store = PageStore(tmp_path, ram=1 << 20, disk=1 << 20)
    chunks = Chunks(store, SHAPE, np.uint16)
    assert all(key in chunks for key in keys) and chunks.get(keys[0]) is None
    found, lost = fetched(chunks, keys)
    assert lost == 0 and [found[key].tobytes() for key in keys] == [kv(10 + n, n).tobytes() for n in range(3)]
    store.close()

    store = PageStore(tmp_path, ram=1 << 20, disk=1 << 20)
    chunks = Chunks(store, SHAPE, np.uint16)
    file = next(tmp_path.glob(f"??/{keys[1].hex()}"))
    blob = bytearray(file.read_bytes())
    blob[-1] ^= 1
    file.write_bytes(blob)
    found, lost = fetched(chunks, keys)
    assert lost == 1 and keys[1] not in found and keys[1] not in chunks
    store.close()
