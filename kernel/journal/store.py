"""The SQLite file of the journal: all SQL is here.

What: records with their hashes, the gaps that pruning and losses left, snapshots; schema and migrations.
Invariant: entries (records and gaps) cover 1 … last without holes or overlap, each change is one transaction, and
    a commit returns when it is on the disk (WAL, synchronous=FULL). Checkpoints happen only when asked for, so
    that a commit never waits for one.
Interface: `Store(path)` for the one writer, `Store(path, write=False)` for any reader; errors are ours (`disk_errors`).

There is no index by pid: 32 processes a step would touch 32 index pages a commit, and a scan of the bounded log is
quick enough for the rare reader of one process.
"""

from __future__ import annotations

import contextlib
import errno
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llmos.abi.errors import DiskFull, JournalDamaged, JournalError
from llmos.kernel.journal.chain import GENESIS, Link, Row, link
from llmos.kernel.journal.records import Feedback, decode

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE records (
        seq INTEGER PRIMARY KEY, time INTEGER NOT NULL, pid INTEGER NOT NULL, kind TEXT NOT NULL,
        body BLOB NOT NULL, hash BLOB NOT NULL);
    CREATE INDEX feedback ON records (pid) WHERE kind = 'feedback';
    CREATE TABLE gaps (
        first INTEGER PRIMARY KEY, last INTEGER NOT NULL, before BLOB NOT NULL, after BLOB NOT NULL,
        why TEXT NOT NULL);
    CREATE TABLE snapshots (seq INTEGER PRIMARY KEY, hash BLOB NOT NULL, state BLOB NOT NULL, digest BLOB NOT NULL);
    """,
)
"""Script n takes the schema from version n to n + 1. Scripts may add tables and columns; they never touch a body."""

APPLICATION = 0x6C6C6D6F  # "llmo", so that `file` and we know the file from others
_MOST_VERSIONS = 1000
CHECKPOINT_PAGES = 1000  # of the WAL: 4 MiB, then it is written back
# What SQLite says of bytes that it did not write: 0 is text that is no UTF-8, ERROR a table that is not there.
_DAMAGE = (0, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_BUSY_SECONDS = 10.0
_READ_ROWS = 1000  # rows a query: a slow reader never pins the WAL


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """SQLite's and the file system's failures as our errors."""
    try:
        yield
    except sqlite3.Error as error:
        extended = getattr(error, "sqlite_errorcode", None) or 0
        if extended & 0xFF == sqlite3.SQLITE_FULL:
            raise _full(path) from None
        why = f"{error} ({getattr(error, 'sqlite_errorname', 'text that is no text')})"
        closed = isinstance(error, sqlite3.ProgrammingError)
        if not closed and (extended & 0xFF in _DAMAGE or extended == sqlite3.SQLITE_IOERR_SHORT_READ):
            raise JournalDamaged(
                f"the journal {path} is damaged", why=why,
                do="stop the kernel and start it again: it keeps what is good and sets the rest aside",
            ) from None  # fmt: skip
        raise JournalError(
            f"the journal {path} cannot be used", why=why, do="check the disk, the folder and its permissions"
        ) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(path) from None
        raise JournalError(
            f"the journal {path} cannot be used", why=error.strerror or str(error),
            do="check the disk, the folder and its permissions",
        ) from None  # fmt: skip


def _full(path: Path) -> DiskFull:
    return DiskFull(
        f"no room for the journal {path}",
        why="the disk is full; what was written is whole, and nothing is delivered that is not written",
        do="free some space: it goes on by itself",
    )


@dataclass(frozen=True, slots=True)
class Gap:
    """Records first … last are not here; the chain went in with hash `before` and comes out with `after`."""

    first: int
    last: int
    before: bytes
    after: bytes
    why: Literal["pruned", "lost"]


@dataclass(frozen=True, slots=True)
class StoredSnapshot:
    """The JSON of a state, the place in the chain that it is of, and the digest of all that."""

    at: Link
    state: bytes
    digest: bytes


def check_version(db: sqlite3.Connection, known: int = len(MIGRATIONS), *, ours: bool = False) -> int:
    """The schema's version; 0 of a file that holds nothing yet.

    Args:
        ours: other files say that this is a journal, so another program's mark on it is damage.

    Raises:
        JournalError: the file is another program's, or a later version's.
    """
    application, version = _number(db, "PRAGMA application_id"), _number(db, "PRAGMA user_version")
    marked = application == APPLICATION
    if not 0 <= version <= _MOST_VERSIONS or (ours and version and not marked):
        raise JournalDamaged(
            "the journal is damaged", why=f"it is marked {application:#x}, version {version}"
        )
    if version > known or (version and not marked):
        raise JournalError(
            f"the journal has schema {version}" if marked else "the file is not a journal",
            why=f"this version of llmos reads schemas up to {known}"
            if marked
            else "another program wrote it",
            do="use the version that wrote it, or another state folder",
        )
    return version


def migrate(db: sqlite3.Connection, scripts: Sequence[str] = MIGRATIONS) -> None:
    """Bring the schema up to date, one transaction a version.

    Raises:
        JournalError: the file is another program's, or a later version's.
    """
    version = check_version(db, len(scripts))
    for number in range(version, len(scripts)):
        db.execute("BEGIN IMMEDIATE")
        with _rolled_back(db):
            for statement in scripts[number].split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION}")
            db.execute(f"PRAGMA user_version = {number + 1}")
            db.execute("COMMIT")


@contextlib.contextmanager
def _rolled_back(db: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _judged(pid: int, body: object) -> list[tuple[int, int]]:
    if not isinstance(body, Feedback):
        return []
    return [(pid, body.turn)] + ([] if body.over is None else [(body.of or pid, body.over)])


_ROW = (int, int, int, str, bytes, bytes)
_GAP = (int, int, bytes, bytes, str)
_SNAPSHOT = (int, bytes, bytes, bytes)


def _check(path: Path, values: tuple[Any, ...], types: tuple[type, ...]) -> tuple[Any, ...]:
    """The values, if they have the types that are stored; SQLite gives back whatever damage left there."""
    if tuple(map(type, values)) != types:
        raise JournalDamaged(
            f"the journal {path} is damaged", why=f"no such thing was ever written: {values!r:.99}",
            do="stop the kernel and start it again: it keeps what is good and sets the rest aside",
        )  # fmt: skip
    return values


def _number(db: sqlite3.Connection, query: str) -> int:
    return int(db.execute(query).fetchone()[0])


class Store:
    """One connection. A writer belongs to whoever owns the folder; readers are free. One thread at a time."""

    def __init__(self, path: Path, *, write: bool = True) -> None:
        self.path = path
        with disk_errors(path):
            if write:
                path.touch(0o600)
            mode = "rw" if write else "ro"
            self._db = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode={mode}",
                uri=True,
                isolation_level=None,
                timeout=_BUSY_SECONDS,
                check_same_thread=False,
            )
        try:
            with disk_errors(path):
                if write:
                    for pragma in ("journal_mode = WAL", "synchronous = FULL", "wal_autocheckpoint = 0"):
                        self._db.execute(f"PRAGMA {pragma}")
                    migrate(self._db)
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the connection; the last one to close writes the WAL back."""
        with disk_errors(self.path):
            self._db.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, and on the disk when it ends."""
        with disk_errors(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            with _rolled_back(self._db):
                yield
                self._commit()

    def _commit(self) -> None:
        self._db.execute("COMMIT")

    # --- records and gaps -------------------------------------------------------------------------------------

    def version(self, *, ours: bool) -> int:
        """The schema's version; see `check_version`."""
        with disk_errors(self.path):
            return check_version(self._db, ours=ours)

    def count(self, after: int) -> int:
        """How many records lie after `after`."""
        with disk_errors(self.path):
            return int(self._db.execute("SELECT count(*) FROM records WHERE seq > ?", (after,)).fetchone()[0])

    def hash_at(self, seq: int) -> bytes:
        """The chain's hash after an entry that ends at `seq`."""
        with disk_errors(self.path):
            row = self._db.execute("SELECT hash FROM records WHERE seq = ?", (seq,)).fetchone()
        if row:
            return bytes(row[0])
        gap = self.gap_to(seq)
        return gap.after if gap else GENESIS.hash

    def gap_to(self, last: int) -> Gap | None:
        """The gap that ends with `last`."""
        return next((gap for gap in self.gaps() if gap.last == last), None)

    def last(self) -> Link:
        """The last entry's place in the chain."""
        with disk_errors(self.path):
            ends = [GENESIS]
            for query in (
                "SELECT seq, hash FROM records ORDER BY seq DESC LIMIT 1",
                "SELECT last, after FROM gaps ORDER BY first DESC LIMIT 1",
            ):
                ends += [Link(seq, bytes(hash)) for seq, hash in self._db.execute(query)]
            return max(ends, key=lambda end: end.seq)

    def append(self, end: Link, rows: Sequence[Row]) -> Link:
        """Add rows after `end` in one transaction; the new end."""
        hash, values = end.hash, []
        for row in rows:
            hash = link(hash, row)
            values.append((*row, hash))
        with self.transaction():
            self._db.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)", values)
        return Link(rows[-1].seq, hash)

    def put(self, row: Row, hash: bytes) -> None:
        """Add a row with the hash that it has, within a transaction of the caller's."""
        self._db.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)", (*row, hash))

    def rows(
        self, *, after: int = 0, until: int | None = None, pid: int | None = None, kinds: Sequence[str] | None = None
    ) -> Iterator[tuple[Row, bytes]]:  # fmt: skip
        """Rows and their hashes with after < seq <= until, in order."""
        where, values = "seq > ? AND seq <= ?", list[object]()
        if pid is not None:
            where += " AND pid = ?"
            values.append(pid)
        if kinds is not None:
            where += f" AND kind IN ({','.join('?' * len(kinds))})"
            values += kinds
        query = f"SELECT seq, time, pid, kind, body, hash FROM records WHERE {where} ORDER BY seq LIMIT ?"
        until = (1 << 63) - 1 if until is None else until
        while True:
            found: list[tuple[Row, bytes]] = []
            try:
                with disk_errors(self.path):
                    for *fields, hash in self._db.execute(query, (after, until, *values, _READ_ROWS)):
                        _check(self.path, (*fields, hash), _ROW)
                        found.append((Row(*fields), hash))
            except JournalDamaged:
                yield from found  # what could be read before the damage
                raise
            yield from found
            if len(found) < _READ_ROWS:
                return
            after = found[-1][0].seq

    def gaps(self) -> list[Gap]:
        """All gaps, in order."""
        with disk_errors(self.path):
            rows = self._db.execute("SELECT first, last, before, after, why FROM gaps ORDER BY first")
            return [Gap(*_check(self.path, row, _GAP)) for row in rows]

    def put_gap(self, gap: Gap) -> None:
        """Note a gap, within a transaction of the caller's."""
        self._db.execute(
            "INSERT OR REPLACE INTO gaps VALUES (?, ?, ?, ?, ?)", (gap.first, gap.last, gap.before, gap.after, gap.why)
        )  # fmt: skip

    def remove(self, first: int, last: int) -> None:
        """Remove the rows first … last, within a transaction of the caller's; it owes a gap for them."""
        self._db.execute("DELETE FROM records WHERE seq BETWEEN ? AND ?", (first, last))

    def turns_with_feedback(self) -> set[tuple[int, int]]:
        """(pid, turn) of every turn that somebody judged."""
        return {
            judged
            for row, _ in self.rows(kinds=("feedback",))
            for judged in _judged(row.pid, decode(row.kind, row.body))
        }

    # --- snapshots --------------------------------------------------------------------------------------------

    def snapshots(self) -> list[StoredSnapshot]:
        """All snapshots, the newest first."""
        with disk_errors(self.path):
            rows = self._db.execute("SELECT seq, hash, state, digest FROM snapshots ORDER BY seq DESC")
            checked = [_check(self.path, row, _SNAPSHOT) for row in rows]
        return [StoredSnapshot(Link(seq, hash), state, digest) for seq, hash, state, digest in checked]

    def put_snapshot(self, snapshot: StoredSnapshot) -> None:
        """Keep a snapshot, within a transaction of the caller's."""
        values = (snapshot.at.seq, snapshot.at.hash, snapshot.state, snapshot.digest)
        self._db.execute("INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?, ?)", values)

    def drop_snapshots(self, keep: int) -> None:
        """Keep the newest `keep`, within a transaction of the caller's."""
        self._db.execute(
            "DELETE FROM snapshots WHERE seq NOT IN (SELECT seq FROM snapshots ORDER BY seq DESC LIMIT ?)", (keep,)
        )  # fmt: skip

    # --- the file ---------------------------------------------------------------------------------------------

    def size(self) -> int:
        """Bytes that hold something; what was removed is used again before the file grows."""
        with disk_errors(self.path):
            pages = _number(self._db, "PRAGMA page_count") - _number(self._db, "PRAGMA freelist_count")
            return pages * _number(self._db, "PRAGMA page_size")

    def checkpoint(self, pages: int = CHECKPOINT_PAGES) -> None:
        """Write the WAL back into the database when it holds at least so many pages."""
        wal = self.path.with_name(self.path.name + "-wal")
        if wal.exists() and wal.stat().st_size >= pages * 4096:
            with disk_errors(self.path):
                self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
