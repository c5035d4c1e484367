"""Labels: where bytes came from and who may read them.

What: a label is (integrity, readers); it rides on segments, pages, chunks, value handles and files.
Invariant: `join` never raises integrity and never adds a reader, so data that was mixed is at most as
    trusted, and at most as widely readable, as its least part.
Interface: `Integrity`, `Label`, `join`, `dump_label` and `load_label` (as JSON), and the three constants `USER`,
    `STORE`, `UNTRUSTED`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any


class Integrity(IntEnum):
    """How far the words may be believed; ordered, greater is more trusted."""

    UNTRUSTED = 0
    STORE = 1
    USER = 2


@dataclass(frozen=True, slots=True)
class Label:
    """Where bytes came from and who may read them; `readers` is None for everyone."""

    integrity: Integrity
    readers: frozenset[str] | None = None

    @property
    def key(self) -> bytes:
        """What tells labels apart in a hash; empty for the user's own words."""
        if self == USER:
            return b""
        readers = None if self.readers is None else sorted(self.readers)
        return f"{self.integrity.value} {readers!r}".encode()


USER = Label(Integrity.USER)
STORE = Label(Integrity.STORE)
UNTRUSTED = Label(Integrity.UNTRUSTED)


def join(labels: Iterable[Label]) -> Label:
    """The label of what was made from all of `labels`: least integrity, common readers; USER for nothing."""
    integrity, readers = Integrity.USER, None
    for label in labels:
        integrity = min(integrity, label.integrity)
        if label.readers is not None:
            readers = label.readers if readers is None else readers & label.readers
    return Label(integrity, readers)


def dump_label(label: Label) -> list[Any]:
    """A label as JSON."""
    return [int(label.integrity), None if label.readers is None else sorted(label.readers)]


def load_label(told: list[Any]) -> Label:
    """What `dump_label` was given."""
    integrity, readers = told
    return Label(Integrity(integrity), None if readers is None else frozenset(readers))
