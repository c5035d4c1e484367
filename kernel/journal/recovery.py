"""What a boot finds in the state folder, and how it makes the best of it.

What: walks the hash chain from the newest good snapshot (or whole), folds the state on the way, compares the end
    with the head file; where something is lost, builds a clean database from what is good.
Invariant: nothing damaged is deleted: the originals are set aside in a folder of their own. A record is kept only
    if the chain leads to it from the beginning, or from a good snapshot. What was lost becomes a gap in the new
    chain, so its numbers are never used again. A crash during recovery is recovered from.
Interface: `recover(folder, head) -> Found`, `examine(…)`, `Loss`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from llmos.abi.errors import JournalDamaged
from llmos.drivers.whole import sync
from llmos.kernel.journal.chain import GENESIS, HASH_BYTES, Head, Link, Row, link
from llmos.kernel.journal.records import Record, decode
from llmos.kernel.journal.snapshot import good
from llmos.kernel.journal.state import MachineState, fold_all
from llmos.kernel.journal.store import Gap, Store, disk_errors

DATABASE = "journal.sqlite"
HEAD = "journal.head"
T = TypeVar("T")
_BUILDING = "journal.building"  # a clean database that is not whole yet
_MENDING = "journal.mending"  # a copy whose first page is replaced
_PAGE = 4096
_BUILT = "journal.built"  # one that is, and is about to take the place of the damaged one


@dataclass(frozen=True, slots=True)
class Loss:
    """What was durable once and is not here now.

    Args:
        records: how many, as far as the head file or the database still tells.
        first, last: their numbers; first > last where none is known to be missing.
        why: what was found.
        aside: the folder that holds the files as they were found.
    """

    records: int
    first: int
    last: int
    why: str
    aside: Path | None = None

    def __str__(self) -> str:
        what = (
            f"{self.records:,} records of the journal are lost" if self.records else "the journal is damaged"
        )
        which = f" ({self.first:,} to {self.last:,})" if self.records else ""
        kept = f"; the files as they were found are kept in {self.aside}" if self.aside else ""
        return f"{what}{which}: {self.why}{kept}"


@dataclass(frozen=True, slots=True)
class Found:
    """The end of what is good, the state there, the holes in it, and what is wrong in words (None: nothing)."""

    end: Link
    state: MachineState
    lost: tuple[Gap, ...] = ()
    wrong: str | None = None

    @property
    def kept(self) -> int:
        """How many entries are left."""
        return self.end.seq - sum(gap.last - gap.first + 1 for gap in self.lost)

    def loss(self, aside: Path | None = None) -> Loss | None:
        """The same for people."""
        if self.wrong is None:
            return None
        count = sum(gap.last - gap.first + 1 for gap in self.lost)
        if not count:
            return Loss(0, self.end.seq + 1, self.end.seq, self.wrong, aside)
        return Loss(count, self.lost[0].first, self.lost[-1].last, self.wrong, aside)


class _Walk:
    """Follows the chain; `at` is the last good place. What is good is copied to `into`, where that is given."""

    def __init__(self, store: Store, at: Link, gaps: list[Gap], into: Store | None) -> None:
        self._store, self._gaps, self._into = store, gaps, into
        self.at = at
        self.wrong: str | None = None
        self.note: str | None = None  # what is odd, but breaks nothing
        self.lost: list[Gap] = []

    def rows(self, head: Link | None) -> Iterator[Row]:
        """The good rows after `at`, until the end or the first damage, which `wrong` then tells."""
        try:
            gaps = [gap for gap in self._gaps if gap.first > self.at.seq]
            for row, hash in self._store.rows(after=self.at.seq):
                self._cross(gaps, row.seq, head)
                if row.seq != self.at.seq + 1:
                    raise JournalDamaged(f"record {self.at.seq + 1} is not there")
                if link(self.at.hash, row) != hash:
                    raise JournalDamaged(f"record {row.seq} is not what its hash says")
                if head and head.seq == row.seq and head.hash != hash:
                    self.note = (
                        f"the head file has another hash for record {row.seq}: it is of another journal"
                    )
                if self._into:
                    self._into.put(row, hash)
                self.at = Link(row.seq, hash)
                yield row
            self._cross(gaps, None, head)
        except JournalDamaged as error:
            self.wrong = (error.why or error.what).rstrip(".")

    def jump(self, to: Link) -> None:
        """Go on at a place that is known to be good; what lies between is lost."""
        gap = Gap(self.at.seq + 1, to.seq, self.at.hash, to.hash, "lost")
        if self._into:
            self._into.put_gap(gap)
        self.lost.append(gap)
        self.at, self.wrong = to, None

    def _cross(self, gaps: list[Gap], until: int | None, head: Link | None) -> None:
        """Step over the gaps that begin here."""
        while gaps and (until is None or gaps[0].first < until):
            gap = gaps.pop(0)
            if (gap.first, gap.before) != (self.at.seq + 1, self.at.hash) or gap.last < gap.first:
                raise JournalDamaged(f"the gap before record {gap.last + 1} does not fit the chain")
            if self._into:
                self._into.put_gap(gap)
            self.at = Link(gap.last, gap.after)
            if gap.why == "lost" and head and gap.first <= head.seq <= gap.last and head != self.at:
                self.note = "an earlier start found it damaged, and was cut short before it could tell"
                self.lost.append(gap)


def examine(store: Store, head: Link | None, *, whole: bool = False, into: Store | None = None) -> Found:
    """Walk the chain from the newest good snapshot, or from the beginning, and fold what it holds.

    Where the chain breaks it goes on at the next good snapshot, if there is one; else there the journal ends.

    Raises:
        JournalError: the disk cannot be read, or a later version wrote this.
    """
    wrong = list[str]()
    snapshots, gaps = _readable(store.snapshots, wrong), _readable(store.gaps, wrong)
    good_ones = [(s.at, state) for s in reversed(snapshots) if (state := good(s))]
    newest, state = good_ones[-1] if good_ones else (GENESIS, MachineState())
    if not good_ones and any(gap.why == "pruned" for gap in gaps):
        gaps = [replace(gap, why="lost") for gap in gaps]
        wrong.append(f"no snapshot is good, and the records before {gaps[-1].last + 1:,} were pruned")
    if into:
        for snapshot in snapshots:
            if good(snapshot):
                into.put_snapshot(snapshot)
    walk = _Walk(store, GENESIS if whole else newest, gaps, into)
    while True:
        state = fold_all(state, (record_of(row) for row in walk.rows(head) if row.seq > newest.seq))
        if walk.wrong is None:
            break
        wrong.append(walk.wrong)
        further = next((at for at, _ in good_ones if at.seq > walk.at.seq), None)
        if further is None:
            break
        walk.jump(further)
    if walk.note:
        wrong.append(walk.note)
    known = max(walk.at.seq, head.seq if head else 0)
    if walk.wrong:
        with contextlib.suppress(JournalDamaged):
            known = max(known, walk.at.seq + store.count(walk.at.seq))
    elif known > walk.at.seq:
        wrong.append(f"the database ends with record {walk.at.seq:,}, the head file knows of {known:,}")
    if known > walk.at.seq:
        walk.jump(Link(known, os.urandom(HASH_BYTES)))
    return Found(walk.at, state, tuple(walk.lost), "; ".join(wrong) or None)


def _readable(read: Callable[[], list[T]], wrong: list[str]) -> list[T]:
    try:
        return read()
    except JournalDamaged as error:
        wrong.append(error.why)
        return []


def _nothing(head: Link | None, why: str, into: Store | None) -> Found:
    """Not one record can be read."""
    if not head or not head.seq:
        return Found(GENESIS, MachineState(), (), why)
    gap = Gap(1, head.seq, GENESIS.hash, os.urandom(HASH_BYTES), "lost")
    if into:
        into.put_gap(gap)
    return Found(Link(gap.last, gap.after), MachineState(), (gap,), why)


def record_of(row: Row) -> Record:
    """A row as a record."""
    return Record(row.seq, row.time / 1000, row.pid, decode(row.kind, row.body))


def recover(folder: Path, head_file: Head, *, whole: bool = False) -> tuple[Found, Path | None]:
    """What is there, with `journal.sqlite` clean afterwards; and the folder of what was set aside, if anything.

    The caller owns the folder.
    """
    path, head = folder / DATABASE, head_file.read()
    with disk_errors(path):
        _install(folder)
        with contextlib.ExitStack() as stack:
            store = None
            if path.exists() and path.stat().st_size:
                store = Store(path, write=False)
                stack.callback(store.close)
            found = _examine_any(store, head, whole=whole)
            if found.wrong is None:
                return found, None
            aside = _set_aside(folder)
            if store and not found.kept:
                store = Store(_with_new_first_page(folder), write=False)
                stack.callback(store.close)
            good_part = _rebuild(folder, store, head)
            found = replace(good_part, wrong=good_part.wrong or found.wrong)
        _install(folder)
    return found, aside


def _examine_any(store: Store | None, head: Link | None, *, whole: bool, into: Store | None = None) -> Found:
    """`examine`, also where there is no database, or one without tables, or no database at all in the file."""
    promised = head is not None and head.seq > 0
    try:
        version = store.version(ours=promised) if store else 0
    except JournalDamaged as error:
        return _nothing(head, error.why, into)
    if store is None or version == 0:
        if promised:
            return _nothing(head, "the database is gone", into)
        return Found(GENESIS, MachineState())  # the first start, or one that was cut short
    return examine(store, head, whole=whole, into=into)


def _with_new_first_page(folder: Path) -> Path:
    """A copy of the database with the first page of a new one, for a damaged first page makes all unreadable.

    It holds the header and the schema, the same in every journal but for counters; should it not fit, then no chain
    is found. Format: https://www.sqlite.org/fileformat.html, section 1.3.
    """
    copy = folder / _MENDING
    Store(copy).close()
    page = bytearray(copy.read_bytes()[:_PAGE])
    shutil.copy2(folder / DATABASE, copy)
    if (folder / f"{DATABASE}-wal").exists():
        shutil.copy2(folder / f"{DATABASE}-wal", folder / f"{_MENDING}-wal")
    page[28:32] = (copy.stat().st_size // _PAGE).to_bytes(4, "big")  # pages in the file; believed, for
    page[92:96] = page[24:28]  # the counter of changes equals its copy
    page[32:40] = bytes(8)  # no free pages
    with copy.open("r+b") as mended:
        mended.write(page)
    return copy


def _rebuild(folder: Path, store: Store | None, head: Link | None) -> Found:
    """Make `journal.built` of all that is good; what then is found is told of the whole."""
    building = folder / _BUILDING
    new = Store(building)
    try:
        with new.transaction():
            found = _examine_any(store, head, whole=True, into=new)
    finally:
        new.close()
    sync(building)
    building.rename(folder / _BUILT)
    sync(folder)
    return found


def _install(folder: Path) -> None:
    """Let a built database take the place of the damaged one, and tidy up after a start that was cut short.

    The WAL of the old one goes first: it is not the new one's.
    """
    for name in (_BUILDING, _MENDING):
        for file in folder.glob(f"{name}*"):
            file.unlink()
    if not (folder / _BUILT).exists():
        return
    for suffix in ("-wal", "-shm"):
        (folder / (DATABASE + suffix)).unlink(missing_ok=True)
    sync(folder)
    (folder / _BUILT).rename(folder / DATABASE)
    sync(folder)


def _set_aside(folder: Path) -> Path:
    """Keep the files as they are under another name; linked, not copied, where the file system can."""
    stamp = time.strftime("damaged-%Y%m%dT%H%M%SZ", time.gmtime())
    for number in range(1, 1000):
        aside = folder / f"{stamp}-{number}"
        with contextlib.suppress(FileExistsError):
            aside.mkdir(mode=0o700)
            break
    for name in (DATABASE, f"{DATABASE}-wal"):
        if (folder / name).exists():
            try:
                os.link(folder / name, aside / name)
            except OSError:
                shutil.copy2(folder / name, aside / name)
    shutil.copy2(folder / HEAD, aside / HEAD)
    sync(aside)
    return aside
