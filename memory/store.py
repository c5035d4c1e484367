"""The SQLite file of a volume: mounts, documents, chunks, full text and vectors.

What: the one durable truth of a volume. All SQL is here; everything above it speaks in rows.
Invariant: a document and all its chunks, full-text entries and vectors change in one transaction; `generation`
    grows with every such change, so a copy of anything (the dense index) knows whether it is still true.
Interface: `Store(folder)`: `.put_document`, `.remove_document`, `.documents`, `.frequencies`, `.lexical`,
    `.term_matches`, `.vectors`, `.rows`, `.generation`, `.writing()` (the one writer's lock).
    Errors: VolumeError (damaged, locked, gone), DiskFull.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llmos.abi.errors import VolumeError
from llmos.abi.labels import UNTRUSTED, Integrity, Label
from llmos.drivers.documents.document import Unit
from llmos.memory.disk import BUSY_SECONDS, disk_errors
from llmos.memory.ranking import TermMatches

FORMAT = 2  # of the tables below; a volume with an earlier number is made anew, one with a later is refused
FILE = "volume.sqlite"
MATCHES = 12_000  # chunks that BM25 is computed of for one question
TOKENIZER = "porter unicode61 remove_diacritics 2"  # what a word is, and which words are one
_SCHEMA = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (
    id INTEGER PRIMARY KEY, mount TEXT NOT NULL, source TEXT NOT NULL, hash TEXT NOT NULL, stat TEXT NOT NULL,
    title TEXT NOT NULL, notes TEXT NOT NULL, refusal TEXT, integrity INTEGER NOT NULL, readers TEXT,
    UNIQUE (mount, source));
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY AUTOINCREMENT, document INTEGER NOT NULL REFERENCES documents (id),
    ordinal INTEGER NOT NULL, title TEXT NOT NULL, heading TEXT NOT NULL, text TEXT NOT NULL, overlap INTEGER NOT NULL,
    unit TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, vector BLOB NOT NULL);
CREATE INDEX chunks_document ON chunks (document, ordinal);
CREATE VIRTUAL TABLE words USING fts5 (
    title, heading, text, content='chunks', content_rowid='id', tokenize='{TOKENIZER}');
"""


@dataclass(frozen=True, slots=True)
class DocumentRow:
    """A stored document, without its chunks."""

    id: int
    mount: str
    source: str
    hash: str
    stat: str
    title: str
    label: Label
    refusal: tuple[str, str, str] | None  # what, why and do, of a file that is no document; it has no chunks


@dataclass(frozen=True, slots=True)
class ChunkRow:
    """A stored chunk; `id` is 0 before it is stored. `heading` is the path of headings as one line."""

    id: int
    ordinal: int
    heading: str
    text: str
    overlap: int
    unit: Unit
    first: int
    last: int
    source: str = ""
    label: Label = UNTRUSTED


class Store:
    """One open volume file. Thread-safe; any number of processes may read while one writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.RLock()
        with disk_errors(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # it holds the text of private documents
            self._db = sqlite3.connect(
                folder / FILE, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
        try:
            with disk_errors(folder):
                self._open()
                self._inode = (folder / FILE).stat().st_ino
        except BaseException:
            self._db.close()
            raise

    def _open(self) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "temp_store=MEMORY"):
            self._db.execute(f"PRAGMA {pragma}")
        with self._transaction():
            if not self._is_ours():
                self._start_over()
        self._db.execute("PRAGMA foreign_keys=ON")

    def _is_ours(self) -> bool:
        """Whether the tables are those above. VolumeError: a later version, or another program, made them."""
        present = dict(self._db.execute("SELECT name, sql FROM sqlite_master"))
        if not present:
            return False
        found = None
        if "meta" in present:
            found = dict(self._db.execute("SELECT key, value FROM meta")).get("format")
        if found is None or not found.isdecimal() or int(found) > FORMAT:
            raise VolumeError(
                f"volume {self.folder} has format {found}", why=f"this version reads up to format {FORMAT}",
                do="use the program that made it, or remove the folder and mount the documents again",
            )  # fmt: skip
        schema = {sql.strip() for sql in _SCHEMA.split(";\n") if sql.strip()}
        return int(found) == FORMAT and schema <= set(present.values())

    def _start_over(self) -> None:
        """Make the tables, in place of any that an earlier version made: the next mount fills them again.

        The generation starts at the time of day, so that no index of the tables before is taken for one of these.
        """
        tables = dict(self._db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
        virtual = [name for name, sql in tables.items() if (sql or "").upper().startswith("CREATE VIRTUAL")]
        for name in virtual:  # first: they take their shadow tables with them
            self._db.execute(f'DROP TABLE "{name}"')
        for name in tables:
            if name not in virtual and not name.startswith("sqlite_"):
                self._db.execute(f'DROP TABLE IF EXISTS "{name}"')
        for statement in _SCHEMA.split(";\n"):
            self._db.execute(statement)
        self._set("format", str(FORMAT))
        self._set("generation", str(time.time_ns() // 1_000_000))

    def close(self) -> None:
        """Close the file; the store is unusable after."""
        with self._lock:
            self._db.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def writing(self, wait: float = 600.0) -> Iterator[None]:
        """Hold the volume's writer lock: one mount at a time, over all processes; it ends with its process."""
        with disk_errors(self.folder):
            lock = os.open(self.folder / "writer.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        with os.fdopen(lock, "rb") as file:
            deadline = time.monotonic() + wait
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise VolumeError(
                            f"volume {self.folder} is locked",
                            why=f"another process has been mounting for {wait:.0f} s",
                            do="wait for it, or end it",
                        ) from None
                    time.sleep(0.05)
            self._check_present()
            yield

    def get(self, key: str) -> str | None:
        """A word of the volume's own facts (format, encoder, generation), or None."""
        with self._lock, disk_errors(self.folder):
            row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def set(self, key: str, value: str) -> None:
        """Remember one of the volume's own facts."""
        with disk_errors(self.folder), self._transaction():
            self._set(key, value)

    def _set(self, key: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    @property
    def generation(self) -> int:
        """A number that grows with every change of chunks. VolumeError: the volume was deleted under this store."""
        self._check_present()
        return int(self.get("generation") or 0)

    def _check_present(self) -> None:
        """An open file that was deleted can still be read and written, for nothing; VolumeError says so instead."""
        with disk_errors(self.folder):
            try:
                found = (self.folder / FILE).stat().st_ino
            except FileNotFoundError:
                found = None
        if found != self._inode:
            raise VolumeError(
                f"volume {self.folder} is gone", why="its files were removed while it was open",
                do="open it again and mount the documents",
            )  # fmt: skip

    def _bump(self) -> None:
        self._db.execute("UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'generation'")

    def documents(self, mount: str | None = None) -> list[DocumentRow]:
        """The stored documents, of one mount or of all."""
        query = "SELECT id, mount, source, hash, stat, title, refusal, integrity, readers FROM documents"
        with self._lock, disk_errors(self.folder):
            where = " WHERE mount = ?" if mount is not None else ""
            rows = self._db.execute(
                query + where + " ORDER BY id", () if mount is None else (mount,)
            ).fetchall()
        return [
            DocumentRow(
                id_,
                mount,
                source,
                hash,
                stat,
                title,
                _label(integrity, readers),
                refusal and tuple(json.loads(refusal)),
            )
            for id_, mount, source, hash, stat, title, refusal, integrity, readers in rows
        ]

    def put_document(
        self,
        *,
        mount: str,
        source: str,
        hash: str,
        stat: str,
        label: Label,
        title: str,
        notes: Sequence[str],
        chunks: Sequence[ChunkRow],
        vectors: np.ndarray,
        refusal: tuple[str, str, str] | None = None,
    ) -> None:
        """Store a document and its chunks (or why it is none) in the place of any earlier version of it."""
        with disk_errors(self.folder), self._transaction():
            self._forget(mount, source)
            document = self._db.execute(
                "INSERT INTO documents (mount, source, hash, stat, title, notes, refusal, integrity, readers)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (mount, source, hash, stat, title, json.dumps(list(notes)), refusal and json.dumps(refusal))
                + (int(label.integrity), _readers(label)),
            ).lastrowid
            for c, vector in zip(chunks, vectors, strict=True):
                blob = np.ascontiguousarray(vector, "<f4").tobytes()
                row = (
                    document,
                    c.ordinal,
                    title,
                    c.heading,
                    c.text,
                    c.overlap,
                    c.unit,
                    c.first,
                    c.last,
                    blob,
                )
                id_ = self._db.execute(
                    "INSERT INTO chunks (document, ordinal, title, heading, text, overlap, unit, first, last, vector)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    row,
                ).lastrowid
                self._db.execute(
                    "INSERT INTO words (rowid, title, heading, text) VALUES (?, ?, ?, ?)",
                    (id_, title, c.heading, c.text),
                )
            self._bump()

    def remove_document(self, mount: str, source: str) -> None:
        """Forget a document and all its chunks."""
        with disk_errors(self.folder), self._transaction():
            self._forget(mount, source)
            self._bump()

    def _forget(self, mount: str, source: str) -> None:
        found = self._db.execute(
            "SELECT id FROM documents WHERE mount = ? AND source = ?", (mount, source)
        ).fetchone()
        if found is None:
            return
        self._db.execute(
            "INSERT INTO words (words, rowid, title, heading, text)"
            " SELECT 'delete', id, title, heading, text FROM chunks WHERE document = ?",
            found,
        )
        self._db.execute("DELETE FROM chunks WHERE document = ?", found)
        self._db.execute("DELETE FROM documents WHERE id = ?", found)

    def touch_document(self, id_: int, *, source: str, stat: str, label: Label) -> None:
        """The same content in another place of its mount, under a new time stamp or another label."""
        with disk_errors(self.folder), self._transaction():
            self._db.execute(
                "UPDATE documents SET source = ?, stat = ?, integrity = ?, readers = ? WHERE id = ?",
                (source, stat, int(label.integrity), _readers(label), id_),
            )

    def clear(self) -> None:
        """Forget every document, as when the encoder or the way of chunking has changed."""
        with disk_errors(self.folder), self._transaction():
            self._db.execute("INSERT INTO words (words) VALUES ('delete-all')")
            self._db.execute("DELETE FROM chunks")
            self._db.execute("DELETE FROM documents")
            self._bump()

    def frequencies(self, terms: Sequence[str]) -> dict[str, int]:
        """In how many chunks each term is, counted up to one more than `MATCHES`."""
        query = "SELECT count(*) FROM (SELECT 1 FROM words WHERE words MATCH ? LIMIT ?)"
        with self._lock, disk_errors(self.folder):
            return {
                term: self._db.execute(query, (quoted(term), MATCHES + 1)).fetchone()[0] for term in terms
            }

    def lexical(
        self, frequency: Mapping[str, int], k: int, weights: tuple[float, float, float]
    ) -> dict[int, float]:
        """The k best chunks by BM25 (greater is better) that hold any of the rarer terms.

        FTS5 scores every chunk that holds a term, so common words of a large volume would cost a second and say
        little: the rarest terms are taken, as many as `MATCHES` chunks allow.

        Args:
            frequency: of each term, by `frequencies`.
            weights: of title, heading and text.
        """
        taken = " OR ".join(map(quoted, self._rarest(frequency)))
        if not taken:
            return {}
        query = (
            "SELECT rowid, -bm25(words, ?, ?, ?) FROM words WHERE words MATCH ? ORDER BY 2 DESC, 1 LIMIT ?"
        )
        with self._lock, disk_errors(self.folder):
            return dict(self._db.execute(query, (*weights, taken, k)).fetchall())

    def term_matches(
        self, frequency: Mapping[str, int], ids: Sequence[int], weights: tuple[float, float, float]
    ) -> TermMatches:
        """What each term that `lexical` takes adds to the BM25 of the chunks with these ids."""
        wanted = ",".join(str(int(id_)) for id_ in ids)
        query = f"SELECT rowid, -bm25(words, ?, ?, ?) FROM words WHERE words MATCH ? AND rowid IN ({wanted})"
        with self._lock, disk_errors(self.folder):
            scores = {
                term: dict(self._db.execute(query, (*weights, quoted(term))).fetchall())
                for term in self._rarest(frequency)
            }
            total = self.count()
            judged = {t: n if n <= MATCHES else self._judged(t, total) for t, n in frequency.items()}
            return TermMatches(total, judged, scores)

    def _judged(self, term: str, total: int) -> int:
        """In about how many chunks a common term is, by how close the first ones lie together."""
        first, end = self._db.execute(
            "SELECT (SELECT min(id) FROM chunks), (SELECT max(id) FROM chunks)"
        ).fetchone()
        query = "SELECT count(*), max(rowid) FROM (SELECT rowid FROM words WHERE words MATCH ? LIMIT ?)"
        count, last = self._db.execute(query, (quoted(term), MATCHES + 1)).fetchone()
        return int(min(count * (end - first + 1) // (last - first + 1), total))

    @staticmethod
    def _rarest(frequency: Mapping[str, int]) -> list[str]:
        """The rarest terms that are in `MATCHES` chunks at most, all together."""
        taken: list[str] = []
        room = MATCHES
        for term in sorted(frequency, key=lambda term: frequency[term]):
            room -= frequency[term]
            if room < 0:
                break
            taken.append(term)
        return taken

    def ids(self) -> np.ndarray:
        """All chunk ids, int64, in order."""
        with self._lock, disk_errors(self.folder):
            found = self._db.execute("SELECT id FROM chunks ORDER BY id")
            return np.fromiter((id_ for (id_,) in found), np.int64)

    def vectors(self, ids: Sequence[int]) -> tuple[list[int], np.ndarray]:
        """(ids, their vectors, float32 [N, D]) of those chunks that (still) exist."""
        found: list[int] = []
        vectors = np.zeros((0, 1), np.float32)
        with self._lock, disk_errors(self.folder):
            for id_ in ids:
                row = self._db.execute("SELECT vector FROM chunks WHERE id = ?", (id_,)).fetchone()
                if row is None:
                    continue
                if not found:
                    vectors = np.empty((len(ids), len(row[0]) // 4), np.float32)
                if len(row[0]) != 4 * vectors.shape[1]:
                    raise VolumeError(
                        f"volume {self.folder} is damaged", why="a stored vector has the wrong size",
                        do="remove the folder and mount the documents again",
                    )  # fmt: skip
                vectors[len(found)] = np.frombuffer(row[0], "<f4")
                found.append(id_)
        return found, vectors[: len(found)]

    def beginnings(self, start: int, count: int) -> list[int]:
        """Ids of chunks from number `start` on, the first ones of all documents before the second ones."""
        query = "SELECT id FROM chunks ORDER BY ordinal, id LIMIT ? OFFSET ?"
        with self._lock, disk_errors(self.folder):
            return [id_ for (id_,) in self._db.execute(query, (count, start))]

    def count(self) -> int:
        """Chunks in the volume."""
        with self._lock, disk_errors(self.folder):
            return int(self._db.execute("SELECT count(*) FROM chunks").fetchone()[0])

    def named(self, reference: str) -> list[int]:
        """Ids of the chunks of a document in order, by its name or by a name that begins with it and a comma."""
        query = (
            "SELECT c.id FROM chunks c JOIN documents d ON d.id = c.document WHERE d.source = ?1"
            " OR substr(?1, 1, length(d.source) + 2) = d.source || ', ' ORDER BY d.source, c.ordinal"
        )
        with self._lock, disk_errors(self.folder):
            return [id_ for (id_,) in self._db.execute(query, (reference,))]

    def rows(self, ids: Sequence[int]) -> dict[int, ChunkRow]:
        """The chunks with these ids that (still) exist."""
        query = (
            "SELECT c.id, c.ordinal, c.heading, c.text, c.overlap, c.unit, c.first, c.last, d.source, d.integrity,"
            " d.readers FROM chunks c JOIN documents d ON d.id = c.document WHERE c.id = ?"
        )
        with self._lock, disk_errors(self.folder):
            found = [row for id_ in ids if (row := self._db.execute(query, (id_,)).fetchone())]
        return {
            id_: ChunkRow(
                id_, ordinal, heading, text, overlap, unit, first, last, source, _label(integrity, readers)
            )
            for id_, ordinal, heading, text, overlap, unit, first, last, source, integrity, readers in found
        }


def quoted(term: str) -> str:
    """A term as FTS5 wants it: no character of it can be an operator."""
    return '"' + term.replace('"', '""') + '"'


def _readers(label: Label) -> str | None:
    return None if label.readers is None else json.dumps(sorted(label.readers))


def _label(integrity: int, readers: str | None) -> Label:
    return Label(Integrity(integrity), None if readers is None else frozenset(json.loads(readers)))
