"""A volume: a mounted body of documents that can be searched.

What: mounting reads what changed (parse, chunk, embed, store); searching fuses meaning (dense) and words (BM25)
    and returns passages with their source, exact position and label.
Invariant: what is stored is what the files said at the last mount, document by document: each is replaced in
    one transaction, so a crash leaves whole documents only, and the next mount goes on from there. A file that
    cannot be read is not in the volume and is in the report, with the reason.
Interface: `Volume.open(folder, encoder) -> Volume`; `volume.mount(path, label=, progress=) -> MountReport`;
    `volume.search(query, k=) -> list[Passage]`; `search(volumes, query, k=)`, over several; `volume.close()`.
    Search covers everything mounted in a volume: bodies of documents that are searched apart are volumes apart.
    Thread-safe; processes may share one.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llmos.abi.errors import DocumentError, VolumeError
from llmos.abi.labels import UNTRUSTED, Label
from llmos.abi.progress import Progress, silent
from llmos.drivers.documents.document import describe
from llmos.memory.chunking import ChunkLimits
from llmos.memory.disk import disk_errors
from llmos.memory.index import DenseIndex, sample_size
from llmos.memory.mounting import RECIPE, Embedder, Mounting, MountReport
from llmos.memory.ranking import distinct, fuse, lexical_terms, pooled
from llmos.memory.store import ChunkRow, Store

CANDIDATES = 50  # taken from each ranking before they are fused
WORDS = 0.3  # what the best match of words adds to a cosine; see benchmarks/retrieval.py
_BATCH = 2_000  # vectors that are put into the index at once
COLUMNS = (0.5, 1.0, 1.0)  # BM25 weights of title, heading and text

log = logging.getLogger("llmos.volume")


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk that was found; `score` is the fused one, `similarity` the cosine with the question; `chunk_id` is
    its volume's own."""

    chunk_id: int
    source: str
    position: str
    text: str
    heading: str
    label: Label
    score: float
    similarity: float


class Volume:
    """A mounted body of documents; build it with `open`."""

    def __init__(self, store: Store, encoder: Embedder, limits: ChunkLimits) -> None:
        self._store = store
        self._encoder = encoder
        self._limits = limits
        self._lock = threading.RLock()
        self._dense: tuple[int, DenseIndex] | None = None

    @classmethod
    def open(cls, folder: Path | str, encoder: Embedder, limits: ChunkLimits | None = None) -> Volume:
        """Open the volume in `folder`, made when it is not there.

        Raises:
            VolumeError: the folder cannot be used, or its database is damaged.
            DiskFull: there was no room to make it.
        """
        return cls(Store(Path(folder)), encoder, limits or ChunkLimits())

    def close(self) -> None:
        """Close the files."""
        self._store.close()

    def __len__(self) -> int:
        return self._store.count()

    # Mounting

    def mount(
        self, path: Path | str, *, label: Label = UNTRUSTED, progress: Progress | None = None
    ) -> MountReport:
        """Bring the volume up to date with a file or a folder.

        Args:
            path: a file or a folder, read with everything below it but hidden files and links that lead out.
            label: carried by every chunk of it.
            progress: told of files read ("read") and passages embedded ("embed").

        Raises:
            DocumentError: the path does not exist, or is a single file that cannot be read.
            VolumeError, DiskFull: the store; what was stored before stays whole.
        """
        root = Path(os.path.realpath(Path(path).expanduser()))
        if not root.exists():
            raise DocumentError(
                f"{path} does not exist", do="give the path of a file or a folder of documents"
            )
        with self._store.writing():
            recipe = self._recipe()
            if self._store.get("recipe") != recipe:  # vectors and chunks of another make cannot be compared
                self._store.clear()
                self._store.set("recipe", recipe)
            work = Mounting(self._store, self._encoder, self._limits, root, label, progress or silent)
            report = work.run()
            self._index(progress or silent)
        return report

    def _recipe(self) -> str:
        return f"{RECIPE} {self._limits} {self._encoder.identity}"

    # Searching

    def search(self, query: str, *, k: int = 5) -> list[Passage]:
        """The k best passages for a question, best first; fewer where the volume holds fewer."""
        return search([self], query, k=k)

    def passages(self, ids: Sequence[int]) -> list[Passage]:
        """Passages by their numbers; those that are gone are left out."""
        return [_passage(row) for row in self._store.rows(ids).values()]

    def named(self, reference: str) -> list[Passage]:
        """The passages of the document of that name, in order, or the one that is called so with its position."""
        found = [_passage(row) for row in self._store.rows(self._store.named(reference)).values()]
        return [p for p in found if reference in (p.source, f"{p.source}, {p.position}")]

    def _candidates(
        self, vector: np.ndarray, terms: Sequence[str], k: int
    ) -> tuple[dict[int, float], dict[int, float], dict[str, int]]:
        """(cosines of every candidate, BM25 of those that share a word, in how many chunks each word is)."""
        with self._lock:  # an index is not searched while it changes
            near = self._index().search(vector, k)
        frequency = self._store.frequencies(terms)
        matching = self._store.lexical(frequency, k, COLUMNS)
        ids, vectors = self._store.vectors([*dict.fromkeys([*near, *matching])])
        similar = dict(zip(ids, (vectors @ vector).tolist(), strict=True)) if ids else {}
        return similar, {id_: score for id_, score in matching.items() if id_ in similar}, frequency

    def _index(self, progress: Progress | None = None) -> DenseIndex:
        """The dense index of the store's present generation: the one at hand, or its file, brought up to date. With
        `progress`, of a mount, it is written where it changed."""
        with self._lock:
            generation, folder = self._store.generation, self._store.folder
            if self._dense is None or self._dense[0] != generation:
                if self._store.get("recipe") not in (None, self._recipe()):
                    raise VolumeError(
                        f"volume {folder} was made with another encoder or chunking",
                        why="its vectors cannot be compared with this question's",
                        do="mount the documents again",
                    )
                known = self._dense or DenseIndex.load(folder)
                if (
                    known is not None and known[0] > self._store.generation
                ):  # as where an old copy was put back
                    log.warning("a volume's index is dropped and made anew: it is ahead of %s", folder)
                    known = None
                self._dense = generation, self._updated(known[1] if known else None, progress or silent)
            index = self._dense[1]
            if progress is not None and DenseIndex.saved(folder) != generation:
                with disk_errors(folder):
                    index.save(folder, generation)
            return index

    def _updated(self, index: DenseIndex | None, progress: Progress) -> DenseIndex:
        """The index with what the store has now, made anew where none of this size is at hand.

        Ids are never given twice and a chunk's vector never changes, so nothing is locked meanwhile: what another
        process adds is found by the next question, and what it removes is no longer in the store.
        """
        ids = self._store.ids()
        if index is None or not index.fits(len(ids)) or 2 * len(np.intersect1d(index.ids, ids)) <= len(ids):
            learnt = min(sample_size(len(ids)), len(ids))
            chosen = np.random.default_rng(0).choice(ids, learnt, replace=False)
            index = DenseIndex.made(len(ids), self._store.vectors(chosen.tolist())[1])
        if len(gone := np.setdiff1d(index.ids, ids, assume_unique=True)):
            index.remove(gone)
        new = np.setdiff1d(ids, index.ids, assume_unique=True)
        for start in range(0, len(new), _BATCH):
            found, vectors = self._store.vectors(new[start : start + _BATCH].tolist())
            index.add(np.array(found, np.int64), vectors)
            if len(new) > _BATCH:
                progress("index", min(start + _BATCH, len(new)), len(new))
        return index


def search(volumes: Sequence[Volume], query: str, *, k: int = 5) -> list[Passage]:
    """The k best passages of several volumes, best first, ranked as if the volumes were one.

    Cosines are comparable as they are; BM25 is computed anew with the word frequencies of all volumes together.

    Raises:
        ValueError: the volumes were made with different encoders.
        VolumeError: one is damaged, or was made in another way than it is searched.
    """
    volumes = [volume for volume in dict.fromkeys(volumes) if len(volume._index())]
    if not volumes or k < 1 or not query.strip():
        return []
    if len({volume._encoder.identity for volume in volumes}) > 1:
        raise ValueError("volumes of different encoders cannot be searched together")
    vector, terms = volumes[0]._encoder.encode([query])[0], lexical_terms(query)
    found = [volume._candidates(vector, terms, max(CANDIDATES, k)) for volume in volumes]
    matching = [m for _, m, _ in found]
    if len(volumes) > 1:
        parts = [
            v._store.term_matches(f, list(m), COLUMNS) for v, (_, m, f) in zip(volumes, found, strict=True)
        ]
        matching = pooled(parts)
    rows = {
        (n, id_): row
        for n, (similar, _, _) in enumerate(found)
        for id_, row in volumes[n]._store.rows(list(similar)).items()
    }
    cosines = {key: found[key[0]][0][key[1]] for key in rows}
    scores = {
        (n, id_): score for n, of in enumerate(matching) for id_, score in of.items() if (n, id_) in rows
    }
    ranked = fuse(cosines, scores, WORDS)
    return [
        _passage(rows[key], score, cosines[key])
        for key, score in (ranked[place] for place in distinct((rows[key].text for key, _ in ranked), k))
    ]


def _passage(row: ChunkRow, score: float = 0.0, similarity: float = 0.0) -> Passage:
    position = describe(row.unit, row.first, row.last)
    return Passage(row.id, row.source, position, row.text, row.heading, row.label, score, similarity)
