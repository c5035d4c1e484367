"""The dense index of a volume: unit vectors by chunk id, nearest first.

What: a faiss index behind four verbs. SQLite holds every vector; the index is a copy that makes search fast
    and can be rebuilt from there at any time.
Invariant: an index read from disk is whole (its checksum is in its file name) and belongs to the generation
    of the volume that its file name says, or it is not used.
Interface: `DenseIndex.build(ids, vectors)`, `.search(vectors, k) -> (scores [N, k], ids [N, k])`,
    `.likeness(id, vector)`, `len(index)`, `.save(folder, generation)`, `DenseIndex.load(folder, generation)`,
    which gives None where there is no good file. Flat (exact) for now. faiss is imported on first use.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np

_PREFIX = "dense"


class DenseIndex:
    """Exact inner-product search over unit vectors; build it with `build` or `load`."""

    def __init__(self, index: Any) -> None:
        self._index = index

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @classmethod
    def build(cls, ids: np.ndarray, vectors: np.ndarray) -> DenseIndex:
        """From int64 ids [N] and float32 vectors [N, D]."""
        import faiss

        index = faiss.IndexIDMap2(faiss.IndexFlatIP(vectors.shape[1]))
        index.add_with_ids(np.ascontiguousarray(vectors, np.float32), np.ascontiguousarray(ids, np.int64))
        return cls(index)

    def search(self, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest of each of [N, D], float32 scores and int64 ids [N, k], fewer where there are fewer."""
        k = min(k, len(self))
        if k == 0:
            return np.zeros((len(vectors), 0), np.float32), np.zeros((len(vectors), 0), np.int64)
        scores, ids = self._index.search(np.ascontiguousarray(vectors, np.float32), k)
        return scores, ids

    def likeness(self, id_: int, vector: np.ndarray) -> float | None:
        """The inner product of one stored vector with [D]; None where it is not in the index (yet)."""
        try:
            return float(self._index.reconstruct(id_) @ vector)
        except RuntimeError:
            return None

    def save(self, folder: Path, generation: int) -> None:
        """Write the index beside the volume's database, atomically, and remove older ones."""
        import faiss

        data = faiss.serialize_index(self._index).tobytes()
        final = folder / f"{_PREFIX}-{generation}-{zlib.crc32(data):08x}.faiss"
        part = folder / f".{final.name}.{os.getpid()}"
        try:
            part.write_bytes(data)
            part.replace(final)
        finally:
            part.unlink(missing_ok=True)
        for old in folder.glob(f"{_PREFIX}-*.faiss"):
            if old != final:
                with contextlib.suppress(OSError):
                    old.unlink()

    @classmethod
    def load(cls, folder: Path, generation: int) -> DenseIndex | None:
        """The saved index of this generation, or None where there is none or it is damaged."""
        import faiss

        for path in folder.glob(f"{_PREFIX}-{generation}-*.faiss"):
            with contextlib.suppress(OSError, ValueError, RuntimeError):
                data = path.read_bytes()
                if zlib.crc32(data) == int(path.stem.rsplit("-", 1)[1], 16):
                    return cls(faiss.deserialize_index(np.frombuffer(data, np.uint8)))
        return None
