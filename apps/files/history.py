"""What files said before they were changed, and under which label they were written.

What: a SQLite file for each volume: a row for each change, with what stood there before, its label and its key.
Invariant: what a change replaces is on the disk before the file is touched. A change takes effect once for each key,
    whatever crashes between. At most `versions` changes a file and `kept` bytes in all: the oldest go first, never the
    last one. A label counts only while the file is the one that was written (its inode, size and time of change,
    which no program can set).
Interface: `History(folder, versions=, kept=)`: `.change(...)`, `.undo(...)`, `.versions(path)`,
    `.content(path, number)`, `.labels()`. Safe from any thread and process.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from llmos.abi.errors import DiskFull
from llmos.abi.labels import Label, dump_label, load_label
from llmos.apps.files.volumes import FilesError
from llmos.drivers.beneath import Beneath, Entry

MAX_FILE = (
    16 << 20
)  # bytes of a file that can be changed: it is kept whole, in memory and then in the history
_BUSY_SECONDS = 10.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS changes (
    row INTEGER PRIMARY KEY AUTOINCREMENT, path TEXT NOT NULL, number INTEGER NOT NULL, key TEXT UNIQUE NOT NULL,
    what TEXT NOT NULL, time REAL NOT NULL, before BLOB, was TEXT NOT NULL,
    after TEXT NOT NULL, label TEXT NOT NULL, reply TEXT NOT NULL, undoes INTEGER NOT NULL,
    done INTEGER NOT NULL DEFAULT 0, undone INTEGER NOT NULL DEFAULT 0, file TEXT NOT NULL DEFAULT '');
CREATE INDEX IF NOT EXISTS changes_path ON changes (path, number);
"""


@dataclass(frozen=True, slots=True)
class Version:
    """What a file said before a change: `size` in bytes, None where there was no file; `time` in seconds since 1970."""

    number: int
    what: str
    time: float
    size: int | None


@dataclass(frozen=True, slots=True)
class Made:
    """What a change makes of a file: its new bytes, None for no file; what is said about it; the label of the bytes;
    the row of the change that it takes back."""

    data: bytes | None
    reply: str
    label: Label
    undoes: int = 0


Make = Callable[[bytes | None, Label], Made]
"""From what a file says now (None where there is none), and its label, to what it shall say."""


class History:
    """The changes of one volume."""

    def __init__(self, folder: Path, *, versions: int, kept: int) -> None:
        self._folder, self._versions, self._kept = folder, versions, kept

    def change(self, files: Beneath, path: str, what: str, key: str, default: Label, make: Make) -> str:
        """Change a file; returns what is said about it. With a key that was used before, nothing is done again.

        Args:
            what: the change in a word.
            default: the label of a file that this app has not written.

        Raises:
            FilesError: the file is too large to be kept, or a lost call met a file that others have changed since.
            DiskFull: there is no room for what would be replaced; nothing was.
        """
        with self._locked(), self._open(change=True) as db:
            return self._change(db, files, path, what, key, default, make)

    def undo(self, files: Beneath, path: str, key: str, default: Label) -> str:
        """Take back the last change that was not taken back yet; FilesError where there is none, or where the file
        is another by now."""
        with self._locked(), self._open(change=True) as db:

            def back(now: bytes | None, _: Label) -> Made:
                row = db.execute(
                    "SELECT * FROM changes WHERE path = ? AND done AND NOT undone AND NOT undoes ORDER BY row DESC",
                    (path,),
                ).fetchone()
                if row is None:
                    raise FilesError(
                        f"{path} has no change to undo", do="`files.versions` lists what is kept"
                    )
                if _hash(now) != row["after"]:
                    raise FilesError(
                        f"{path} was changed by something else since",
                        why="to undo would lose that",
                        do=f"read version {row['number']} of it, and write what you want to keep",
                    )
                said = f"{path} is gone again" if row["before"] is None else f"{path} is as it was before"
                return Made(row["before"], f"{said} ({row['what']} undone)", _label(row["was"]), row["row"])

            return self._change(db, files, path, "undo", key, default, back)

    def versions(self, path: str) -> list[Version]:
        """What is kept of a file, the newest first."""
        if not self._file.exists():
            return []
        with self._open() as db:
            rows = db.execute(
                "SELECT number, what, time, length(before) AS size FROM changes WHERE path = ? AND done "
                "ORDER BY row DESC", (path,)
            ).fetchall()  # fmt: skip
        return [Version(row["number"], row["what"], row["time"], row["size"]) for row in rows]

    def content(self, path: str, number: int) -> bytes:
        """What a file said at a version; FilesError where that is not kept, or there was no file."""
        row = None
        if self._file.exists():
            with self._open() as db:
                row = db.execute(
                    "SELECT before FROM changes WHERE path = ? AND number = ? AND done", (path, number)
                ).fetchone()
        if row is None:
            raise FilesError(f"{path} has no version {number}", do="`files.versions` lists what is kept")
        if row["before"] is None:
            raise FilesError(f"version {number} of {path} is that there was no file")
        return bytes(row["before"])

    def labels(self) -> dict[str, Label]:
        """The labels of files that this app wrote, by what tells such a file from any other (see `mark`)."""
        if not self._file.exists():
            return {}
        with self._open() as db:
            return _labels(db)

    # --- one change ---

    def _change(
        self,
        db: sqlite3.Connection,
        files: Beneath,
        path: str,
        what: str,
        key: str,
        default: Label,
        make: Make,
    ) -> str:
        row = db.execute("SELECT * FROM changes WHERE key = ?", (key,)).fetchone()
        if row is not None and row["done"]:
            return str(row["reply"])
        now, entry = _read(files, path)
        was = default if entry is None else _labels(db).get(mark(entry), default)
        if row is None:
            made = make(now, was)
            self._begin(db, path, what, key, was, now, made)
        elif _hash(now) not in (row["after"], _hash(row["before"])):
            raise FilesError(f"{path} was changed by others since this call began", do="look at it first")
        else:  # a crash came between; the file says which of its two states it is in
            made = make(row["before"], _label(row["was"]))
        entry = _put(files, path, made, now)
        with db:
            db.execute("UPDATE changes SET file = '' WHERE path = ?", (path,))
            db.execute(
                "UPDATE changes SET done = 1, file = ? WHERE key = ?",
                ("" if entry is None else mark(entry), key),
            )
            db.execute("UPDATE changes SET undone = 1 WHERE row = ?", (made.undoes,))
            self._prune(db, path)
        return made.reply

    def _begin(
        self,
        db: sqlite3.Connection,
        path: str,
        what: str,
        key: str,
        was: Label,
        before: bytes | None,
        made: Made,
    ) -> None:
        if made.data is not None and len(made.data) > MAX_FILE:
            raise FilesError(
                f"{path} would have {len(made.data)} bytes", why=f"at most {MAX_FILE} can be changed"
            )
        last = db.execute("SELECT max(number) AS number FROM changes WHERE path = ?", (path,)).fetchone()
        with db:
            db.execute(
                "INSERT INTO changes (path, number, key, what, time, before, was, after, label, reply, undoes) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    path, (last["number"] or 0) + 1, key, what, time.time(), before, _dump(was),
                    _hash(made.data), _dump(made.label), made.reply, made.undoes,
                ),
            )  # fmt: skip

    def _prune(self, db: sqlite3.Connection, path: str) -> None:
        """Let the oldest versions go, first of this file, then of all. An undo takes no place from a change."""
        for kind in ("undoes", "NOT undoes"):
            db.execute(
                f"DELETE FROM changes WHERE path = ?1 AND {kind} AND row NOT IN "
                f"(SELECT row FROM changes WHERE path = ?1 AND {kind} ORDER BY row DESC LIMIT ?2)",
                (path, self._versions),
            )
        rows = db.execute("SELECT row, length(before) AS size FROM changes ORDER BY row DESC").fetchall()
        kept = 0
        for at, row in enumerate(rows):
            kept += row["size"] or 0
            if at and kept > self._kept:
                db.execute("DELETE FROM changes WHERE row <= ?", (row["row"],))
                break

    # --- the file ---

    @property
    def _file(self) -> Path:
        return self._folder.absolute() / "history.db"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One change at a time, whoever makes it."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    @contextmanager
    def _open(self, *, change: bool = False) -> Iterator[sqlite3.Connection]:
        try:
            mode = "rwc" if change else "ro"
            db = sqlite3.connect(f"{self._file.as_uri()}?mode={mode}", timeout=_BUSY_SECONDS, uri=True)
            try:
                db.row_factory = sqlite3.Row
                if change:
                    db.execute("PRAGMA synchronous=FULL")
                    db.executescript(_SCHEMA)
                yield db
            finally:
                db.close()
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
                raise DiskFull(
                    "no room for earlier versions of files", do="make room and try again"
                ) from None
            raise FilesError(
                "the history of files cannot be used", why=str(error), do=f"look at {self._file}"
            ) from None


def mark(entry: Entry) -> str:
    """What tells a file as it was written from one that anybody has touched since."""
    return f"{entry.inode} {entry.size} {entry.changed}"


def _labels(db: sqlite3.Connection) -> dict[str, Label]:
    rows = db.execute("SELECT file, label FROM changes WHERE file != '' ORDER BY row")
    return {row["file"]: _label(row["label"]) for row in rows}


def _label(text: str) -> Label:
    return load_label(json.loads(text))


def _dump(label: Label) -> str:
    return json.dumps(dump_label(label))


def _read(files: Beneath, path: str) -> tuple[bytes | None, Entry | None]:
    entry = files.look(path)
    if entry is None:
        return None, None
    if entry.kind == "file" and entry.size > MAX_FILE:
        raise FilesError(
            f"{path} has {entry.size} bytes",
            why=f"what a change replaces is kept, up to {MAX_FILE} bytes",
            do="write to another file",
        )
    return files.read(path, MAX_FILE), entry


def _put(files: Beneath, path: str, made: Made, now: bytes | None) -> Entry | None:
    if made.data is None:
        if now is not None:
            files.remove(path)
        return None
    return files.write(path, made.data)


def _hash(data: bytes | None) -> str:
    return "" if data is None else hashlib.sha256(data).hexdigest()
