"""Files as text: some of their lines, and where words stand in them.

What: reads lines by number from files of any size, and searches names and lines, without regular expressions.
Invariant: bounded in memory whatever a file holds: a line is read in pieces of at most `MAX_LINE` bytes. What is left
    out is said. What is not text is a FilesError that says what it is.
Interface: `lines(file, first, count)`, `search(files, folder, words, names, stopped)`, `decoded(data, name)`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import BinaryIO

from llmos.apps.files.volumes import FilesError
from llmos.drivers.beneath import Beneath, PathError

MAX_LINE = 64 << 10  # bytes of a line that are read as one; a longer one counts as several
MAX_TEXT = 32 << 10  # characters that one reading gives
MAX_SEARCHED = 64 << 20  # bytes that one search reads
MAX_FILES = 10_000  # files that one search looks at
MAX_FOUND = 50  # lines that one search gives
SHOWN = 200  # characters of a line that was found

_KINDS = {
    b"%PDF": "a PDF", b"\x89PNG": "a PNG picture", b"\xff\xd8\xff": "a JPEG picture", b"GIF8": "a GIF picture",
    b"PK\x03\x04": "a ZIP archive or an office document", b"\x1f\x8b": "compressed by gzip", b"RIFF": "audio or video",
    b"\x7fELF": "a program", b"SQLite format 3": "a database", b"ID3": "audio", b"OggS": "audio",
}  # fmt: skip


@dataclass(slots=True)
class Lines:
    """Lines of a file, and whether more follow."""

    lines: list[str]
    more: bool


def lines(file: BinaryIO, name: str, first: int, count: int) -> Lines:
    """`count` lines from number `first` on, fewer where they are long; FilesError where it is not text."""
    if kind := binary(file.read(4096)):
        raise FilesError(f"{name} is not text", why=f"it is {kind}", do="use an app that reads such files")
    file.seek(0)
    found: list[str] = []
    size = 0
    for number, raw in enumerate(_raw(file), 1):
        if number < first:
            continue
        if len(found) == count or (found and size + len(raw) > MAX_TEXT):
            return Lines(found, True)
        text = decoded(raw, name)
        found.append(text)
        size += len(text)
    return Lines(found, False)


def _raw(file: BinaryIO) -> Iterator[bytes]:
    """Lines without their ends; a longer one in pieces, none of which breaks a letter."""
    begin = file.read(3)
    file.seek(3 if begin == b"\xef\xbb\xbf" else 0)
    while raw := file.readline(MAX_LINE):
        if len(raw) == MAX_LINE and not raw.endswith(b"\n"):
            broken = next(
                (n for n in range(1, 4) if raw[-n] & 0xC0 == 0xC0), 0
            )  # bytes of a letter cut in two
            if broken and broken < _length(raw[-broken]):
                file.seek(-broken, os.SEEK_CUR)
                raw = raw[:-broken]
        yield raw.removesuffix(b"\n").removesuffix(b"\r")


def _length(lead: int) -> int:
    """Bytes of the letter that begins with this one."""
    return 4 if lead >= 0xF0 else 3 if lead >= 0xE0 else 2


def binary(data: bytes) -> str:
    """What data is that begins like this, "" for text."""
    for magic, kind in _KINDS.items():
        if data.startswith(magic):
            return kind
    return "binary data" if b"\0" in data else ""


def decoded(data: bytes, name: str) -> str:
    """Bytes as text; FilesError where they are none."""
    if kind := binary(data[:4096]):
        raise FilesError(f"{name} is not text", why=f"it is {kind}", do="use an app that reads such files")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FilesError(
            f"{name} is not UTF-8 text",
            why=f"the byte 0x{data[error.start]:02x} stands where none can",
            do="convert it to UTF-8 first",
        ) from None


@dataclass(slots=True)
class Found:
    """What a search came to: files by name, lines by (path, number, text), and what it left out."""

    names: list[str] = field(default_factory=list)
    lines: list[tuple[str, int, str]] = field(default_factory=list)
    left_out: str = ""


def search(files: Beneath, folder: str, words: str, stopped: Callable[[], bool]) -> Found:
    """Where `words` stand, in names and in lines, whatever the case of their letters."""
    found, wanted, looked, read = Found(), words.casefold(), 0, 0
    for entry in files.walk(folder):
        if stopped():
            break
        if entry.kind != "file":
            continue
        looked += 1
        if looked > MAX_FILES:
            found.left_out = f"only the first {MAX_FILES} files were searched"
            break
        if wanted in entry.path.rpartition("/")[2].casefold() and len(found.names) < MAX_FOUND:
            found.names.append(entry.path)
        if read + entry.size > MAX_SEARCHED:
            found.left_out = (
                f"{entry.path} and what follows it were not all read: {MAX_SEARCHED >> 20} MiB is the most"
            )
            continue
        read += entry.size
        try:
            with os.fdopen(files.file(entry.path), "rb") as file:
                _search_file(file, entry.path, wanted, found)
        except (FilesError, PathError):
            continue  # not text, or gone
        if len(found.lines) >= MAX_FOUND:
            found.left_out = f"only the first {MAX_FOUND} lines are shown"
            break
    return found


def _search_file(file: BinaryIO, path: str, wanted: str, found: Found) -> None:
    if binary(file.read(4096)):
        return
    file.seek(0)
    for number, raw in enumerate(_raw(file), 1):
        text = raw.decode("utf-8", "replace")
        at = text.casefold().find(wanted)
        if at >= 0:
            begin = max(0, at - SHOWN // 2)
            found.lines.append((path, number, text[begin : begin + SHOWN].strip()))
            if len(found.lines) >= MAX_FOUND:
                return


def matching(files: Beneath, folder: str, pattern: str) -> Iterator[str]:
    """The files below a folder whose name fits a pattern such as `*.csv`."""
    for entry in files.walk(folder):
        if entry.kind == "file" and fnmatch(entry.path.rpartition("/")[2], pattern):
            yield entry.path
