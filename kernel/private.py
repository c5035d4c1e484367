"""State of kernels that run for one command: a folder each, which goes with them.

What: makes such a folder, and clears it away afterwards; also those of kernels that were killed.
Invariant: what the user thought of a turn is never cleared away, for it is there to learn from. A folder that a
    kernel still owns is left alone.
Interface: `folder_in(state)`, `clear(folder)`.
"""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

from llmos.abi.errors import JournalError
from llmos.kernel.journal import read
from llmos.kernel.journal.owner import Owner
from llmos.kernel.journal.records import Feedback

KEPT = 16  # folders of kernels that were killed: for whoever wants to look what happened


def folder_in(state: Path) -> Path:
    """A fresh folder under `state`; the oldest that killed kernels left are cleared away."""
    private = state / "private"
    if private.exists():
        for old in sorted(private.iterdir(), key=lambda folder: folder.stat().st_mtime)[:-KEPT]:
            _sweep(old)
    return private / secrets.token_hex(8)


def clear(folder: Path) -> None:
    """Remove a folder whose kernel is gone, unless somebody judged a turn there. Idempotent."""
    try:
        if any(True for _ in read(folder, kinds=[Feedback])):
            return
    except JournalError:
        pass  # nothing in it can be read
    shutil.rmtree(folder, ignore_errors=True)


def _sweep(folder: Path) -> None:
    try:
        Owner(folder).release()
    except (JournalError, OSError):  # a kernel runs there
        return
    clear(folder)
