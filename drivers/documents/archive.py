"""Documents that are zip archives (docx, pptx, xlsx, epub), and the libraries that read them.

What: looks at an archive's own table before anything is unpacked, unpacks members within a bound, imports the optional
    libraries with an error that says how to get them.
Invariant: no more than MAX_EXPANDED_BYTES leave an archive, whatever its headers say; nothing is written to disk; a
    member's name is never used as a path.
Interface: `check_archive(data, name)`, `member(archive, name, of)`, `library(module, name)`.
"""

from __future__ import annotations

import importlib
import io
import zipfile
import zlib
from typing import Any

from llmos.abi.errors import DocumentError
from llmos.abi.limits import MAX_EXPANDED_BYTES

_MEMBERS = 10_000  # of an archive


def check_archive(data: bytes, name: str) -> zipfile.ZipFile:
    """The archive, if it is sound and unpacks to a bearable size.

    Raises:
        DocumentError: it is damaged, encrypted or a bomb.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        why = "it is encrypted, or of an older kind" if data.startswith(b"\xd0\xcf\x11\xe0") else str(error)
        raise DocumentError(
            f"{name} cannot be unpacked", why=why, do="save it again, without a password"
        ) from None
    members = archive.infolist()
    size = sum(info.file_size for info in members)
    if len(members) > _MEMBERS or size > MAX_EXPANDED_BYTES:
        raise DocumentError(
            f"{name} is too large",
            why=f"it unpacks to {len(members):,} parts and {size >> 20:,} MiB (a zip bomb, or very long)",
            do="split it into smaller files",
        )
    if any(info.flag_bits & 1 for info in members):
        raise DocumentError(f"{name} is encrypted", do="save it again, without a password")
    return archive


def member(archive: zipfile.ZipFile, path: str, name: str) -> bytes:
    """One part of an archive, no larger than the bound whatever its header says.

    Raises:
        DocumentError: it is not there, damaged or too large.
    """
    try:
        with archive.open(path) as file:
            data = file.read(MAX_EXPANDED_BYTES + 1)
    except (
        KeyError,
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        OSError,
    ) as error:
        raise DocumentError(
            f"{name} is damaged", why=f"its part {path!r} cannot be read ({error})", do="fetch it again"
        ) from None
    if len(data) > MAX_EXPANDED_BYTES:
        raise DocumentError(f"{name} is too large", why=f"its part {path!r} is a bomb, or very long")
    return data


def library(module: str, name: str) -> Any:
    """An optional library, by the name of its module.

    Raises:
        DocumentError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise DocumentError(
            f"{name} cannot be read here", why=f"the library {module} is not installed",
            do="pip install 'llmos[office]', then mount again",
        ) from None  # fmt: skip
