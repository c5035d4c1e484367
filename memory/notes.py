"""Notes that outlive a process: what it was told to keep, for its expert and its user.

What: a SQLite file of short texts with where they came from and their labels, searched by meaning and words.
Invariant: a note has the label of everything that was read when it was written, and is given back under it: what is
    untrusted stays so. A note is written once for each key, whatever crashes between. Nobody sees another expert's
    or another user's notes.
Interface: `Notes(path, encode)`; `.add(note, key=)`, `.search(query, expert=, user=, k=)`, `.get(number, …)`,
    `.forget(number, …)`, `.close()`; `Note`. Thread-safe.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from llmos.abi.errors import VolumeError
from llmos.abi.labels import Label, dump_label, load_label
from llmos.memory.disk import BUSY_SECONDS, disk_errors
from llmos.memory.history import Encode, History

MAX_NOTE = 4000  # characters
MAX_NOTES = 10_000  # of one expert and user
_SCHEMA = """
CREATE TABLE IF NOT EXISTS notes (
    number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT UNIQUE NOT NULL, expert TEXT NOT NULL, user TEXT NOT NULL,
    text TEXT NOT NULL, label TEXT NOT NULL, origin TEXT NOT NULL, time REAL NOT NULL);
CREATE INDEX IF NOT EXISTS notes_owner ON notes (expert, user);
"""


@dataclass(frozen=True, slots=True)
class Note:
    """A note; `origin` says which process wrote it, in which turn. `number` is 0 before it is stored."""

    text: str
    label: Label
    origin: str
    expert: str = ""
    user: str = ""
    number: int = 0
    time: float = 0.0


class Notes:
    """All notes of a machine."""

    def __init__(self, path: Path, encode: Callable[[], Encode | None]) -> None:
        """`encode` gives the encoder when it is first needed."""
        self._path, self._encode = path, encode
        self._history: History | None = None
        self._lock = threading.Lock()
        with self._errors():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            for pragma in ("journal_mode=WAL", "synchronous=FULL"):
                self._db.execute(f"PRAGMA {pragma}")
            self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def add(self, note: Note, *, key: str) -> Note:
        """Keep a note; one that has been kept under this key is given back as it was.

        Raises:
            VolumeError: it is empty or too long, or there are too many.
        """
        text = note.text.strip()
        if not text or len(text) > MAX_NOTE:
            raise VolumeError(
                "a note holds some text" if not text else f"a note of {len(text):,} characters is too long",
                why=f"notes are for facts worth keeping, at most {MAX_NOTE:,} characters", do="write what matters",
            )  # fmt: skip
        owner = (note.expert, note.user)
        with self._lock, self._errors():
            if (known := self._one("key = ?", key)) is not None:
                return known
            (count,) = self._db.execute(
                "SELECT count(*) FROM notes WHERE expert = ? AND user = ?", owner
            ).fetchone()
            if count >= MAX_NOTES:
                raise VolumeError(f"there are {count:,} notes already", do="forget some")
            self._db.execute(
                "INSERT INTO notes (key, expert, user, text, label, origin, time) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    key,
                    *owner,
                    text,
                    json.dumps(dump_label(note.label)),
                    note.origin,
                    note.time or time.time(),
                ),
            )
            kept = self._one("key = ?", key)
        assert kept is not None
        return kept

    def search(self, query: str, *, expert: str = "", user: str = "", k: int = 5) -> list[Note]:
        """The k notes that bear most on a query, best first; the newest where it is empty."""
        with self._lock, self._errors():
            found = self._all("expert = ? AND user = ? ORDER BY number DESC", expert, user)
            if not query.strip() or not found:
                return found[:k]
            self._history = self._history or History(self._encode())
            values = self._history.relevance(query, [note.text for note in found])
        ranked = sorted(range(len(found)), key=lambda i: (-values[i], i))
        return [found[i] for i in ranked[:k]]

    def get(self, number: int, *, expert: str = "", user: str = "") -> Note | None:
        """A note by its number; None where it is not there, or another's."""
        with self._lock, self._errors():
            return self._one("number = ? AND expert = ? AND user = ?", number, expert, user)

    def forget(self, number: int, *, expert: str = "", user: str = "") -> bool:
        """Remove a note; whether there was one."""
        with self._lock, self._errors():
            done = self._db.execute(
                "DELETE FROM notes WHERE number = ? AND expert = ? AND user = ?", (number, expert, user)
            )
            return done.rowcount > 0

    def _errors(self) -> AbstractContextManager[None]:
        return disk_errors(
            self._path,
            "the file of notes",
            "move it away, or put a copy of it back: no other file has what it says",
        )

    def _one(self, where: str, *values: object) -> Note | None:
        return next(iter(self._all(where, *values)), None)

    def _all(self, where: str, *values: object) -> list[Note]:
        rows = self._db.execute(
            f"SELECT text, label, origin, expert, user, number, time FROM notes WHERE {where}", values
        )
        return [replace(Note(*row), label=load_label(json.loads(row[1]))) for row in rows]
