"""The dense index of a volume: which chunks are probably nearest in meaning.

What: a faiss index of unit vectors by chunk id, in 8 bits a number: a quarter of the memory, for it is what grows with
    a volume. In small ones all are compared (flat), in larger ones those of the nearest inverted lists. SQLite holds
    every vector: the index is a copy that may be out of date, is brought up to date by difference, and can be made
    anew.
Invariant: an index read from disk is whole (its checksum is in its file name), or it is not used. It proposes, and
    whoever asks takes the exact likeness from the store.
Interface: `sample_size(count)`; `DenseIndex.made(count, sample)`, `.add(ids, vectors)`, `.remove(ids)`, `.ids`,
    `.search(vectors, k) -> [ids]`, `.fits(count)`, `len(index)`, `.save(folder, generation)`,
    `DenseIndex.load(folder) -> (generation, index)`, `DenseIndex.saved(folder) -> generation`. Not thread-safe while it
    is changed. faiss is imported on first use.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

# Up to so many vectors: lists (0: all are compared, in some milliseconds), and how many of them a question looks into;
# see benchmarks/retrieval.py for what that finds.
KINDS = ((50_000, 0, 0), (300_000, 256, 24), (sys.maxsize, 1024, 48))
LEARNT = 40  # vectors that a list's centre is made from: few, so that they take little room beside the index
WIDEST = 6.0  # a number of a unit vector of D dimensions lies within so many times 1 / sqrt(D), or is cut
_PREFIX = "dense"
_CHUNK = 1 << 20

log = logging.getLogger("llmos.volume")


class DenseIndex:
    """Ids of unit vectors, nearest first; make it with `made` or `load`."""

    def __init__(self, index: Any, ids: np.ndarray) -> None:
        self._index, self.ids = index, ids

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def made(cls, count: int, sample: np.ndarray) -> DenseIndex:
        """An empty index for about `count` vectors like those of `sample`, float32 [`sample_size(count)`, D]."""
        import faiss

        size, bits, lists = sample.shape[1], faiss.ScalarQuantizer.QT_8bit, _lists(count)
        if not lists:
            flat = faiss.IndexScalarQuantizer(size, bits, faiss.METRIC_INNER_PRODUCT)
            edge = np.full(size, WIDEST / np.sqrt(max(size, 1)), np.float32)
            flat.train(np.stack([-edge, edge]))
            return cls(faiss.IndexIDMap(flat), np.zeros(0, np.int64))
        index = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(size), size, lists, bits, faiss.METRIC_INNER_PRODUCT
        )
        index.train(np.ascontiguousarray(sample, np.float32))
        return cls(index, np.zeros(0, np.int64))

    @property
    def flat(self) -> bool:
        """Whether it compares all vectors."""
        import faiss

        return isinstance(self._index, faiss.IndexIDMap)

    def fits(self, count: int) -> bool:
        """Whether this kind of index is right for so many vectors; else, or where another version made it, it is better
        made anew."""
        import faiss

        if self.flat:
            inner = faiss.downcast_index(self._index.index)
            return not _lists(count) and isinstance(inner, faiss.IndexScalarQuantizer)
        return _lists(count) == int(self._index.nlist)

    def add(self, ids: np.ndarray, vectors: np.ndarray) -> None:
        """More vectors, float32 [N, D], whose int64 ids [N] are greater than those that are there."""
        self._index.add_with_ids(
            np.ascontiguousarray(vectors, np.float32), np.ascontiguousarray(ids, np.int64)
        )
        self.ids = np.concatenate([self.ids, ids])

    def remove(self, ids: np.ndarray) -> None:
        """Forget these ids."""
        self._index.remove_ids(np.ascontiguousarray(ids, np.int64))
        self.ids = np.setdiff1d(self.ids, ids, assume_unique=True)

    def search(self, vectors: np.ndarray, k: int) -> list[list[int]]:
        """For each of float32 [N, D] the ids of the k vectors that are probably nearest, nearest first; fewer where
        there are fewer."""
        import faiss

        k = min(k, len(self))
        if k < 1:
            return [[] for _ in vectors]
        parameters: Any = faiss.SearchParametersIVF  # its keywords are not in faiss's own types
        options = None if self.flat else parameters(nprobe=_probes(self._index.nlist))
        with _one_thread():
            _, ids = self._index.search(np.ascontiguousarray(vectors, np.float32), k, params=options)
        return [[id_ for id_ in of if id_ >= 0] for of in ids.tolist()]

    def save(self, folder: Path, generation: int) -> None:
        """Write the index beside the volume's database, atomically, and remove older ones and what a killed save
        left. One at a time; OSError: it cannot be written, and the ones that were there stay.
        """
        import faiss

        check = 0

        def write(
            data: bytes,
        ) -> None:  # faiss itself says nothing of a small file that did not fit on the disk
            nonlocal check
            file.write(data)
            check = zlib.crc32(data, check)

        library: Any = faiss  # its callbacks are not in its own types
        part = folder / f".{_PREFIX}-{generation}"
        try:
            with part.open("wb") as file:
                faiss.write_index(self._index, library.PyCallbackIOWriter(write, _CHUNK))
                file.flush()
                os.fsync(file.fileno())
            final = folder / f"{_PREFIX}-{generation}-{check:08x}.faiss"
            part.replace(final)
        finally:
            part.unlink(missing_ok=True)
        for old in (*folder.glob(f".{_PREFIX}-*"), *folder.glob(f"{_PREFIX}-*.faiss")):
            if old != final:
                with contextlib.suppress(OSError):
                    old.unlink()

    @classmethod
    def load(cls, folder: Path) -> tuple[int, DenseIndex] | None:
        """The newest saved index that is whole, and the generation of the volume that it was made of."""
        import faiss

        files = sorted(folder.glob(f"{_PREFIX}-*-*.faiss"), key=lambda path: -_generation(path))
        for path in files:
            try:
                if _checksum(path) == int(path.stem.rsplit("-", 1)[1], 16):
                    index = faiss.read_index(str(path))
                    return _generation(path), cls(index, _ids(index))
                why = "it is not what was written"
            except FileNotFoundError:  # a newer one has taken its place
                continue
            except (OSError, ValueError, RuntimeError) as error:
                why = str(error)
            log.warning("a volume's index is dropped and made anew: %s: %s", path, why)
            with contextlib.suppress(OSError):
                path.unlink()
        return None

    @staticmethod
    def saved(folder: Path) -> int:
        """The generation of the newest saved index, -1 without one."""
        return max(map(_generation, folder.glob(f"{_PREFIX}-*-*.faiss")), default=-1)


def sample_size(count: int) -> int:
    """How many vectors an index for about `count` is learnt from; 1 tells how long a vector is."""
    return max(LEARNT * _lists(count), 1)


def _lists(count: int) -> int:
    return next(lists for upto, lists, _ in KINDS if count <= upto)


def _probes(lists: int) -> int:
    """Of an index of so many lists; another version may have made it."""
    return next((probes for _, some, probes in KINDS if some == lists), KINDS[-1][2])


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """A question takes a millisecond or five; waiting for a second thread where processors are busy takes thirty."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # of the calling thread alone
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _generation(path: Path) -> int:
    number = path.stem.split("-")[1]
    return int(number) if number.isdecimal() else -1


def _checksum(path: Path) -> int:
    check = 0
    with path.open("rb") as file:
        while part := file.read(_CHUNK):
            check = zlib.crc32(part, check)
    return check


def _ids(index: Any) -> np.ndarray:
    """All ids of a faiss index of either kind, in order."""
    import faiss

    if not index.ntotal:
        return np.zeros(0, np.int64)
    if isinstance(index, faiss.IndexIDMap):
        return np.sort(faiss.vector_to_array(index.id_map))
    lists = index.invlists
    sizes = [lists.list_size(n) for n in range(index.nlist)]
    parts = [faiss.rev_swig_ptr(lists.get_ids(n), size).copy() for n, size in enumerate(sizes) if size]
    return np.sort(np.concatenate(parts))
