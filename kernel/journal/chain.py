"""The hash chain, and its head in a file of its own.

What: every record's hash covers its bytes and the hash before it; the head file holds the newest (sequence, hash).
Invariant: the database is durable before the head says so, and nothing is delivered before the head is durable.
    So: delivered <= head <= database, and a database that ends before the head has lost something.
Interface: `Link`, `GENESIS`, `link(before, row)`, `Head(path)`: `.read()`, `.write(link)`, `.close()`.

The head file has two slots of one sector each, written in turn: a torn write spoils the slot that was being
written, and the other still tells the head before it. The hash (BLAKE2b, 128 bits, no key) finds damage. It is no
seal against somebody who may write the folder: they could compute the chain anew.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

HASH_BYTES = 16
_SECTOR = 512  # the least that a disk writes at once
_SLOT_BYTES = 4096  # apart, so that no page of the file system holds both
_MAGIC = "llmos journal head 1"


class Row(NamedTuple):
    """A record as it is stored; `time` is in milliseconds since 1970."""

    seq: int
    time: int
    pid: int
    kind: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Link:
    """A place in the chain: the hash of everything up to and including record `seq`."""

    seq: int
    hash: bytes


GENESIS = Link(0, blake2b(b"llmos journal", digest_size=HASH_BYTES).digest())


def link(before: bytes, row: Row) -> bytes:
    """The hash of `row` where the chain stood at `before`."""
    fields = b"%d %d %d %s " % (row.seq, row.time, row.pid, row.kind.encode())
    return blake2b(before + fields + row.body, digest_size=HASH_BYTES).digest()


class Head:
    """The head file, kept open by the one who owns the journal."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._turn = 0
        if os.fstat(self._file).st_size < 2 * _SLOT_BYTES:
            os.ftruncate(self._file, 2 * _SLOT_BYTES)
        self.read()

    def read(self) -> Link | None:
        """The newest head that is whole; None where there is none."""
        slots = [_parse(os.pread(self._file, _SECTOR, i * _SLOT_BYTES)) for i in (0, 1)]
        found = [(slot.seq, i) for i, slot in enumerate(slots) if slot]
        if not found:
            return None
        newest = max(found)[1]
        self._turn = 1 - newest
        return slots[newest]

    def write(self, head: Link) -> None:
        """Returns when the head is on the disk.

        Raises:
            OSError: it is not; the head before it still is.
        """
        os.pwrite(self._file, _format(head), self._turn * _SLOT_BYTES)
        os.fdatasync(self._file)
        self._turn = 1 - self._turn

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def _format(head: Link) -> bytes:
    text = f"{_MAGIC} {head.seq} {head.hash.hex()}"
    check = blake2b(text.encode(), digest_size=8).hexdigest()
    return f"{text} {check}\n".encode().ljust(_SECTOR, b"\0")


def _parse(sector: bytes) -> Link | None:
    try:
        text = sector.partition(b"\n")[0].decode("ascii")
        seq, hash = text.rsplit(" ", 3)[1:3]
        head = Link(int(seq), bytes.fromhex(hash))
    except (ValueError, IndexError):
        return None
    return head if _format(head) == sector else None
