"""A volume: a mounted body of documents that can be searched.

What: mounting reads what changed (parse, chunk, embed, store); searching fuses meaning (dense) and words (BM25)
    and returns passages with their source, exact position and label.
Invariant: what is stored is what the files said at the last mount, document by document: each is replaced in
    one transaction, so a crash leaves whole documents only, and the next mount goes on from there. A file that
    cannot be read is not in the volume and is in the report, with the reason.
Interface: `Volume.open(folder, encoder) -> Volume`; `volume.mount(path, label=, progress=) -> MountReport`;
    `volume.search(query, k=) -> list[Passage]`; `search(volumes, queries, k=)`, of several, for several; `.close()`.
    Search covers everything mounted in a volume: bodies of documents that are searched apart are volumes apart.
    Thread-safe; processes may share one.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
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
    its volume's own, `volume` the place of that among those that were searched."""

    chunk_id: int
    source: str
    position: str
    text: str
    heading: str
    label: Label
    score: float
    similarity: float
    volume: int = 0


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
        return search([self], [query], k=k)[0]

    def beginnings(self, start: int, count: int) -> list[Passage]:
        """Passages `start` to `start + count` in the order of their places in their documents: all first ones, all
        second ones, and so on."""
        return self.passages(self._store.beginnings(start, count))

    def passages(self, ids: Sequence[int]) -> list[Passage]:
        """Passages by their numbers; those that are gone are left out."""
        return [_passage(row) for row in self._store.rows(ids).values()]

    def named(self, reference: str) -> list[Passage]:
        """The passages of the document of that name, in order, or the one that is called so with its position."""
        found = [_passage(row) for row in self._store.rows(self._store.named(reference)).values()]
        return [p for p in found if reference in (p.source, f"{p.source}, {p.position}")]

    def _candidates(
        self, vectors: np.ndarray, terms: Sequence[Sequence[str]], k: int
    ) -> list[tuple[dict[int, float], dict[int, float], dict[str, int]]]:
        """For each question (cosines of every candidate, BM25 of those that share a word, in how many chunks each word
        is)."""
        with self._lock:  # an index is not searched while it changes
            nearest = self._index().search(vectors, k)
        counts = self._store.frequencies(list(dict.fromkeys(chain.from_iterable(terms))))
        frequencies = [{term: counts[term] for term in of} for of in terms]
        matching = [self._store.lexical(frequency, k, COLUMNS) for frequency in frequencies]
        wanted = [list(dict.fromkeys([*near, *words])) for near, words in zip(nearest, matching, strict=True)]
        ids, stored = self._store.vectors(list(dict.fromkeys(chain.from_iterable(wanted))))
        place = {id_: n for n, id_ in enumerate(ids)}
        found = []
        for vector, some, words, frequency in zip(vectors, wanted, matching, frequencies, strict=True):
            there = [id_ for id_ in some if id_ in place]
            cosines = stored[[place[id_] for id_ in there]] @ vector if there else np.zeros(0)
            similar = dict(zip(there, cosines.tolist(), strict=True))
            found.append((similar, {i: score for i, score in words.items() if i in similar}, frequency))
        return found

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


def search(volumes: Sequence[Volume], queries: Sequence[str], *, k: int = 5) -> list[list[Passage]]:
    """For each question the k best passages of several volumes, best first, ranked as if the volumes were one.

    Cosines are comparable as they are; BM25 is computed anew with the word frequencies of all volumes together.
    Questions are embedded together, ask an index once, and each chunk and word is looked up once for all of them.

    Raises:
        ValueError: the volumes were made with different encoders.
        VolumeError: one is damaged, or was made in another way than it is searched.
    """
    places: dict[Volume, int] = {}
    for place, volume in enumerate(volumes):
        if len(volume._index()):
            places.setdefault(volume, place)
    asked = [n for n, query in enumerate(queries) if query.strip()]
    answers: list[list[Passage]] = [[] for _ in queries]
    if not places or k < 1 or not asked:
        return answers
    if len({volume._encoder.identity for volume in places}) > 1:
        raise ValueError("volumes of different encoders cannot be searched together")
    vectors = next(iter(places))._encoder.encode([queries[n] for n in asked])
    terms = [lexical_terms(queries[n]) for n in asked]
    found = {volume: volume._candidates(vectors, terms, max(CANDIDATES, k)) for volume in places}
    rows = {
        (place, id_): row
        for volume, place in places.items()
        for id_, row in volume._store.rows(
            [*{i: 0 for similar, _, _ in found[volume] for i in similar}]
        ).items()
    }
    for at, n in enumerate(asked):
        cosines = {(places[v], id_): x for v, of in found.items() for id_, x in of[at][0].items()}
        cosines = {key: x for key, x in cosines.items() if key in rows}
        matching = [of[at][1] for of in found.values()]
        if len(found) > 1:
            parts = [v._store.term_matches(of[at][2], list(of[at][1]), COLUMNS) for v, of in found.items()]
            matching = pooled(parts)
        scores = {(places[v], id_): x for v, of in zip(found, matching, strict=True) for id_, x in of.items()}
        ranked = fuse(cosines, {key: x for key, x in scores.items() if key in rows}, WORDS)
        kept = distinct((rows[key].text for key, _ in ranked), k)
        answers[n] = [
            _passage(rows[key], score, cosines[key], key[0]) for key, score in (ranked[i] for i in kept)
        ]
    return answers


def _passage(row: ChunkRow, score: float = 0.0, similarity: float = 0.0, volume: int = 0) -> Passage:
    position = describe(row.unit, row.first, row.last)
    return Passage(row.id, row.source, position, row.text, row.heading, row.label, score, similarity, volume)
