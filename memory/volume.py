"""A volume: a mounted body of documents that can be searched.

What: mounting reads what changed (parse, chunk, embed, store); searching fuses meaning (dense) and words (BM25)
    and returns passages with their source, exact position and label.
Invariant: what is stored is what the files said at the last mount, document by document: each is replaced in
    one transaction, so a crash leaves whole documents only, and the next mount goes on from there. A file that
    cannot be read is not in the volume and is in the report, with the reason.
Interface: `Volume.open(folder, encoder) -> Volume`; `volume.mount(path, label=, progress=) -> MountReport`;
    `volume.search(query, k=) -> list[Passage]`; `volume.close()`. Search covers everything mounted in the
    volume: bodies of documents that are searched apart are volumes apart. Thread-safe; processes may share one.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from llmos.abi.errors import DocumentError
from llmos.abi.labels import UNTRUSTED, Label
from llmos.abi.limits import MAX_DOCUMENT_BYTES
from llmos.abi.progress import Progress, silent
from llmos.drivers.documents.document import Document, describe
from llmos.drivers.documents.reading import format_of
from llmos.drivers.documents.worker import DocumentReader
from llmos.memory.chunking import Chunk, ChunkLimits, chunk
from llmos.memory.index import DenseIndex
from llmos.memory.ranking import distinct, fuse, lexical_query
from llmos.memory.store import ChunkRow, Store

RECIPE = 1  # of parsing, chunking and embedded text; another number makes the next mount start over
HEADING_TOKENS = 50  # of the heading path that is embedded before a chunk's text
CANDIDATES = 50  # taken from each ranking before they are fused
WORDS = 0.3  # what the best match of words adds to a cosine; see benchmarks/retrieval.py
COLUMNS = (0.5, 1.0, 1.0)  # BM25 weights of title, heading and text
_BATCH = 512  # chunks that are embedded together: enough to sort by length
_RACY_SECONDS = (
    2.0  # a file that changed so shortly before it was read may change again under the same time stamp
)


class Embedder(Protocol):
    """What a volume asks of its encoder."""

    @property
    def identity(self) -> str: ...
    def count(self, texts: Sequence[str]) -> list[int]: ...
    def encode(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> np.ndarray: ...


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk that was found; `score` is the fused one, `similarity` the cosine with the question."""

    chunk_id: int
    source: str
    position: str
    text: str
    heading: str
    label: Label
    score: float
    similarity: float


@dataclass(frozen=True, slots=True)
class MountReport:
    """What a mount did: files and chunks counted, what was skipped and why, what was noted while reading."""

    added: int
    changed: int
    unchanged: int
    removed: int
    chunks: int
    skipped: tuple[tuple[str, str], ...]
    notes: tuple[tuple[str, str], ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class _Parsed:
    """A document on its way into the store."""

    source: str
    hash: str
    stat: str
    document: Document
    chunks: list[Chunk]


class Volume:
    """A mounted body of documents; build it with `open`."""

    def __init__(self, store: Store, encoder: Embedder, limits: ChunkLimits) -> None:
        self._store = store
        self._encoder = encoder
        self._limits = limits
        self._lock = threading.Lock()
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
        began, progress = time.monotonic(), progress or silent
        root = Path(os.path.realpath(Path(path).expanduser()))
        if not root.exists():
            raise DocumentError(
                f"{path} does not exist", do="give the path of a file or a folder of documents"
            )
        with self._store.writing():
            self._check_recipe()
            work = _Mount(self._store, self._encoder, self._limits, root, label, progress)
            work.run()
            if work.added or work.changed or work.removed or self._stale():
                self._rebuild(save=True)
        return MountReport(
            work.added,
            work.changed,
            work.unchanged,
            work.removed,
            self._store.count(),
            tuple(work.skipped),
            tuple(work.notes),
            time.monotonic() - began,
        )

    def _check_recipe(self) -> None:
        """Start over when vectors or chunks of another make are stored: they cannot be compared."""
        recipe = f"{RECIPE} {self._limits} {self._encoder.identity}"
        if self._store.get("recipe") != recipe:
            self._store.clear()
            self._store.set("recipe", recipe)

    # Searching

    def search(self, query: str, *, k: int = 5) -> list[Passage]:
        """The k best passages for a question, best first; fewer where the volume holds fewer."""
        index = self._index()
        if not len(index) or k < 1 or not query.strip():
            return []
        vector = self._encoder.encode([query])
        scores, ids = index.search(vector, max(CANDIDATES, k))
        similar = dict(zip(ids[0].tolist(), scores[0].tolist(), strict=True))
        words = lexical_query(query)
        matching = self._store.lexical(words, max(CANDIDATES, k), COLUMNS) if words else {}
        for id_ in matching.keys() - similar.keys():
            if (cosine := index.likeness(id_, vector[0])) is not None:
                similar[id_] = cosine
        rows = self._store.rows(list(similar))
        ranked = [(id_, score) for id_, score in fuse(similar, matching, WORDS) if id_ in rows]
        found = []
        for n in distinct((rows[id_].text for id_, _ in ranked), k):
            id_, score = ranked[n]
            row = rows[id_]
            position = describe(row.unit, row.first, row.last)
            found.append(
                Passage(id_, row.source, position, row.text, row.heading, row.label, score, similar[id_])
            )
        return found

    def _stale(self) -> bool:
        return self._dense is None or self._dense[0] != self._store.generation

    def _index(self) -> DenseIndex:
        """The dense index of the store's present generation: kept, else from its file, else rebuilt."""
        with self._lock:
            if self._dense is None or self._stale():
                generation = self._store.generation
                loaded = DenseIndex.load(self._store.folder, generation)
                if loaded is not None and len(loaded) == self._store.count():
                    self._dense = generation, loaded
                else:
                    self._build()
            assert self._dense is not None
            return self._dense[1]

    def _build(self) -> None:
        ids, vectors, generation = self._store.vectors()
        self._dense = generation, DenseIndex.build(ids, vectors)

    def _rebuild(self, *, save: bool) -> None:
        with self._lock:
            self._build()
            if save and self._dense is not None:
                generation, index = self._dense
                index.save(self._store.folder, generation)


class _Mount:
    """One run over a file or folder; its attributes become the report."""

    def __init__(
        self,
        store: Store,
        encoder: Embedder,
        limits: ChunkLimits,
        root: Path,
        label: Label,
        progress: Progress,
    ) -> None:
        self._store, self._encoder, self._limits = store, encoder, limits
        self._root, self._label, self._progress = root, label, progress
        self._known = {row.source: row for row in store.documents(str(root))}
        self._pending: list[_Parsed] = []
        self._embedded = self._to_embed = 0
        self.added = self.changed = self.unchanged = self.removed = 0
        self.skipped: list[tuple[str, str]] = []
        self.notes: list[tuple[str, str]] = []

    def run(self) -> None:
        """Read what changed, drop what is gone."""
        files = self._files()
        present: set[str] = set()
        with DocumentReader() as reader:
            for n, (source, path) in enumerate(files):
                self._progress("read", n, len(files))
                try:
                    self._file(reader, source, path)
                    present.add(source)
                except DocumentError as error:
                    if self._root.is_file():
                        self._drop(present)
                        raise
                    self.skipped.append((source, str(error)))
                if sum(len(parsed.chunks) for parsed in self._pending) >= _BATCH:
                    self._flush()
            self._progress("read", len(files), len(files))
        self._flush()
        self._drop(present)

    def _drop(self, present: set[str]) -> None:
        for source in self._known.keys() - present:
            self._store.remove_document(str(self._root), source)
            self.removed += 1

    def _files(self) -> list[tuple[str, Path]]:
        """(source name, path) of every file below the root, by name; links that lead out are skipped."""
        if not self._root.is_dir():
            return [(self._root.name, self._root)]
        found: list[tuple[str, Path]] = []

        def unreadable(error: OSError) -> None:
            name = os.path.relpath(error.filename or self._root, self._root.parent)
            self.skipped.append((name, f"cannot be read: {error.strerror}"))

        for folder, folders, names in os.walk(self._root, onerror=unreadable):
            here = Path(folder)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            if (here / "writer.lock").exists() and here.samefile(self._store.folder):
                folders.clear()
                continue
            for name in folders:
                if (here / name).is_symlink():
                    self.skipped.append((self._source(here / name), "a link to a folder is not followed"))
            for name in sorted(names):
                path = here / name
                if name.startswith("."):
                    continue
                if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(self._root):
                    self.skipped.append(
                        (self._source(path), "a link that leads out of the folder is not followed")
                    )
                elif format_of(path) is None:
                    self.skipped.append((self._source(path), f"files of type {path.suffix} are not read"))
                else:
                    found.append((self._source(path), path))
        return found

    def _source(self, path: Path) -> str:
        return path.relative_to(self._root.parent).as_posix().encode("utf-8", "replace").decode()

    def _file(self, reader: DocumentReader, source: str, path: Path) -> None:
        known = self._known.get(source)
        digest, stamp = _look(path, known.stat if known else "")
        if known is not None and digest in ("", known.hash):
            if known.label != self._label or (stamp and stamp != known.stat):
                self._store.touch_document(known.id, stat=stamp or known.stat, label=self._label)
            self.unchanged += 1
            return
        document = reader.read(path)
        chunks = chunk(document, self._encoder.count, self._limits)
        self._pending.append(_Parsed(source, digest, stamp, document, chunks))
        self._to_embed += len(chunks)

    def _flush(self) -> None:
        """Embed the pending chunks together, then store document by document."""
        texts = [text for parsed in self._pending for text in self._embedded_texts(parsed)]
        before = self._embedded

        def tell(done: int) -> None:
            self._embedded = before + done
            self._progress("embed", self._embedded, self._to_embed)

        vectors = self._encoder.encode(texts, tell)
        start = 0
        for parsed in self._pending:
            end = start + len(parsed.chunks)
            self._put(parsed, vectors[start:end])
            start = end
        self._pending.clear()

    def _put(self, parsed: _Parsed, vectors: np.ndarray) -> None:
        self._store.put_document(
            mount=str(self._root),
            source=parsed.source,
            hash=parsed.hash,
            stat=parsed.stat,
            label=self._label,
            title=parsed.document.title,
            notes=parsed.document.notes,
            chunks=[
                ChunkRow(0, n, " > ".join(c.path), c.text, c.overlap, c.unit, c.first, c.last)
                for n, c in enumerate(parsed.chunks)
            ],
            vectors=vectors,
        )
        if parsed.source in self._known:
            self.changed += 1
        else:
            self.added += 1
        self.notes.extend((parsed.source, note) for note in parsed.document.notes)

    def _embedded_texts(self, parsed: _Parsed) -> list[str]:
        """What is embedded of each chunk: its headings (the outermost go first where they are long) and text."""
        paths = [parsed.document.title, *dict.fromkeys(h for c in parsed.chunks for h in c.path)]
        sizes = dict(zip(paths, self._encoder.count(paths), strict=True))
        texts = []
        for c in parsed.chunks:
            kept: list[str] = []
            room = HEADING_TOKENS
            for heading in reversed(list(dict.fromkeys((parsed.document.title, *c.path)))):
                room -= sizes[heading] + 1
                if room < 0:
                    break
                kept.append(heading)
            texts.append("\n".join((". ".join(reversed(kept)), c.text)) if kept else c.text)
        return texts


def _look(path: Path, known: str) -> tuple[str, str]:
    """(content hash, time stamp) of a file; the hash is "" where the time stamp is the known one."""
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise DocumentError(f"{path.name} is not a regular file", do="give a file or a folder of files")
        stamp = f"{info.st_size} {info.st_mtime_ns} {info.st_ctime_ns} {info.st_ino}"
        if stamp == known and os.access(path, os.R_OK):
            return "", ""
        if info.st_size > MAX_DOCUMENT_BYTES:
            raise DocumentError(
                f"{path.name} is too large",
                why=f"more than {MAX_DOCUMENT_BYTES >> 20} MiB",
                do="split it into smaller files",
            )
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DocumentError(
            f"{path.name} cannot be read",
            why=error.strerror or str(error),
            do="check that it exists and who may read it",
        ) from None
    racy = time.time() - max(info.st_mtime, info.st_ctime) < _RACY_SECONDS
    return digest, "" if racy else stamp
