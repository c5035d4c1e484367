"""Files that are there whole or not at all.

What: a file is written beside its place, under a name that no other writer uses, and renamed into it.
Invariant: a reader, another writer, a crash or a full disk meets the old bytes or the new ones.
Interface: `write_whole(path, content)`; `sync(path)`; `UNFINISHED`, how the names of files end that a crash left.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

UNFINISHED = ".new"


def write_whole(
    path: Path,
    content: bytes | Callable[[BinaryIO], object],
    *,
    private: bool = False,
    lasting: bool = True,
) -> int:
    """Write a file in place of what is there; its folder is made. Returns its size in bytes.

    Args:
        content: the bytes, or what writes them into the open file.
        private: nobody but its owner may read it, nor enter a folder made for it.
        lasting: it is on the disk, under its name, when this returns.

    Raises:
        OSError: it cannot be done; what was there is untouched.
    """
    path.parent.mkdir(mode=0o700 if private else 0o777, parents=True, exist_ok=True)
    unfinished = path.with_name(f".{uuid4().hex}{UNFINISHED}")
    try:
        mode = 0o600 if private else 0o666
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            size = file.tell()
            if lasting:
                file.flush()
                os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    if lasting:
        sync(path.parent)
    return size


def sync(path: Path) -> None:
    """Have the disk keep what a file or a folder holds now."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
