"""The page store: KV that has left the pool, in host memory and on disk.

What: pages by key. A key names everything that made the page's KV (weights, numerics, the pages before it, its
    tokens, their label), so what is found under it is what would be computed. What host memory has no room for goes
    to disk, what the disk has no room for is forgotten; the least valuable first, on both.
Invariant: never a wrong page: a file that is not what was written is dropped, and its page is computed again. The
    caller never waits for the disk: one thread of the store writes and reads it. A full or failing disk costs pages,
    nothing else. Both levels are bounded.
Interface: `PageStore(folder, ram=…, disk=…)`: `put`, `get` (host memory), `in` (both), `fetch` (disk), `flush`,
    `close`, `held`, `counters`. Any thread.
"""

from __future__ import annotations

import errno
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from llmos.drivers.whole import UNFINISHED
from llmos.memory import pagefile
from llmos.memory.pagefile import Page
from llmos.memory.shelf import Shelf

KEY_BYTES = 16
QUEUED_BYTES = 64 << 20  # on their way to the disk; what comes in faster than it writes is forgotten
REST_S = 30.0  # between two tries of a disk that was full
STALE_S = 600.0  # after which a file that was never finished is nobody's any more

log = logging.getLogger("llmos.pages")

Fetched = Callable[[dict[bytes, Page], int], None]
"""Takes the pages that were read, and how many turned out to be damaged."""


class Store(Protocol):
    """What those who keep KV need of a `PageStore`."""

    def __contains__(self, key: bytes) -> bool: ...
    def put(self, key: bytes, page: Page) -> None: ...
    def get(self, key: bytes) -> Page | None: ...
    def fetch(self, keys: Sequence[bytes], then: Fetched) -> None: ...


@dataclass(slots=True)
class StoreCounters:
    """Pages, since the store was opened."""

    stored: int = 0
    written: int = 0  # to disk
    read: int = 0  # from disk
    damaged: int = 0  # files that were not what was written
    refused: int = 0  # that the disk did not take


class PageStore:
    """See the module."""

    def __init__(self, folder: Path | None, *, ram: int, disk: int) -> None:
        """
        Args:
            folder: of the files; made when it is needed. None for host memory alone.
            ram, disk: bounds, in bytes.
        """
        self.counters = StoreCounters()
        self._folder = folder if disk > 0 else None
        self._pages: dict[bytes, Page] = {}
        self._leaving: dict[bytes, Page] = {}  # queued for the disk
        self._queued = 0  # bytes of them
        self._ram, self._disk = Shelf(ram), Shelf(disk)
        self._lock = threading.Lock()
        self._rests_until = 0.0
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        if self._folder is not None:
            self._discover(self._folder)

    # -- any thread ------------------------------------------------------------------------------------------------

    def __contains__(self, key: bytes) -> bool:
        with self._lock:
            return key in self._ram or key in self._leaving or key in self._disk

    @property
    def held(self) -> tuple[int, int]:
        """Bytes in host memory and on disk."""
        with self._lock:
            return self._ram.held, self._disk.held

    def put(self, key: bytes, page: Page) -> None:
        """Keep a page; the caller must not write to it any more."""
        with self._lock:
            self.counters.stored += 1
            if key not in self._ram:
                self._pages[key] = page
            for gone in self._ram.add(key, page.nbytes):
                self._leave(gone, self._pages.pop(gone))

    def get(self, key: bytes) -> Page | None:
        """The page, where host memory has it."""
        with self._lock:
            if key in self._ram:
                self._ram.touch(key)
                return self._pages[key]
            return self._leaving.get(key)

    def fetch(self, keys: Sequence[bytes], then: Fetched) -> None:
        """Read pages from disk, up to the first that is not there, and give them to `then`, on the store's thread."""
        self._do(lambda: then(*self._read(keys)))

    def flush(self, seconds: float) -> None:
        """Write what is in host memory to disk, the most valuable first, for at most so long; returns when done."""
        until, done = time.monotonic() + seconds, threading.Event()
        with self._lock:
            order = [*self._leaving, *reversed(list(self._ram))]
        for key in order if self._folder is not None else ():
            self._do(lambda key=key: self._write(key) if time.monotonic() < until else None)  # type: ignore[misc]
        self._do(done.set)
        done.wait()

    def close(self) -> None:
        """Stop the store's thread, when it has done what it was asked. Idempotent."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None

    # -- the disk --------------------------------------------------------------------------------------------------

    def _do(self, job: Callable[[], None]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="llmos-pages", daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception:  # of a caller's `then`: the next job may be another's
                log.exception("a job of the page store failed")

    def _path(self, key: bytes) -> Path:
        assert self._folder is not None
        name = key.hex()
        return self._folder / name[:2] / name

    def _discover(self, folder: Path) -> None:
        """Know what an earlier kernel left, oldest first."""
        found: list[tuple[float, bytes, int]] = []
        for path in folder.glob("??/*"):
            try:
                stat = path.stat()
                if path.name.endswith(UNFINISHED):
                    if time.time() - stat.st_mtime > STALE_S:
                        path.unlink()
                    continue
                key = bytes.fromhex(path.name)
            except (OSError, ValueError):
                continue
            if len(key) == KEY_BYTES:
                found.append((stat.st_mtime, key, stat.st_size))
        for _, key, size in sorted(found):
            self._forget(self._disk.add(key, size))

    def _leave(self, key: bytes, page: Page) -> None:
        """A page goes from host memory to disk, or is forgotten. Under the lock."""
        if self._folder is None or key in self._disk or key in self._leaving:
            return
        if self._queued + page.nbytes > QUEUED_BYTES:
            self.counters.refused += 1
            return
        self._leaving[key] = page
        self._queued += page.nbytes
        self._do(lambda: self._write(key))

    def _write(self, key: bytes) -> None:
        """On the store's thread."""
        with self._lock:
            page = self._leaving.get(key, self._pages.get(key))
            known = key in self._disk
        try:
            if page is None or known:
                return
            if time.monotonic() < self._rests_until:
                self.counters.refused += 1
                return
            assert self._folder is not None
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # the mode is the last folder's only
            size = pagefile.write(self._path(key), key, page)
            with self._lock:
                self.counters.written += 1
                gone = self._disk.add(key, size)
            self._forget(gone)
        except OSError as error:
            self.counters.refused += 1
            self._rests_until = time.monotonic() + REST_S
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            why = "the disk is full" if full else error.strerror or str(error)
            log.warning("KV pages are not swapped to %s: %s; they will be computed again", self._folder, why)
        finally:
            with self._lock:
                if (left := self._leaving.pop(key, None)) is not None:
                    self._queued -= left.nbytes

    def _read(self, keys: Sequence[bytes]) -> tuple[dict[bytes, Page], int]:
        """On the store's thread."""
        found: dict[bytes, Page] = {}
        damaged = self.counters.damaged
        for key in keys:
            page = self.get(key)
            if page is None:
                page = self._load(key)
            if page is None:
                break
            found[key] = page
        return found, self.counters.damaged - damaged

    def _load(self, key: bytes) -> Page | None:
        with self._lock:
            if key not in self._disk:
                return None
            self._disk.touch(key)
        path = self._path(key)
        try:
            page = pagefile.read(path, key)
            path.touch()  # the next kernel finds what was used last
            self.counters.read += 1
            return page
        except FileNotFoundError:  # another kernel on this folder had no room for it any more
            why = ""
        except pagefile.Damaged as error:
            why = str(error)
        except OSError as error:
            why = error.strerror or str(error)
        with self._lock:
            if key in self._disk:
                self._disk.remove(key)
            if why:
                self.counters.damaged += 1
        if why:
            log.warning("a KV page is dropped and computed again: %s: %s", path, why)
            self._forget([key])
        return None

    def _forget(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            try:
                self._path(key).unlink(missing_ok=True)
            except OSError as error:
                log.warning("a KV page cannot be removed: %s: %s", self._path(key), error.strerror)
