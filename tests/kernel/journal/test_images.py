"""What a power failure leaves: unsynced sectors kept, dropped or kept without those before them.

A kernel works, and at every fsync of its own (commit, checkpoint, head) the three files are copied: what the disk
surely holds. Between two copies lie the writes that the next fsync had not yet covered when the power failed; an
image is the earlier copy with any subset of the sectors of those writes. Two orders inside a step are SQLite's own
promise and kept: a checkpoint syncs the WAL before it writes the database, and a WAL that starts over has its new
header synced before the first frame (https://sqlite.org/src/info/ff5be73dee: without that, old frames would be laid
over a newer database). And a disk that lies: synced tails of the WAL cut off.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llmos.kernel.journal import Journal, Record
from llmos.kernel.journal.chain import Head
from llmos.kernel.journal.records import Sampled, Sent, Spawned
from llmos.kernel.journal.recovery import HEAD
from llmos.kernel.journal.store import Store
from tests.kernel.journal.folders import WAL, Files, files, lay, scratch, survey

SECTOR = 512


@dataclass(frozen=True, slots=True)
class Moment:
    """The synced files after an fsync, and what had been delivered by then."""

    after: str
    state: Files
    delivered: int


@pytest.fixture
def folder() -> Iterator[Path]:
    with scratch() as folder:
        yield folder


def film(folder: Path, seed: int, steps: int) -> tuple[list[Moment], dict[int, Record]]:
    """A kernel's working life as moments, and every record that it wrote."""
    rng, moments, delivered = random.Random(seed), list[Moment](), [0]
    lay(folder / "original", {})
    with pytest.MonkeyPatch.context() as patch, Journal.open(folder / "original") as journal:
        moments.append(Moment("open", files(folder / "original"), 0))

        def filmed(where: type, name: str) -> None:
            real = getattr(where, name)

            def call(*arguments: Any) -> None:
                real(*arguments)
                moments.append(Moment(name, files(folder / "original"), delivered[0]))

            patch.setattr(where, name, call)

        filmed(Store, "_commit")
        filmed(Store, "checkpoint")
        filmed(Head, "write")
        journal.append(1, Spawned())
        for step in range(steps):
            for pid in range(1, rng.randrange(2, 6)):
                seq = journal.append(pid, Sampled(1, step, (step,)))
                if rng.random() < 0.2:
                    seq = journal.append(pid, Sent(1, "x" * rng.randrange(20_000)))
            journal.after(seq, lambda seq=seq: delivered.__setitem__(0, seq))  # type: ignore[misc]
            journal.wait(seq)
            if step % 7 == 6:
                journal._writer.run(lambda store: store.checkpoint(0)).result()
        if rng.random() < 0.5:
            journal.snapshot()
        return moments, {record.seq: record for record in journal.records()}


def failing(before: Moment, after: Moment, rng: random.Random) -> Files:
    """The earlier moment's files with some of the sectors that were being written when the power failed."""
    image = dict(before.state)
    for name, new in after.state.items():
        old = before.state.get(name, b"")
        if old == new:
            continue
        size = (
            max(len(old), len(new))
            if rng.random() < 0.7
            else rng.randrange(len(old), max(len(old), len(new)) + 1)
        )
        data = bytearray(old.ljust(size, b"\0")[:size])
        share, sectors = rng.choice([0.1, 0.5, 0.9]), range(0, size, SECTOR)
        if name == WAL and new[:SECTOR] != old[:SECTOR]:
            if rng.random() < 0.2:
                sectors = range(0, SECTOR, SECTOR)  # the header's own fsync was not over
            else:
                data[:SECTOR] = new[:SECTOR].ljust(len(data[:SECTOR]), b"\0")
        for at in sectors:
            if new[at : at + SECTOR] != old[at : at + SECTOR] and rng.random() < share:
                data[at : at + SECTOR] = new[at : at + SECTOR].ljust(len(data[at : at + SECTOR]), b"\0")
        image[name] = bytes(data)
    return image


def images(folder: Path, seed: int, count: int) -> Counter[str]:
    rng = random.Random(seed)
    moments, written = film(folder, seed, 40)
    pairs = [(a, b) for a, b in itertools.pairwise(moments) if a.state != b.state]
    seen: Counter[str] = Counter()
    for _ in range(count):
        before, after = rng.choice(pairs)
        assert survey(lay(folder / "copy", failing(before, after, rng)), written, before.delivered) is None
        seen[after.after] += 1
    return seen


def lies(folder: Path, seed: int, count: int) -> int:
    """Synced bytes of the WAL's end that are not there: what was delivered and is lost must be told."""
    rng = random.Random(seed)
    moments, written = film(folder, seed, 40)
    told = 0
    for _ in range(count):
        moment = rng.choice([moment for moment in moments if moment.state.get(WAL)])
        wal = moment.state[WAL]
        gone = min(len(wal), rng.choice([1, 100, 512, 4096, 10_000, 50_000, len(wal)]))
        loss = survey(
            lay(folder / "copy", {**moment.state, WAL: wal[: len(wal) - gone]}), written, moment.delivered
        )
        told += loss is not None and loss.records > 0
    return told


def test_five_hundred_power_failures(folder: Path) -> None:
    seen: Counter[str] = Counter()
    for seed in range(5):
        seen += images(folder, seed, 100)
    assert seen.total() == 500 and min(seen[name] for name in ("_commit", "checkpoint", "write")) > 20, seen


def test_a_disk_that_lies_is_found_out(folder: Path) -> None:
    assert lies(folder, 1, 60) > 10


@pytest.mark.slow
def test_many_power_failures(folder: Path) -> None:
    for seed in range(100, 130):
        images(folder, seed, 150)
        lies(folder, seed, 50)


def test_the_film_shows_every_kind_of_write(folder: Path) -> None:
    """The images above would prove little of files that hardly change."""
    moments, _ = film(folder, 1, 20)
    changed = Counter(
        (b.after, name) for a, b in itertools.pairwise(moments) for name in b.state
        if a.state.get(name) != b.state[name]
    )  # fmt: skip
    assert set(changed) >= {("_commit", WAL), ("checkpoint", "journal.sqlite"), ("write", HEAD)}
    assert ("_commit", "journal.sqlite") not in changed  # a commit never writes the database back
