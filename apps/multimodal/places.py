"""Where an app's pictures and recordings come from and go to.

What: files of the caller's working volume and of the folders that the machine's owner has opened (`/photos/cat.jpg`),
    as the app `files` names them; a `data:` URL for callers that have neither.
Invariant: no path leads out (`drivers.beneath`), and no other URL is ever opened.
Interface: `load(call, source)`, `store(call, path, data)`.
"""

from __future__ import annotations

import base64
import binascii
import re
from functools import cache

from llmos.abi.app import Call
from llmos.abi.limits import MAX_DOCUMENT_BYTES
from llmos.abi.settings import settings
from llmos.apps.files.volumes import Settings, Volumes
from llmos.drivers.beneath import Beneath
from llmos.drivers.media.errors import MediaError

_DATA = re.compile(r"data:[\w.+/-]*(?:;[\w=.+-]+)*;base64,", re.IGNORECASE)


def load(call: Call, source: str) -> bytes:
    """The bytes of a file in the working volume, or of a `data:` URL.

    Raises:
        PathError: no such file, or a path that leads out.
        FilesError: no such folder, or no working volume.
        MediaError: a URL.
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
    place = _volumes().place(call, source)
    with Beneath(place.folder) as folder:
        return folder.read(place.path, MAX_DOCUMENT_BYTES)


def store(call: Call, path: str, data: bytes) -> None:
    """Put a file there, whole or not at all; errors as `load`, and DiskFull."""
    place = _volumes().place(call, path)
    if not place.writable:
        raise MediaError(
            f"{path} may not be written",
            why="its folder was opened for reading",
            do="name a file without a /",
        )
    with Beneath(place.folder) as folder:
        folder.write(place.path, data)


@cache
def _volumes() -> Volumes:
    return Volumes(settings("files", Settings))
