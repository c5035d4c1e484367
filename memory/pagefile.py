"""A page of KV as a file.

What: safetensors with one tensor of bytes, and a digest over key and bytes in its header.
Invariant: a file is written whole or not at all, under a name that no other writer uses until it is; what is read is
    what was written under that key, or `Damaged`. Two kernels may share a folder: equal names mean equal bytes.
Interface: `write(path, key, page) -> bytes`, `read(path, key) -> page`, `Damaged`.
"""

from __future__ import annotations

import json
import os
from hashlib import blake2b
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

Page = NDArray[np.uint8]
"""The bytes of a page, flat."""

TEMPORARY = ".new"
_HEADER = 4096  # bytes: far more than any of ours has


class Damaged(Exception):
    """The file is not what was written."""


def write(path: Path, key: bytes, page: Page) -> int:
    """Write a page; the size of its file. OSError where that cannot be done: then nothing is left."""
    blob = save({"page": page}, {"digest": _digest(key, page)})
    temporary = path.with_name(f"{path.name}.{uuid4().hex}{TEMPORARY}")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(blob)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return len(blob)


def read(path: Path, key: bytes) -> Page:
    """What was written there under `key`.

    Raises:
        Damaged: the file is short, has other bytes, or is another page's.
        OSError: it cannot be read.
    """
    blob = path.read_bytes()
    try:
        length = int.from_bytes(blob[:8], "little")
        if not 0 < length <= _HEADER:
            raise ValueError
        header: Any = json.loads(blob[8 : 8 + length])
        digest = header["__metadata__"]["digest"]
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged("its header is not a page's") from error
    page = (
        np.frombuffer(blob, np.uint8, offset=8 + length) if len(blob) > 8 + length else np.empty(0, np.uint8)
    )
    if digest != _digest(key, page):
        raise Damaged("its bytes are not those that were written")
    return page


def _digest(key: bytes, page: Page) -> str:
    return blake2b(page.data, digest_size=16, key=key).hexdigest()
