"""The journal: what happened, on the disk before anybody hears of it.

What: the durable log of the machine. Kernel threads append records; one writer thread commits them together and
    then lets out what was waiting for them (output commit); after a crash the log says how every process stood.
Invariant: a record that was reported durable is there after any crash, once, in order, or its loss is reported.
    One journal has one owner: a second kernel on the same folder is refused.
Interface: `Journal.open(folder)`, then `append`, `commit` once a step, `after`, `wait`; `records`, `unfinished`,
    `verify`; `snapshot`, `prune`, `maintain`; `loss`, `trouble`; `close`. `read(folder)` for who does not own it.

    with Journal.open(folder) as journal:
        seq = journal.append(pid, Sampled(turn, position, tokens))
        journal.after(seq, lambda: stream.put(token))
        journal.commit()  # the step is over
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from llmos.abi.errors import JournalError, LLMOSError
from llmos.drivers.whole import sync
from llmos.kernel.journal import snapshot as snapshots
from llmos.kernel.journal.chain import Head, Link
from llmos.kernel.journal.owner import Owner
from llmos.kernel.journal.records import Body, Record, encode, name_of, prepare
from llmos.kernel.journal.recovery import DATABASE, HEAD, Loss, examine, record_of, recover
from llmos.kernel.journal.snapshot import Retention
from llmos.kernel.journal.state import MachineState, fold_all
from llmos.kernel.journal.store import Store, disk_errors
from llmos.kernel.journal.writer import Writer


class Journal:
    """Made by `open`. Every method from any thread."""

    def __init__(
        self, folder: Path, policy: Retention, parts: contextlib.ExitStack, writer: Writer, loss: Loss | None
    ) -> None:
        self.folder, self.policy, self.loss = folder, policy, loss
        self._parts, self._writer = parts, writer
        self._keeping = threading.Lock()
        self._snapshot_at = 0
        self._state: MachineState | None = None

    @classmethod
    def open(cls, folder: Path, policy: Retention | None = None, *, whole: bool = False) -> Self:
        """Own the folder's journal, checked and ready to be written.

        Args:
            folder: made if it is not there.
            policy: of snapshots and pruning.
            whole: check the whole chain, not only what came after the newest snapshot.

        Raises:
            JournalInUse: another kernel owns it.
            DiskFull, JournalError: it cannot be opened, or is of a later version.
        """
        path = folder / DATABASE
        with contextlib.ExitStack() as parts, disk_errors(path):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # it holds what was said
            parts.callback(Owner(folder).release)
            head = Head(folder / HEAD)
            parts.callback(head.close)
            found, aside = recover(folder, head, whole=whole)
            store = Store(path)
            parts.callback(store.close)
            # What a killed kernel had committed may be in the page cache only: to the disk with it, then the head.
            store.checkpoint(0)
            end = store.last()
            if head.read() != end:
                head.write(end)
                head.write(
                    end
                )  # both slots: after a loss the other one may hold another hash for this number
            sync(folder)
            snapshot_at = max((s.at.seq for s in store.snapshots()), default=0)
            writer = Writer(store, head, end)
            writer.run(lambda _: prepare())
            journal = cls(folder, policy or Retention(), parts.pop_all(), writer, found.loss(aside))
        journal._state, journal._snapshot_at = found.state, snapshot_at
        return journal

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write and deliver what is queued, and give the folder back.

        Raises:
            DiskFull, JournalError: the last records could not be written; nothing that hangs on them was delivered.
        """
        with self._parts:
            self._writer.close()

    # --- writing ----------------------------------------------------------------------------------------------

    def append(self, pid: int, body: Body) -> int:
        """Queue a record of process `pid` (0: the kernel); its number. Never waits for the disk.

        Raises:
            JournalError: a value that JSON cannot hold, or the journal is closed.
            DiskFull: the disk has been full for so long that no more can be queued.
        """
        return self._writer.append(pid, *encode(body))

    def commit(self) -> None:
        """The step is over: what is queued may go to the disk, in one transaction. Returns at once."""
        self._writer.commit()

    def after(self, seq: int, callback: Callable[[], object]) -> None:
        """Run the callback once record `seq` is durable: on the writer's thread, in the order of `seq`.

        While the disk refuses (`trouble`) nothing runs; an error in a callback is logged and stops nothing.
        """
        self._writer.after(seq, callback)

    def wait(self, seq: int, timeout: float | None = None) -> None:
        """Return when record `seq` is durable; commits at once.

        Raises:
            DiskFull, JournalError: the disk refused; the record stays queued, and is written when there is room.
            TimeoutError: `timeout` seconds have passed.
        """
        self._writer.wait(seq, timeout)

    @property
    def trouble(self) -> LLMOSError | None:
        """Why nothing is written or delivered at present; None when all is well. It goes away by itself."""
        return self._writer.trouble

    # --- reading ----------------------------------------------------------------------------------------------

    def records(
        self, pid: int | None = None, *, after: int = 0, kinds: Sequence[type[Body]] | None = None
    ) -> Iterator[Record]:
        """Committed records in order, on a connection of their own; the reader may be slow."""
        return read(self.folder, pid, after=after, kinds=kinds)

    def unfinished(self) -> MachineState:
        """How every process that is not reaped stands, by all that is committed."""
        state, self._state = self._state, None
        return _state(self.folder, state)

    def verify(self) -> Loss | None:
        """Check the whole chain of what is committed; what is wrong, or None. Changes nothing.

        `open(whole=True)` sets what is damaged aside.
        """
        durable = self._writer.durable
        with contextlib.closing(_reader(self.folder)) as store:
            return examine(store, durable, whole=True).loss()

    # --- keeping ----------------------------------------------------------------------------------------------

    def snapshot(self) -> None:
        """Store the state as it stands, so that a boot starts from here."""
        with self._keeping:
            state = _state(self.folder, None)
            if state.seq <= self._snapshot_at:
                return

            def job(store: Store) -> None:
                snapshots.take(store, Link(state.seq, store.hash_at(state.seq)), state)

            self._writer.run(job).result()
            self._snapshot_at = state.seq

    def prune(self) -> int:
        """Forget what the policy lets go, as far as two snapshots cover it; how many records went."""
        gone = 0
        with self._keeping:
            steps: list[Iterator[int]] = []
            self._writer.run(lambda store: steps.append(snapshots.prune(store, self.policy))).result()
            while (step := self._writer.run(lambda store: next(steps[0], None)).result()) is not None:
                gone += step
        return gone

    def maintain(self) -> None:
        """Snapshot and prune when due. Takes a while now and then: call it off the step's thread."""
        if self._writer.durable.seq - self._snapshot_at >= self.policy.snapshot_records:
            self.snapshot()
            self.prune()


def read(
    folder: Path, pid: int | None = None, *, after: int = 0, kinds: Sequence[type[Body]] | None = None
) -> Iterator[Record]:
    """Committed records of a journal, whoever owns it.

    Args:
        pid: of one process only.
        after: only records with greater numbers.
        kinds: only records of these kinds.

    Raises:
        JournalError: there is no journal, it is damaged, or of a later version.
    """
    names = None if kinds is None else [name_of(kind) for kind in kinds]
    with contextlib.closing(_reader(folder)) as store:
        for row, _ in store.rows(after=after, pid=pid, kinds=names):
            yield record_of(row)


def _state(folder: Path, state: MachineState | None) -> MachineState:
    """The fold of all that is committed, from `state` or the newest good snapshot on."""
    with contextlib.closing(_reader(folder)) as store:
        if state is None:
            found = (snapshots.good(stored) for stored in store.snapshots())
            state = next((s for s in found if s is not None), MachineState())
        return fold_all(state, (record_of(row) for row, _ in store.rows(after=state.seq)))


def _reader(folder: Path) -> Store:
    if not (folder / DATABASE).exists():
        raise JournalError(
            f"there is no journal in {folder}", do="name the state folder of a kernel that has run"
        )
    return Store(folder / DATABASE, write=False)
