"""Flipped bytes, files cut short, files gone: the good prefix stays, the loss is told in numbers."""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from llmos.abi.errors import JournalError
from llmos.kernel.journal import Journal, Record, Retention, read
from llmos.kernel.journal.records import Sampled, Spawned
from llmos.kernel.journal.recovery import DATABASE, HEAD
from tests.kernel.journal.folders import WAL, Files, files, lay, scratch, survey
from tests.kernel.journal.records import conversation

State = tuple[Files, Mapping[int, Record]]


@pytest.fixture
def folder() -> Iterator[Path]:
    with scratch() as folder:
        yield folder


def write(folder: Path, turns: int = 8, *, snapshot_at: int = 0, checkpoint_at: int = 0) -> State:
    """The files of a kernel that was killed after some turns, and all that it wrote."""
    with Journal.open(folder / "original") as journal:
        for turn in range(1, turns + 1):
            for pid, body in conversation(turn=turn):
                seq = journal.append(pid, body)
            journal.wait(seq)
            if turn == snapshot_at:
                journal.snapshot()
            if turn == checkpoint_at:
                journal._writer.run(lambda store: store.checkpoint(0)).result()
        state = files(folder / "original")
        if checkpoint_at == turns:
            state = {**state, WAL: b""}  # all of it is in the database: what SQLite will do next
        return state, {r.seq: r for r in journal.records()}


def replaced(state: Files, name: str, at: int, data: bytes) -> Files:
    whole = state[name]
    return {**state, name: whole[:at] + data + whole[at + len(data) :]}


def test_an_undamaged_journal_has_lost_nothing(folder: Path) -> None:
    state, written = write(folder)
    assert survey(lay(folder / "copy", state), written, len(written)) is None


@pytest.mark.parametrize("wal", [False, True])
def test_a_flipped_byte_cuts_there(folder: Path, wal: bool) -> None:
    """Record 100 is changed: in the database, or in the WAL, where SQLite itself drops what follows."""
    state, written = write(folder, checkpoint_at=0 if wal else 8)
    needle = b'"tokens":[37]'  # record 20 or so
    name = WAL if wal else DATABASE
    at = state[name].index(needle)
    damaged = replaced(state, name, at + 11, b"8")
    loss = survey(lay(folder / "copy", damaged), written, len(written))
    assert loss and loss.last == len(written) and loss.records == loss.last - loss.first + 1
    first = next(seq for seq, r in written.items() if isinstance(r.body, Sampled) and r.body.tokens == (37,))
    if wal:
        assert loss.first <= first and "the head file knows of" in loss.why
    else:
        assert loss.first == first and f"record {first} is not what its hash says" in loss.why


def test_a_snapshot_saves_the_end_when_the_middle_is_damaged(folder: Path) -> None:
    state, written = write(folder, snapshot_at=4, checkpoint_at=8)
    at = state[DATABASE].index(b'"text":"question 3"')
    damaged = replaced(state, DATABASE, at + 8, b"Q")
    loss = survey(lay(folder / "copy", damaged), written, len(written))
    assert loss and loss.last == 39 * 4 + 3 and loss.records < 80
    lay(folder / "copy", damaged)
    with Journal.open(
        folder / "copy"
    ) as journal:  # an ordinary start reads from the snapshot on: nothing wrong
        assert journal.loss is None
        state_of = journal.unfinished()
        assert state_of.seq == len(written) and len(state_of.processes[1].conversation) == 8
        found = journal.verify()
        assert found and found.last == loss.last


def test_a_damaged_snapshot_costs_nothing(folder: Path) -> None:
    state, _ = write(folder, snapshot_at=4, checkpoint_at=8)
    lay(folder / "copy", state)
    db = sqlite3.connect(folder / "copy" / DATABASE)
    with db:
        db.execute(
            "UPDATE snapshots SET state = CAST(replace(CAST(state AS TEXT), 'question', 'answer') AS BLOB)"
        )
    db.close()
    with Journal.open(folder / "copy") as journal:
        assert journal.loss is None
        assert journal.unfinished().processes[1].conversation[0].question == "question 1"


def test_both_snapshots_damaged_after_pruning_is_told(folder: Path) -> None:
    with Journal.open(folder / "state", Retention(days=0)) as journal:
        for turn in range(1, 7):
            for pid, body in conversation(turn=turn):
                seq = journal.append(pid, body)
            journal.wait(seq)
            journal.snapshot()
        time.sleep(0.01)
        assert journal.prune()
    db = sqlite3.connect(folder / "state" / DATABASE)
    with db:
        db.execute("UPDATE snapshots SET digest = x'00'")
    db.close()
    with Journal.open(folder / "state") as journal:
        assert journal.loss and "no snapshot is good" in journal.loss.why
        assert journal.loss.records == 0 or journal.loss.first == 1
        left = [r.seq for r in journal.records()]
        assert left and left[-1] == seq
    with Journal.open(folder / "state", whole=True) as journal:
        assert journal.loss is None


def test_the_database_is_gone(folder: Path) -> None:
    state, written = write(folder)
    for gone in ({DATABASE}, {DATABASE, WAL}):
        left = {name: data for name, data in state.items() if name not in gone}
        loss = survey(lay(folder / "copy", left), {}, len(written))
        assert loss and (loss.first, loss.last) == (1, len(written)) and "gone" in loss.why


def test_not_a_database(folder: Path) -> None:
    state, written = write(folder, checkpoint_at=8)
    damaged = {**state, DATABASE: b"once upon a time" * 4000, WAL: b""}
    loss = survey(lay(folder / "copy", damaged), {}, len(written))
    assert loss and loss.records == len(written)


@pytest.mark.parametrize("at", [0, 16, 20, 44, 60, 68, 100, 106, 3000, 4000])
def test_a_damaged_first_page_costs_nothing(folder: Path, at: int) -> None:
    """The header and the schema are the same in every journal."""
    state, written = write(folder, snapshot_at=4, checkpoint_at=8)
    for size in (1, 96):
        damaged = replaced(state, DATABASE, at, bytes(b ^ 0xFF for b in state[DATABASE][at : at + size]))
        loss = survey(lay(folder / "copy", damaged), written, len(written))
        assert loss is None or loss.records == 0
        assert not list((folder / "copy").glob("journal.mending*"))


def test_a_head_that_is_gone_or_old_costs_nothing(folder: Path) -> None:
    with Journal.open(folder / "state") as journal:
        journal.wait(journal.append(1, Spawned()))
        old = (folder / "state" / HEAD).read_bytes()
        for i in range(20):
            seq = journal.append(1, Sampled(1, i, (i,)))
        journal.wait(seq)
        state, written = files(folder / "state"), {r.seq: r for r in journal.records()}
    for head in (old, b"", bytes(8192), b"rubbish" * 1000):
        assert survey(lay(folder / "copy", {**state, HEAD: head}), written, len(written)) is None
    without = {name: data for name, data in state.items() if name != HEAD}
    assert survey(lay(folder / "copy", without), written, len(written)) is None


def test_an_older_copy_of_the_database_is_noticed(folder: Path) -> None:
    state, written = write(folder, turns=4)
    with Journal.open(folder / "original") as journal:
        for i in range(10):
            seq = journal.append(1, Sampled(1, i, (i,)))
        journal.wait(seq)
    head = (folder / "original" / HEAD).read_bytes()
    loss = survey(lay(folder / "copy", {**state, HEAD: head}), written, len(written) + 10)
    assert loss and (loss.records, loss.first) == (10, len(written) + 1)


def test_another_journals_head(folder: Path) -> None:
    state, written = write(folder, turns=2)
    with Journal.open(folder / "other") as journal:
        journal.wait(journal.append(1, Spawned()))
    head = (folder / "other" / HEAD).read_bytes()
    loss = survey(lay(folder / "copy", {**state, HEAD: head}), written, len(written))
    assert loss and loss.records == 0 and "of another journal" in loss.why


def test_what_is_set_aside_is_never_overwritten(folder: Path) -> None:
    state, _ = write(folder, turns=2)
    copy = lay(folder / "copy", state)
    for times in range(1, 4):
        (copy / HEAD).write_bytes(state[HEAD])
        for file in (copy / DATABASE, copy / WAL):
            file.unlink(missing_ok=True)
        with Journal.open(copy) as journal:
            assert journal.loss and journal.loss.first == 1
        assert len(list(copy.glob("damaged-*"))) == times


def test_a_journal_that_may_not_be_read_is_no_damage(folder: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    Journal.open(folder / "state").close()
    (folder / "state" / DATABASE).chmod(0)
    with pytest.raises(JournalError, match="permissions"):
        Journal.open(folder / "state")


def damage(state: Files, rng: random.Random) -> Files:
    """One accident: bytes flipped, a sector zeroed or swapped, a file cut short."""
    name = rng.choice([name for name in (DATABASE, DATABASE, WAL, WAL, HEAD) if state.get(name)])
    data = bytearray(state[name])
    at = rng.randrange(len(data))
    sector = at // 512 * 512
    match rng.choice(["flip", "flips", "zero", "swap", "cut", "rubbish"]):
        case "flip":
            data[at] ^= 1 << rng.randrange(8)
        case "flips":
            for _ in range(20):
                data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
        case "zero":
            data[sector : sector + 512] = bytes(len(data[sector : sector + 512]))
        case "swap" if len(data) >= 1024:
            other = rng.randrange(len(data) // 512) * 512
            sector = rng.randrange(len(data) // 512) * 512
            a, b = data[sector : sector + 512], data[other : other + 512]
            data[other : other + 512], data[sector : sector + 512] = a, b
        case "cut":
            del data[at:]
        case _:
            data[sector : sector + 512] = rng.randbytes(len(data[sector : sector + 512]))
    return {**state, name: bytes(data)}


def accidents(folder: Path, seed: int, count: int) -> Counter[str]:
    rng = random.Random(seed)
    told: Counter[str] = Counter()
    kinds = []
    for checkpoint_at in (0, 1, 2, 5, 9):
        lay(folder / "original", {})
        kinds.append(write(folder, 9, snapshot_at=rng.choice([0, 2]), checkpoint_at=checkpoint_at))
    for _ in range(count):
        state, written = rng.choice(kinds)
        loss = survey(lay(folder / "copy", damage(state, rng)), written, len(written))
        told["lost" if loss and loss.records else "damaged" if loss else "whole"] += 1
        if loss and loss.records == len(written):
            told["everything lost"] += 1
    return told


def test_accidents(folder: Path) -> None:
    told = accidents(folder, 1, 80)
    assert told["lost"] > 10 and told["whole"] > 10, told


@pytest.mark.slow
def test_many_accidents(folder: Path) -> None:
    for seed in range(2, 12):
        accidents(folder, seed, 300)


def test_reading_damage_while_running_says_what_to_do(folder: Path) -> None:
    state, _ = write(folder, turns=20, checkpoint_at=20)
    lay(
        folder / "copy",
        {**state, WAL: b"", DATABASE: state[DATABASE][:20_000] + bytes(len(state[DATABASE]) - 20_000)},
    )
    with pytest.raises(JournalError, match="start it again"):
        list(read(folder / "copy"))
