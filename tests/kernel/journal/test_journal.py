"""Writing, waiting, delivering, reading; who owns the folder; what happens when the disk refuses."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmos.abi.errors import DiskFull, JournalError, JournalInUse
from llmos.kernel.journal import Journal, Retention, fold, read
from llmos.kernel.journal import store as storing
from llmos.kernel.journal import writer as writing
from llmos.kernel.journal.records import Feedback, Finished, Sampled, Sent, Spawned
from llmos.kernel.journal.recovery import DATABASE, HEAD
from llmos.kernel.journal.state import MachineState, fold_all
from llmos.kernel.journal.store import MIGRATIONS, Store, migrate
from tests.kernel.journal.records import conversation


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path / "state") as journal:
        yield journal


def commits(journal: Journal) -> list[int]:
    """Counts rows of each transaction from now on; the list grows."""
    sizes: list[int] = []
    store = journal._writer._store
    append = store.append

    def counted(end, rows):  # type: ignore[no-untyped-def]
        sizes.append(len(rows))
        return append(end, rows)

    store.append = counted  # type: ignore[method-assign]
    return sizes


def test_what_was_appended_is_read_back_in_order(journal: Journal) -> None:
    entries = conversation()
    numbers = [journal.append(pid, body) for pid, body in entries]
    assert numbers == list(range(1, len(entries) + 1))
    journal.wait(numbers[-1])
    records = list(journal.records())
    assert [(r.seq, r.pid, r.body) for r in records] == [
        (n, *e) for n, e in zip(numbers, entries, strict=True)
    ]
    assert all(abs(r.time - time.time()) < 60 for r in records)
    assert [r.seq for r in journal.records(2)] == [
        n for n, (pid, _) in zip(numbers, entries, strict=True) if pid == 2
    ]
    assert {type(r.body) for r in journal.records(kinds=[Sampled, Spawned])} == {Sampled, Spawned}
    assert [r.seq for r in journal.records(after=numbers[-2])] == numbers[-1:]
    assert journal.unfinished() == fold_all(MachineState(), records)
    assert journal.verify() is None and journal.loss is None


def test_a_step_is_one_transaction(journal: Journal) -> None:
    sizes = commits(journal)
    for step in range(5):
        for pid in range(32):
            seq = journal.append(pid + 1, Sampled(1, step, (1,)))
        journal.commit()
        while journal._writer.durable.seq < seq:
            time.sleep(0.001)
    assert sizes == [32] * 5


def test_a_record_waits_at_most_a_tenth_of_a_second(journal: Journal) -> None:
    sizes, done = commits(journal), threading.Event()
    start = time.monotonic()
    for pid in (1, 2, 3):
        seq = journal.append(pid, Spawned())
    journal.after(seq, done.set)
    assert done.wait(10)
    assert time.monotonic() - start >= 0.09  # nobody asked for it earlier
    assert sizes == [3]


def test_delivery_is_in_order_and_only_of_what_is_durable(journal: Journal, tmp_path: Path) -> None:
    heard: list[int] = []
    early: list[int] = []

    def hear(seq: int) -> None:
        heard.append(seq)
        head = (tmp_path / "state" / HEAD).read_text()
        on_disk = max(int(part.split()[4]) for part in head.replace("\0", "").splitlines())
        if on_disk < seq or threading.current_thread().name != "journal":
            early.append(seq)

    numbers = [journal.append(1, Sampled(1, i, (i,))) for i in range(50)]
    for seq in reversed(numbers):
        journal.after(seq, lambda seq=seq: hear(seq))  # type: ignore[misc]
    journal.wait(numbers[-1])
    done = threading.Event()
    journal.after(numbers[-1], done.set)  # long durable: still on the writer's thread
    assert done.wait(10)
    assert heard == numbers and not early


def test_an_error_in_a_callback_stops_nothing(journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[int] = []

    def fail() -> None:
        raise SystemExit("no")

    with caplog.at_level(logging.ERROR):
        seq = journal.append(1, Spawned())
        journal.after(seq, fail)
        journal.after(seq, lambda: heard.append(1))
        journal.after(seq, lambda: journal.wait(seq))  # would wait for itself
        journal.wait(journal.append(1, Finished(1, "", "stop")))
        journal.close()
    assert heard == [1]
    assert [r.message for r in caplog.records] == ["a callback of the journal failed"] * 2


def test_a_callback_may_append(journal: Journal) -> None:
    done = threading.Event()

    def more() -> None:
        journal.after(journal.append(1, Finished(1, "", "stop")), done.set)

    journal.after(journal.append(1, Spawned()), more)
    journal.commit()
    assert done.wait(10)


def test_eight_threads_append(journal: Journal) -> None:
    heard: list[int] = []

    def work(pid: int) -> None:
        for i in range(200):
            seq = journal.append(pid, Sampled(1, i, (pid, i)))
            journal.after(seq, lambda seq=seq: heard.append(seq))  # type: ignore[misc]
            if i % 20 == 0:
                journal.wait(seq)

    threads = [threading.Thread(target=work, args=(pid,)) for pid in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    assert sorted(heard) == list(range(1, 1601))
    records = list(read(journal.folder))
    assert [r.seq for r in records] == list(range(1, 1601))
    for pid in range(1, 9):
        assert [r.body for r in records if r.pid == pid] == [Sampled(1, i, (pid, i)) for i in range(200)]


def test_appending_never_waits_for_the_disk(journal: Journal) -> None:
    """The disk hangs for a second; 2,000 appends take their microseconds all the same."""
    hang, hanging = threading.Event(), threading.Event()
    store = journal._writer._store
    commit = store._commit

    def slow() -> None:
        hanging.set()
        hang.wait(10)
        commit()

    store._commit = slow  # type: ignore[method-assign]
    journal.append(1, Spawned())
    journal.commit()
    assert hanging.wait(10)
    costs = []
    for i in range(2000):
        start = time.perf_counter()
        seq = journal.append(1, Sampled(1, i, (i,)))
        costs.append(time.perf_counter() - start)
    with pytest.raises(TimeoutError):
        journal.wait(seq, 0.01)
    hang.set()
    journal.wait(seq, 10)
    assert statistics.median(costs) < 20e-6


def test_close_writes_and_delivers_what_is_queued(tmp_path: Path) -> None:
    heard: list[int] = []
    with Journal.open(tmp_path) as journal:
        seq = journal.append(1, Spawned())
        journal.after(seq, lambda: heard.append(seq))
    assert heard == [seq] and [r.seq for r in read(tmp_path)] == [seq]
    calls: list[Callable[[], object]] = [
        lambda: journal.append(1, Spawned()), lambda: journal.after(seq, int), lambda: journal.snapshot(),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(JournalError, match="closed"):
            call()
    journal.wait(seq)  # it is durable
    assert not any(thread.name == "journal" for thread in threading.enumerate())


def test_a_number_that_was_never_given_out(journal: Journal) -> None:
    for call in (journal.wait, lambda seq: journal.after(seq, int)):
        with pytest.raises(JournalError, match="no record 1"):
            call(1)


def test_a_value_that_json_cannot_hold_leaves_no_trace(journal: Journal) -> None:
    with pytest.raises(JournalError, match="cannot be written"):
        journal.append(1, Sent(1, {1, 2}))
    assert journal.append(1, Spawned()) == 1


# --- the disk refuses ------------------------------------------------------------------------------------------


def _pages(journal: Journal, most: int) -> None:
    """Let the database grow to so many pages and no further: SQLite then finds its disk full."""
    journal._writer.run(
        lambda store: store._db.execute(f"PRAGMA max_page_count = {most}").fetchone()
    ).result()


def test_a_full_disk_delivers_nothing_and_loses_nothing(tmp_path: Path) -> None:
    heard: list[int] = []
    journal = Journal.open(tmp_path)
    _pages(journal, 12)
    text = "x" * 3000
    numbers = []
    for i in range(30):
        numbers.append(journal.append(1, Sent(1, f"{i} {text}")))
        journal.after(numbers[-1], lambda seq=numbers[-1]: heard.append(seq))  # type: ignore[misc]
    with pytest.raises(DiskFull, match="free some space"):
        journal.wait(numbers[-1], 10)
    assert isinstance(journal.trouble, DiskFull)
    assert heard == [] and list(read(tmp_path)) == []  # all or nothing
    with pytest.raises(DiskFull):
        journal.wait(numbers[0], 10)
    _pages(journal, 1 << 20)
    journal.wait(numbers[-1], 10)
    assert journal.trouble is None
    journal.close()
    assert heard == numbers
    assert [r.seq for r in read(tmp_path)] == numbers
    with Journal.open(tmp_path, whole=True) as journal:
        assert journal.loss is None


def test_closing_on_a_full_disk_says_so(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path)
    journal.wait(journal.append(1, Spawned()))
    _pages(journal, 1)
    journal.append(1, Sent(1, "x" * 100_000))
    with pytest.raises(DiskFull):
        journal.close()
    with Journal.open(tmp_path, whole=True) as journal:
        assert journal.loss is None and [r.body for r in journal.records()] == [Spawned()]


def test_a_queue_that_is_full_refuses(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "MAX_QUEUED_BYTES", 10_000)
    _pages(journal, 1)
    with pytest.raises((DiskFull, JournalError)):
        for _ in range(20):
            journal.append(1, Sent(1, "x" * 1000))
    _pages(journal, 1 << 20)
    journal.wait(journal._writer.last, 10)
    journal.append(1, Spawned())


FULL = """
import os, sys, time
from pathlib import Path
from llmos.abi.errors import DiskFull
from llmos.kernel.journal import Journal
from llmos.kernel.journal.records import Sent

folder, heard = Path(sys.argv[1]), []
journal = Journal.open(folder / "state")
refused = 0
for i in range(40):
    seq = journal.append(1, Sent(1, f"{i} " + "x" * 20_000))
    journal.after(seq, lambda seq=seq: heard.append(seq))
    try:
        journal.wait(seq, 20)
    except DiskFull:
        refused += 1
        if refused == 3:
            (folder / "ballast").unlink()
journal.close()
assert refused >= 3 and heard == list(range(1, 41)), (refused, heard)
with Journal.open(folder / "state", whole=True) as journal:
    assert journal.loss is None, journal.loss
    assert [r.seq for r in journal.records()] == heard
print("went on")
"""


def test_a_file_system_that_is_really_full(tmp_path: Path) -> None:
    """A file system of 3 MiB of our own, half of it ballast that is removed when the disk has been full."""
    script = tmp_path / "full.py"
    script.write_text(FULL)
    disk = tmp_path / "disk"
    disk.mkdir()
    shell = (
        f"mount -t tmpfs -o size=3m none {disk} && head -c 2M /dev/zero > {disk}/ballast"
        f" && exec {sys.executable} -W error {script} {disk}"
    )
    unshare = shutil.which("unshare")
    if (
        not unshare
        or subprocess.run([unshare, "-rm", "mount", "-t", "tmpfs", "none", disk], check=False).returncode
    ):
        pytest.skip("no file system of one's own here")
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [unshare, "-rm", "sh", "-c", shell], env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True,
        timeout=100, check=False,
    )  # fmt: skip
    assert done.stdout == "went on\n", done.stderr


# --- one owner -------------------------------------------------------------------------------------------------

OWNER = """
import sys, time
from pathlib import Path
from llmos.kernel.journal import Journal
from llmos.kernel.journal.records import Spawned
journal = Journal.open(Path(sys.argv[1]))
journal.wait(journal.append(1, Spawned()))
print("open", flush=True)
time.sleep(60)
"""


def test_two_kernels_on_one_journal(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout and owner.stdout.readline() == "open\n"
        with pytest.raises(JournalInUse, match=f"process {owner.pid}") as caught:
            Journal.open(tmp_path)
        assert caught.value.pid == owner.pid and "llmos down" in str(caught.value)
        assert [r.body for r in read(tmp_path)] == [Spawned()]  # reading is free
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    with Journal.open(tmp_path) as journal:
        assert journal.loss is None and journal.append(1, Finished(1, "", "stop")) == 2


def test_twice_in_one_process_too(journal: Journal) -> None:
    with pytest.raises(JournalInUse, match=str(os.getpid())):
        Journal.open(journal.folder)
    journal.close()
    Journal.open(journal.folder).close()


# --- the file --------------------------------------------------------------------------------------------------


def test_an_open_that_fails_gives_everything_back(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / DATABASE) as db:
        db.execute("CREATE TABLE cats (name)")
        db.execute("PRAGMA user_version = 1")
    db.close()
    for _ in range(2):
        with pytest.raises(JournalError, match="another program wrote it"):
            Journal.open(tmp_path)


def test_a_later_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    Journal.open(tmp_path).close()
    db = sqlite3.connect(tmp_path / DATABASE)
    db.execute("PRAGMA user_version = 99")
    db.close()
    before = (tmp_path / DATABASE).read_bytes()
    with pytest.raises(JournalError, match="schema 99"):
        Journal.open(tmp_path)
    assert (tmp_path / DATABASE).read_bytes() == before


def test_an_older_version_is_migrated(tmp_path: Path) -> None:
    Journal.open(tmp_path).close()
    later = (*MIGRATIONS, "CREATE TABLE notes (text); INSERT INTO notes VALUES ('kept')")
    db = sqlite3.connect(tmp_path / DATABASE, isolation_level=None)
    for _ in range(2):  # the second finds nothing to do
        migrate(db, later)
        assert db.execute("SELECT text FROM notes").fetchall() == [("kept",)]
        assert db.execute("PRAGMA user_version").fetchone() == (len(later),)
    with pytest.raises(sqlite3.Error):
        migrate(db, (*later, "CREATE TABLE more (text); SYNTAX ERROR"))
    assert db.execute("PRAGMA user_version").fetchone() == (len(later),)
    assert not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'more'").fetchall()
    db.close()


def test_reading_where_there_is_no_journal(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="no journal"):
        list(read(tmp_path))


def test_the_folder_is_the_owners_alone(journal: Journal) -> None:
    assert journal.folder.stat().st_mode & 0o077 == 0
    assert all(file.stat().st_mode & 0o077 == 0 for file in journal.folder.iterdir())


def test_the_wal_is_written_back(journal: Journal) -> None:
    wal = journal.folder / f"{DATABASE}-wal"
    for i in range(200):
        journal.wait(journal.append(1, Sent(1, "x" * 100_000)))
        assert wal.stat().st_size < 10 << 20, i


# --- snapshots and pruning -------------------------------------------------------------------------------------


def fill(journal: Journal, turns: range) -> None:
    for turn in turns:
        for pid, body in conversation(turn=turn):
            seq = journal.append(pid, body)
    journal.wait(seq)


def test_a_boot_from_a_snapshot_finds_the_same_state(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        fill(journal, range(1, 4))
        whole = journal.unfinished()
        journal.snapshot()
        assert journal.unfinished() == whole
        fill(journal, range(4, 6))
        state = journal.unfinished()
    records = list(read(tmp_path))
    assert state == fold_all(whole, records[whole.seq :]) == fold_all(MachineState(), records)
    with Journal.open(tmp_path) as journal:
        assert journal.unfinished() == state
        assert journal.unfinished() == state


def test_pruning_keeps_the_state_the_chain_and_what_was_judged(tmp_path: Path) -> None:
    policy = Retention(days=0)
    with Journal.open(tmp_path, policy) as journal:
        fill(journal, range(1, 4))
        journal.append(2, Feedback(2, "correct", "42"))
        journal.append(3, Feedback(3, "prefer", over=1))
        fill(journal, range(4, 6))
        everything = list(journal.records())
        journal.snapshot()
        assert journal.prune() == 0  # one snapshot alone must not be all that there is
        fill(journal, range(6, 7))
        state = journal.unfinished()
        journal.snapshot()
        time.sleep(0.01)
        assert journal.prune() > 0 and journal.prune() == 0
        assert journal.verify() is None
        left = list(journal.records())
    judged = {(2, 2), (3, 3), (3, 1)}
    expected = [
        r for r in everything
        if (r.pid, getattr(r.body, "turn", None)) in judged or (isinstance(r.body, Spawned) and r.pid in (2, 3))
    ]  # fmt: skip
    assert [r for r in left if r.seq <= everything[-1].seq] == expected
    with Journal.open(tmp_path, policy, whole=True) as journal:
        assert journal.loss is None and journal.unfinished() == state
        fill(journal, range(7, 8))
        journal.snapshot()
        journal.prune()
        assert journal.verify() is None
        assert journal.unfinished().seq == state.seq + len(conversation(turn=7))


def test_the_log_is_bounded(tmp_path: Path) -> None:
    policy = Retention(bytes=600_000, snapshot_records=200, keep_feedback=False)
    sizes = []
    with Journal.open(tmp_path, policy) as journal:
        for turn in itertools.count(1):
            journal.append(1, Spawned() if turn == 1 else Sent(9, "x" * 3000))
            fill(journal, range(turn, turn + 1))
            journal.maintain()
            sizes.append((tmp_path / DATABASE).stat().st_size)
            if turn == 300:
                break
        assert journal.verify() is None
    assert max(sizes) < 2_000_000 and max(sizes[150:]) <= max(sizes[:150]) * 1.2
    with Journal.open(tmp_path, policy) as journal:
        assert journal.loss is None
        assert len(journal.unfinished().processes[3].conversation) == 300


def test_the_fold_of_the_stored_is_the_fold_of_the_records(journal: Journal) -> None:
    fill(journal, range(1, 2))
    state = MachineState()
    for record in journal.records():
        state = fold(state, record)
    assert journal.unfinished() == state


def test_no_jax(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from llmos.kernel.journal import Journal;"
        "Journal.open(pathlib.Path(sys.argv[1])).close();"
        "sys.exit(any(m.partition('.')[0] in ('jax', 'jaxlib', 'numpy', 'flax') for m in sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    assert (
        subprocess.run([sys.executable, "-c", code, tmp_path], env=environment, check=False).returncode == 0
    )


def test_a_reader_that_is_slow_holds_nothing_up(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storing, "_READ_ROWS", 7)
    fill(journal, range(1, 3))
    reader = journal.records()
    first = next(reader)
    fill(journal, range(3, 5))
    journal._writer.run(lambda store: store.checkpoint(0)).result()
    rest = list(reader)
    assert [r.seq for r in (first, *rest)] == list(range(1, journal._writer.last + 1))


def test_stores_for_reading_cannot_write(journal: Journal) -> None:
    store = Store(journal.folder / DATABASE, write=False)
    with pytest.raises(JournalError, match="readonly"), store.transaction():
        store.drop_snapshots(0)
    store.close()
