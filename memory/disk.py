"""What SQLite and the file system say of a volume, as errors of ours.

What: one context manager around everything that touches a volume's folder.
Invariant: a full disk is DiskFull, everything else VolumeError; a database that another process holds is locked,
    one that may not be opened cannot be opened, and only what SQLite cannot read is damaged.
Interface: `disk_errors(folder)`; `BUSY_SECONDS`, how long SQLite waits for another process.
"""

from __future__ import annotations

import contextlib
import errno
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from llmos.abi.errors import DiskFull, VolumeError

BUSY_SECONDS = 10.0
REMAKE = "remove the folder and mount the documents again: everything in it was made from them"  # a volume


@contextlib.contextmanager
def disk_errors(place: Path, what: str = "volume", mend: str = REMAKE) -> Iterator[None]:
    """SQLite's and the file system's failures as our errors.

    Args:
        what: lies at `place`.
        mend: what to do where it is damaged.
    """
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        primary = None if code is None else code & 0xFF
        if primary == sqlite3.SQLITE_FULL:
            raise _full(what, place) from None
        if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise VolumeError(
                f"{what} {place} is locked", why=f"another process has been writing for {BUSY_SECONDS:.0f} s",
                do="wait for it, or end it",
            ) from None  # fmt: skip
        if primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            raise VolumeError(
                f"{what} {place} cannot be opened",
                why=str(error),
                do="check that the folder exists and is writable",
            ) from None
        raise VolumeError(
            f"{what} {place} is damaged", why=str(error), do=mend,
        ) from None  # fmt: skip
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(what, place) from None
        raise VolumeError(
            f"{what} {place} cannot be used",
            why=error.strerror or str(error),
            do="check the folder and its permissions",
        ) from None


def _full(what: str, place: Path) -> DiskFull:
    return DiskFull(
        f"no room for {what} {place}", why="the disk is full; what was stored before is whole",
        do="free some space and do it again: it goes on where it stopped",
    )  # fmt: skip
