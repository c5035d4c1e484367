"""KV in files: safetensors that say whether they are whole.

What: tensors of bytes and a text about them, with a digest over all of it in the header; of pages, and of whatever else
    has to be believed when it is read.
Invariant: a file is written whole or not at all, under a name that no other writer uses until it is; what is read is
    what was written, or `Damaged`. Two kernels may share a folder: equal names mean equal bytes.
Interface: `write(path, key, page) -> size`, `read(path, key) -> page`; `seal`, `unseal`; `Damaged`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from llmos.drivers.whole import write_whole

Page = NDArray[np.uint8]
"""The bytes of a page, flat."""


class Damaged(Exception):
    """The file is not what was written."""


def write(path: Path, key: bytes, page: Page) -> int:
    """Write a page; the size of its file. OSError where that cannot be done: then nothing is left."""
    return write_whole(path, seal({"page": page}, key.hex()), private=True, lasting=False)


def read(path: Path, key: bytes) -> Page:
    """What was written there under `key`.

    Raises:
        Damaged: the file is short, has other bytes, or is another page's.
        OSError: it cannot be read.
    """
    tensors, about = unseal(path.read_bytes())
    if about != key.hex() or "page" not in tensors:
        raise Damaged("it is another page's")
    return tensors["page"]


def seal(tensors: Mapping[str, NDArray[np.uint8]], about: str) -> bytes:
    """A file's bytes."""
    return save(dict(tensors), {"about": about, "digest": _digest(tensors, about)})


def unseal(blob: bytes) -> tuple[dict[str, NDArray[np.uint8]], str]:
    """What `seal` was given; Damaged."""
    try:
        tensors = load(blob)
        header = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])["__metadata__"]
        about, digest = str(header["about"]), header["digest"]
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise Damaged("it is not a whole file of ours") from error
    if digest != _digest(tensors, about):
        raise Damaged("its bytes are not those that were written")
    return tensors, about


def _digest(tensors: Mapping[str, NDArray[np.uint8]], about: str) -> str:
    digest = blake2b(about.encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\0{name} {tensor.dtype} {tensor.shape}\0".encode())
        digest.update(np.ascontiguousarray(tensor).data)
    return digest.hexdigest()
