"""Who owns a state folder.

What: a lock on the folder's `journal.lock`, which holds the owner's pid for people to read.
Invariant: one owner a folder. The lock belongs to the open file, so it ends with its process, however that ends.
Interface: `Owner(folder)`, `.release()`. A child made by a bare fork shares the lock: exec or close it there.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from llmos.abi.errors import JournalInUse

FILE = "journal.lock"


class Owner:
    """Holds the folder from construction to `release`.

    Raises:
        JournalInUse: another kernel holds it.
    """

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            written = os.pread(self._file, 32, 0).strip()
            pid = int(written) if written.isdigit() else 0
            os.close(self._file)
            raise JournalInUse(
                f"the state folder {folder} is in use",
                why=f"a kernel runs there as process {pid}" if pid else "another kernel is starting there",
                do="attach to it, stop it (`llmos down`), or give this one a state folder of its own (LLMOS_STATE)",
                pid=pid,
            ) from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let the next one in."""
        os.ftruncate(self._file, 0)
        os.close(self._file)
