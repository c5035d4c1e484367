"""Where an app's pictures and recordings come from and go to.

What: files of the caller's working volume; a `data:` URL for callers that have none.
Invariant: no path leads out of the volume (`drivers.beneath`); no other URL is ever opened.
Interface: `load(call, source)`, `store(call, path, data)`.
"""

from __future__ import annotations

import base64
import binascii
import re

from llmos.abi.app import Call
from llmos.abi.limits import MAX_DOCUMENT_BYTES
from llmos.drivers.beneath import Beneath
from llmos.drivers.media.errors import MediaError

_DATA = re.compile(r"data:[\w.+/-]*(?:;[\w=.+-]+)*;base64,", re.IGNORECASE)


def load(call: Call, source: str) -> bytes:
    """The bytes of a file in the working volume, or of a `data:` URL.

    Raises:
        PathError: no such file, or a path that leads out.
        MediaError: no working volume, or a URL.
    """
    if found := _DATA.match(source):
        try:
            return base64.b64decode(source[found.end() :], validate=True)
        except (binascii.Error, ValueError):
            raise MediaError(
                "the data: URL is garbled", why="it is not base64", do="encode it again"
            ) from None
    if re.match(r"[a-z][a-z0-9+.-]*:", source, re.IGNORECASE):
        raise MediaError(
            f"{source[:80]!r} is not opened", why="only files of the working volume are",
            do="download it there first",
        )  # fmt: skip
    with _volume(call) as volume:
        return volume.read(source, MAX_DOCUMENT_BYTES)


def store(call: Call, path: str, data: bytes) -> None:
    """Put a file into the working volume, whole or not at all; errors as `load`, and DiskFull."""
    with _volume(call) as volume:
        volume.write(path, data)


def _volume(call: Call) -> Beneath:
    if call.volume is None:
        raise MediaError(
            "there is no working volume", why="the caller has none", do="pass a picture as a data: URL"
        )
    return Beneath(call.volume)
