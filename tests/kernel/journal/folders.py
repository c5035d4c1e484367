"""State folders in memory: many of them, damaged in many ways, opened quickly."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from llmos.kernel.journal import Journal, Loss, Record
from llmos.kernel.journal.records import Spawned
from llmos.kernel.journal.recovery import DATABASE, HEAD

WAL = f"{DATABASE}-wal"
Files = Mapping[str, bytes]


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder in memory where the machine has such a thing: thousands of fsyncs are quick there."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="journal-", dir=memory if memory.is_dir() else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def files(folder: Path) -> Files:
    """What a disk would hold of a journal: database, WAL and head, as they are now."""
    names = (DATABASE, WAL, HEAD)
    return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}


def lay(folder: Path, content: Files) -> Path:
    """A state folder with this content."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in content.items():
        (folder / name).write_bytes(data)
    return folder


def survey(
    folder: Path, written: Mapping[int, Record], delivered: int, found: Files | None = None
) -> Loss | None:
    """Open the journal and hold it to its promises; what it says is lost.

    Args:
        written: every record that was ever appended, by number.
        delivered: the last number that was reported durable.
        found: the files as they were damaged, where that was before an earlier start.
    """
    found = found or files(folder)
    with Journal.open(folder, whole=True) as journal:
        loss = journal.loss
        here = {record.seq: record for record in journal.records()}
        assert here.items() <= written.items()  # not one changed or invented
        missing = [seq for seq in range(1, delivered + 1) if seq not in here]
        if loss is None:
            assert not missing
        else:
            assert loss.aside is not None and str(loss.aside) in str(loss)
            assert all(loss.first <= seq <= loss.last for seq in missing), (loss, missing)
            assert loss.records >= len(missing)
            asides = [files(aside) for aside in folder.glob("damaged-*")]
            assert any(all(kept.get(n) == found[n] for n in (DATABASE, WAL) if n in found) for kept in asides)
        most = max(
            [*here, loss.last if loss else 0]
        )  # a snapshot may know of more than the records that are left
        assert max(here, default=0) <= journal.unfinished().seq <= most
        seq = journal.append(999, Spawned())
        assert seq > max([*here, delivered])  # a number is never used twice
        journal.wait(seq)
        assert journal.verify() is None
    with Journal.open(folder, whole=True) as journal:
        assert journal.loss is None  # told once
        after = {record.seq: record for record in journal.records()}
        assert after.pop(seq).body == Spawned() and after == here
    return loss
