"""Snapshots, and what may be forgotten.

What: a snapshot is the folded state at a place in the chain, so a boot reads the records after it only; pruning
    replaces old records by a gap that the chain goes across.
Invariant: only what the older of the two kept snapshots covers is pruned: one damaged snapshot costs nothing.
    Turns that the user judged are kept, whatever their age: they are training data.
Interface: `Retention`, `take(store, at, state)`, `good(stored)`, `prune(store, retention)`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b

from llmos.abi.errors import JournalError
from llmos.kernel.journal.chain import HASH_BYTES, Link, Row
from llmos.kernel.journal.records import Booted, Spawned, decode
from llmos.kernel.journal.state import MachineState, dump, load
from llmos.kernel.journal.store import Gap, Store, StoredSnapshot

SNAPSHOTS = 2
_PRUNE_ROWS = 2000  # a transaction: commits of the running kernel wait for no more than this
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How much of the past is kept.

    Args:
        days: records older than this may go.
        bytes: of the file; where it holds more, the oldest records go, whatever their age.
        snapshot_records: a snapshot is due after so many records.
        keep_feedback: turns that were judged stay, and count in `bytes`.
    """

    days: float = 30.0
    bytes: int = 1 << 30
    snapshot_records: int = 20_000
    keep_feedback: bool = True


def _digest(at: Link, state: bytes) -> bytes:
    return blake2b(b"%d " % at.seq + at.hash + state, digest_size=HASH_BYTES).digest()


def take(store: Store, at: Link, state: MachineState) -> None:
    """Store a snapshot of the state at a place in the chain, and let go of the oldest one."""
    blob = dump(state)
    with store.transaction():
        store.put_snapshot(StoredSnapshot(at, blob, _digest(at, blob)))
        store.drop_snapshots(SNAPSHOTS)


def good(stored: StoredSnapshot) -> MachineState | None:
    """The state of a snapshot; None where it is damaged."""
    try:
        if _digest(stored.at, stored.state) != stored.digest:
            return None
        return load(stored.state)
    except (TypeError, JournalError):
        return None


def prune(store: Store, retention: Retention) -> Iterator[int]:
    """Forget by policy, one transaction an iteration, each yielding how many records went."""
    snapshots = store.snapshots()
    if len(snapshots) < SNAPSHOTS:
        return
    until, gone_before_ms = snapshots[-1].at.seq, time.time() * 1000 - retention.days * _DAY_MS
    judged = store.turns_with_feedback() if retention.keep_feedback else set()
    pids = {pid for pid, _ in judged}

    def kept(row: Row) -> bool:
        body = decode(row.kind, row.body)
        if isinstance(body, Booted | Spawned):
            return bool(judged) if isinstance(body, Booted) else row.pid in pids
        return (row.pid, getattr(body, "turn", None)) in judged

    after = 0
    while True:
        full, rows = store.size() > retention.bytes, list[tuple[Row, bytes]]()
        for row, hash in store.rows(after=after, until=until):
            if len(rows) == _PRUNE_ROWS or not (full or row.time < gone_before_ms):
                break
            rows.append((row, hash))
        if not rows:
            return
        after, gone = rows[-1][0].seq, 0
        with store.transaction():
            for first, end in _runs([(row.seq, hash) for row, hash in rows if not kept(row)]):
                _forget(store, first, end)
                gone += end.seq - first + 1
        yield gone


def _runs(rows: list[tuple[int, bytes]]) -> Iterator[tuple[int, Link]]:
    """Neighbours joined: the first sequence and the last link of each run."""
    first = 0
    for i, (seq, hash) in enumerate(rows):
        first = first or seq
        if i + 1 == len(rows) or rows[i + 1][0] != seq + 1:
            yield first, Link(seq, hash)
            first = 0


def _forget(store: Store, first: int, end: Link) -> None:
    """Replace the records first … end by a gap; it grows together with a gap that lies before it."""
    gap = Gap(first, end.seq, store.hash_at(first - 1), end.hash, "pruned")
    left = store.gap_to(first - 1)
    if left and left.why == "pruned":
        gap = replace(gap, first=left.first, before=left.before)
    store.remove(first, end.seq)
    store.put_gap(gap)
