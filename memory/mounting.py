"""Mounting: bringing a volume up to date with a file or a folder.

What: walks the files, reads those that changed (parse, chunk), embeds their chunks together, stores document
    by document, and forgets what is gone.
Invariant: a file is known by its content; a time stamp only spares reading it again, and a file that moved keeps its
    chunks. What cannot be read is
    not in the volume and is in the report, with the reason, which is remembered with the content.
Interface: `Mounting(store, encoder, limits, root, label, progress).run() -> MountReport`; `Embedder`, what is
    asked of an encoder. The caller holds the store's writer lock.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from llmos.abi.errors import DocumentError
from llmos.abi.labels import Label
from llmos.abi.limits import MAX_DOCUMENT_BYTES
from llmos.abi.progress import Progress
from llmos.drivers.documents.document import Document
from llmos.drivers.documents.reading import format_of
from llmos.drivers.documents.worker import DocumentReader
from llmos.memory.chunking import Chunk, ChunkLimits, chunk
from llmos.memory.store import ChunkRow, DocumentRow, Store

RECIPE = 3  # of parsing, chunking and embedded text; another number makes the next mount start over
HEADING_TOKENS = 50  # of the heading path that is embedded before a chunk's text
_BATCH = 512  # chunks that are embedded together: enough to sort by length
_RACY_SECONDS = 2.0  # what changed so shortly before it was read may change again under the same time stamp


class Embedder(Protocol):
    """What a volume asks of its encoder."""

    @property
    def identity(self) -> str: ...
    def count(self, texts: Sequence[str]) -> list[int]: ...
    def encode(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> np.ndarray: ...


@dataclass(frozen=True, slots=True)
class MountReport:
    """What a mount did: files and chunks counted, what was skipped and why, what was noted while reading."""

    added: int
    changed: int
    unchanged: int
    removed: int
    moved: int
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


class Mounting:
    """One run over a file or folder."""

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
        self._gone: dict[str, DocumentRow] = {}  # by content: what was known and is not where it was
        self._pending: list[_Parsed] = []
        self._embedded = self._to_embed = 0
        self._added = self._changed = self._unchanged = self._removed = self._moved = 0
        self._skipped: list[tuple[str, str]] = []
        self._notes: list[tuple[str, str]] = []

    def run(self) -> MountReport:
        """Read what changed, drop what is gone.

        Raises:
            DocumentError: the root is a single file that cannot be read.
            VolumeError, DiskFull: the store; what was stored before stays whole.
        """
        began = time.monotonic()
        files = self._files()
        present: set[str] = set()
        sources = {source for source, _ in files}
        self._gone = {row.hash: row for row in self._known.values() if row.source not in sources}
        with DocumentReader() as reader:
            for n, (source, path) in enumerate(files):
                self._progress("read", n, len(files))
                try:
                    refusal = self._file(reader, source, path)
                    present.add(source)
                except DocumentError as error:  # not readable at all: nothing is known about it
                    refusal = error
                if refusal is not None:
                    self._skipped.append((source, str(refusal)))
                    if self._root.is_file():
                        self._drop(present)
                        raise refusal
                if sum(len(parsed.chunks) for parsed in self._pending) >= _BATCH:
                    self._flush()
            self._progress("read", len(files), len(files))
        self._flush()
        self._drop(present)
        return MountReport(
            added=self._added,
            changed=self._changed,
            unchanged=self._unchanged,
            removed=self._removed,
            moved=self._moved,
            chunks=self._store.count(),
            skipped=tuple(self._skipped),
            notes=tuple(self._notes),
            seconds=time.monotonic() - began,
        )

    def _drop(self, present: set[str]) -> None:
        for source in self._known.keys() - present:
            self._store.remove_document(str(self._root), source)
            self._removed += self._known[source].refusal is None

    def _files(self) -> list[tuple[str, Path]]:
        """(source name, path) of every file below the root, by name; links that lead out are skipped."""
        if not self._root.is_dir():
            return [(self._root.name, self._root)]
        found: list[tuple[str, Path]] = []

        def unreadable(error: OSError) -> None:
            name = os.path.relpath(error.filename or self._root, self._root.parent)
            self._skipped.append((name, f"cannot be read: {error.strerror}"))

        for folder, folders, names in os.walk(self._root, onerror=unreadable):
            here = Path(folder)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            if (here / "writer.lock").exists() and here.samefile(self._store.folder):
                folders.clear()
                continue
            for name in folders:
                if (here / name).is_symlink():
                    self._skipped.append((self._source(here / name), "a link to a folder is not followed"))
            for name in sorted(names):
                path = here / name
                if name.startswith("."):
                    continue
                if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(self._root):
                    self._skipped.append(
                        (self._source(path), "a link that leads out of the folder is not followed")
                    )
                elif format_of(path) is None:
                    self._skipped.append((self._source(path), f"files of type {path.suffix} are not read"))
                else:
                    found.append((self._source(path), path))
        return found

    def _source(self, path: Path) -> str:
        return path.relative_to(self._root.parent).as_posix().encode("utf-8", "replace").decode()

    def _file(self, reader: DocumentReader, source: str, path: Path) -> DocumentError | None:
        """Look at one file, and read it if it changed; what it is refused for is remembered with its content."""
        known = self._known.get(source)
        digest, stamp = _look(path, known.stat if known else "")
        if known is not None and digest in ("", known.hash):
            if known.label != self._label or (stamp and stamp != known.stat):
                self._store.touch_document(
                    known.id, source=source, stat=stamp or known.stat, label=self._label
                )
            if known.refusal is not None:
                what, why, do = known.refusal
                return DocumentError(what, why=why, do=do)
            self._unchanged += 1
            return None
        if known is None and self._moves(digest, source, stamp):
            return None
        try:
            document = reader.read(path)
        except DocumentError as error:
            self._store.put_document(
                mount=str(self._root), source=source, hash=digest, stat=stamp, label=self._label,
                title="", notes=(), chunks=(), vectors=np.zeros((0, 0), np.float32),
                refusal=(error.what, error.why, error.do),
            )  # fmt: skip
            self._removed += known is not None and known.refusal is None
            return error
        chunks = chunk(document, self._encoder.count, self._limits)
        self._pending.append(_Parsed(source, digest, stamp, document, chunks))
        self._to_embed += len(chunks)
        return None

    def _moves(self, digest: str, source: str, stamp: str) -> bool:
        """Whether this is a file that lay elsewhere: then its chunks are kept, under its new name."""
        row = self._gone.get(digest)
        if row is None or row.refusal is not None:
            return False
        renamed = Path(row.source).name != Path(source).name
        if renamed and row.title == Path(row.source).name.removesuffix(".gz"):
            return False  # it has no title but its name, and that was embedded with its text
        del self._gone[digest], self._known[row.source]
        self._store.touch_document(row.id, source=source, stat=stamp, label=self._label)
        self._moved += 1
        return True

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
        known = self._known.get(parsed.source)
        if known is not None and known.refusal is None:
            self._changed += 1
        else:
            self._added += 1
        self._notes.extend((parsed.source, note) for note in parsed.document.notes)

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
