"""The one thread that writes the journal.

What: takes what was queued since the last time, commits it in one transaction, makes the head durable, then
    delivers: runs the callbacks of what is durable now, in order.
Invariant: nothing is delivered before its record and the head are on the disk. Nothing leaves the queue before
    its commit: when the disk is full, what is queued stays, in order, and is tried again. Adding to the queue
    never waits for the disk.
Interface: `Writer(store, head, end)`: `append`, `commit`, `after`, `wait`, `run` (a job on the connection),
    `trouble`, `close`. It owns `store` and `head` from the start.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from llmos.abi.errors import JournalError, LLMOSError
from llmos.kernel.journal.chain import Head, Link, Row
from llmos.kernel.journal.store import Store, disk_errors

MAX_AGE_S = 0.1  # that a record may wait for its commit
MAX_QUEUED_BYTES = 256 << 20  # of bodies; more is refused: the disk has been full for long
_RETRY_S = (0.05, 1.0)  # from, to: pause before another try when the disk refused
_BATCH_ROWS = 10_000  # a transaction, at most

T = TypeVar("T")
log = logging.getLogger("llmos.journal")


class Writer:
    """See the module. All methods from any thread; callbacks and jobs run on the writer's own."""

    def __init__(self, store: Store, head: Head, end: Link) -> None:
        self._store, self._head = store, head
        self._written = end  # in the database
        self._durable = end  # in the head file too
        self._last = end.seq  # the last number given out
        self._queue: list[Row] = []
        self._oldest = 0.0  # monotonic time of the queue's first
        self._bytes = 0
        self._due = self._closing = self._gave_up = self._closed = False
        self._callbacks: list[tuple[int, int, Callable[[], object]]] = []
        self._added = 0
        self._jobs: list[tuple[Callable[[Store], Any], Future[Any]]] = []
        self._trouble: LLMOSError | None = None
        self._failures = 0
        self._retry_at = 0.0
        lock = threading.Lock()
        self._wake, self._done = threading.Condition(lock), threading.Condition(lock)
        self._thread = threading.Thread(target=self._main, name="journal", daemon=True)
        self._thread.start()

    # --- any thread -------------------------------------------------------------------------------------------

    def append(self, pid: int, kind: str, body: bytes) -> int:
        """Queue a record; its number. Microseconds."""
        now_ms = time.time_ns() // 1_000_000
        with self._wake:
            self._check_open()
            if self._bytes + len(body) > MAX_QUEUED_BYTES:
                raise self._trouble or JournalError(
                    "the journal cannot keep up", why=f"{self._bytes:,} bytes are waiting to be written",
                    do="let fewer processes run, or give it a faster disk",
                )  # fmt: skip
            self._last += 1
            self._queue.append(Row(self._last, now_ms, pid, kind, body))
            self._bytes += len(body)
            if len(self._queue) == 1:
                self._oldest = time.monotonic()
                self._wake.notify()
            return self._last

    def commit(self) -> None:
        """What is queued may go to the disk now; returns at once."""
        with self._wake:
            if self._queue and not self._due:
                self._due = True
                self._wake.notify()

    def after(self, seq: int, callback: Callable[[], object]) -> None:
        """Run the callback on the writer's thread once record `seq` is durable."""
        with self._wake:
            self._check_open()
            self._check_number(seq)
            self._added += 1
            heapq.heappush(self._callbacks, (seq, self._added, callback))
            if seq <= self._durable.seq:
                self._wake.notify()

    def wait(self, seq: int, timeout: float | None = None) -> None:
        """Return when record `seq` is durable.

        Raises:
            DiskFull, JournalError: the disk refused it; it stays queued and is tried again.
            TimeoutError: not yet.
        """
        if threading.current_thread() is self._thread:
            raise JournalError(
                "a callback cannot wait for the journal", why="the journal waits for the callback"
            )
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._wake:
            self._check_number(seq)
            failures = self._failures
            while self._durable.seq < seq:
                if self._failures > failures and self._trouble:
                    raise self._trouble
                if self._closed:
                    raise JournalError("the journal is closed", why=f"record {seq} was never written")
                self._due = True
                self._wake.notify()
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError(f"record {seq} is not durable after {timeout} s")
                self._done.wait(left)

    def run(self, job: Callable[[Store], T]) -> Future[T]:
        """Run a job on the connection, between two commits."""
        future: Future[T] = Future()
        with self._wake:
            self._check_open()
            self._jobs.append((job, future))
            self._wake.notify()
        return future

    @property
    def trouble(self) -> LLMOSError | None:
        """Why nothing is delivered at present; None when all is well."""
        return self._trouble

    @property
    def last(self) -> int:
        """The number of the last record that was queued."""
        return self._last

    @property
    def durable(self) -> Link:
        """The last record that is durable."""
        return self._durable

    def close(self) -> None:
        """Write what is queued, deliver it, and end.

        Raises:
            DiskFull, JournalError: the last records could not be written; they were never delivered.
        """
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()
        if self._trouble:
            raise self._trouble

    def _check_open(self) -> None:
        if self._closing:
            raise JournalError("the journal is closed", do="open it again")

    def _check_number(self, seq: int) -> None:
        if seq > self._last:
            raise JournalError(f"there is no record {seq}", why=f"the last one is {self._last}")

    # --- the writer's thread ----------------------------------------------------------------------------------

    def _main(self) -> None:
        try:
            while self._sleep():
                self._work()
        except BaseException as error:
            log.exception("the journal's writer ended")
            self._trouble = JournalError("the journal's writer ended", why=str(error), do="report this")
        finally:
            with self._wake:
                self._closed = True
                self._failures += 1
                self._done.notify_all()
            for _, future in self._jobs:
                future.cancel()

    def _sleep(self) -> bool:
        """Wait for work; False when all is done and it is time to end."""
        with self._wake:
            while True:
                now = time.monotonic()
                if self._jobs or (self._callbacks and self._callbacks[0][0] <= self._durable.seq):
                    return True
                pending = bool(self._queue) or self._durable.seq < self._written.seq
                if self._closing:
                    return pending and not self._gave_up
                at = max(now if self._due else self._oldest + MAX_AGE_S, self._retry_at)
                if pending and at <= now:
                    return True
                self._wake.wait(at - now if pending else None)

    def _work(self) -> None:
        now = time.monotonic()
        ripe = self._due or now >= self._oldest + MAX_AGE_S  # else it was a job that woke us
        if self._closing or (ripe and now >= self._retry_at):
            try:
                self._write()
            except LLMOSError as error:
                self._refused(error)
        self._deliver()
        while self._jobs:
            job, future = self._jobs.pop(0)
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(job(self._store))
                except BaseException as error:
                    future.set_exception(error)

    def _write(self) -> None:
        """One transaction of what is queued, then the head."""
        begun = time.monotonic()
        with self._wake:
            rows = self._queue[:_BATCH_ROWS]
            self._due = len(rows) < len(self._queue)
        if rows:
            self._written = self._store.append(self._written, rows)
            with self._wake:
                del self._queue[: len(rows)]
                self._bytes -= sum(len(row.body) for row in rows)
                self._oldest = begun
                self._due = self._due and bool(self._queue)
        if self._durable.seq < self._written.seq:
            with disk_errors(self._store.path):
                self._head.write(self._written)
            with self._wake:
                self._durable, self._trouble, self._failures = self._written, None, 0
                self._done.notify_all()

    def _refused(self, error: LLMOSError) -> None:
        first, most = _RETRY_S
        with self._wake:
            self._trouble, self._gave_up = error, self._closing
            self._failures += 1
            self._retry_at = time.monotonic() + min(first * 2**self._failures, most)
            self._done.notify_all()
        log.warning("%s", error)

    def _deliver(self) -> None:
        """Run what waits for records that are durable now; afterwards, off everybody's path, the WAL."""
        while True:
            with self._wake:
                if not self._callbacks or self._callbacks[0][0] > self._durable.seq:
                    break
                callback = heapq.heappop(self._callbacks)[2]
            try:
                callback()
            except BaseException:
                log.exception("a callback of the journal failed")
        try:
            self._store.checkpoint()
        except LLMOSError as error:
            log.warning("%s", error)
