"""Swap: KV leaves the pool for the page store, and comes back instead of being computed again.

What: when room runs short the pool hands its least recently used page to somebody else; what it held goes to the
    store first. A sequence that is swapped out gives its pages back, so they are such pages; its last one, which is
    not full, is stored at once, for nobody else could find it. Whoever runs again brings in what the store has.
Invariant: pages come back verbatim, under the key of everything that made them; by the row contract that is
    token-identical to never having left. Nothing depends on the store: what it lost is computed again. The engine
    waits for no disk: who has pages there stands still until they are in host memory, others go on.
Interface: `Swap(pool, runner, store, post)`: `out(sequence)`, `bring(sequence, room)`, `keep()`, `copies(keys)`;
    `faults`, `lost`. The engine thread's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Sequence as Rows
from typing import TYPE_CHECKING

import numpy as np

from llmos.kernel.engine.pages import PageHash, PagePool

if TYPE_CHECKING:
    from llmos.kernel.engine.engine import Runner
    from llmos.kernel.engine.sequence import Sequence
    from llmos.memory.pagefile import Page
    from llmos.memory.pages import Store

FETCH = 64  # pages that are read from disk at once: others' pages are not kept waiting for long windows
MOVED = 64  # pages that are copied from the pool at once


class Swap:
    """Between a pool and a store."""

    def __init__(
        self, pool: PagePool, runner: Runner, store: Store | None, post: Callable[[Callable[[], None]], None]
    ) -> None:
        """`post` has something done on the engine's thread. Without a store only the pool remembers pages."""
        self.faults = self.lost = 0  # pages that came back, and those that were damaged
        self._pool, self._runner, self._store, self._post = pool, runner, store, post
        if store is not None:
            self._like = runner.read_pages([0])[0]
            pool.on_evict = self._keep

    @property
    def page_bytes(self) -> int:
        """Of one page over all layers; 0 without a store."""
        return 0 if self._store is None else int(self._like.nbytes)

    def out(self, sequence: Sequence) -> None:
        """Swap a sequence out: its pages can be taken from now on, and nothing of it is lost by that."""
        if self._store is not None and (tail := sequence.tail()):
            page, key = tail
            self._keep({page: key})
        sequence.drop()
        sequence.stream.swapped = True

    def bring(
        self, sequence: Sequence, room: Callable[[int], bool], more: Callable[[], bool] = lambda: True
    ) -> bool:
        """Give `sequence` what pool and store have of it; whether it can go on now.

        Args:
            room: takes pages for so many more tokens; False where it must wait for them.
            more: brings what neither has, and says whether that is done.
        """
        while True:
            sequence.find_prefix()
            wanted = [] if self._store is None else sequence.wanted(FETCH)
            if ready := self._ready(sequence, wanted):
                if not self._write(sequence, wanted[: len(ready)], ready, room):
                    return False
            elif self._store is not None and wanted and wanted[0] in self._store:
                self._fetch(self._store, sequence, wanted)
                return False
            else:
                if done := more():
                    sequence.found()
                return done

    def copies(self, keys: Rows[PageHash]) -> dict[PageHash, Page]:
        """Of these pages, in order, those that pool or host memory have, up to the first that neither has."""
        found: dict[PageHash, Page] = {}
        for key in keys:
            page = self._pool.find(key)
            copy = None if self._store is None else self._store.get(key)
            if page is not None:
                copy = self._runner.read_pages([page]).reshape(-1).view(np.uint8)
            if copy is None:
                break
            found[key] = copy
        return found

    def keep(self) -> None:
        """Store what the pool still remembers: the machine is going down."""
        if self._store is not None:
            self._keep(self._pool.cached)

    def _keep(self, pages: Mapping[int, PageHash]) -> None:
        """Store these pages under these hashes, where the store has not got them."""
        assert self._store is not None
        new = [(page, h) for page, h in pages.items() if h not in self._store]
        for at in range(0, len(new), MOVED):
            some = new[at : at + MOVED]
            data = self._runner.read_pages([page for page, _ in some])
            for (_, h), page in zip(some, data, strict=True):
                # Each in memory of its own: one that stays must not hold that of the others.
                self._store.put(h, page.reshape(-1).view(np.uint8).copy())

    def _ready(self, sequence: Sequence, wanted: Rows[PageHash]) -> list[Page]:
        """The first of these that are in host memory."""
        ready: list[Page] = []
        for key in wanted:
            page = sequence.fetched.get(key)
            if page is None and self._store is not None:
                page = self._store.get(key)
            if page is None:
                break
            ready.append(page)
        return ready

    def _write(
        self, sequence: Sequence, keys: Rows[PageHash], ready: Rows[Page], room: Callable[[int], bool]
    ) -> bool:
        before, tokens = len(sequence.pages), sequence.tokens_of(len(ready))
        if not room(tokens):
            return False
        like = self._like
        data = np.stack([page.view(like.dtype).reshape(like.shape) for page in ready])
        self._runner.write_pages(sequence.pages[before : before + len(ready)], data)
        for key in keys:
            sequence.fetched.pop(key, None)
        sequence.advance(tokens)
        sequence.faults += len(ready)
        self.faults += len(ready)
        return True

    def _fetch(self, store: Store, sequence: Sequence, keys: Rows[PageHash]) -> None:
        """Have the disk read for `sequence`, which stands still until it is."""

        def arrived(found: dict[bytes, Page], lost: int) -> None:
            sequence.fetching = False
            sequence.fetched |= found
            sequence.lost += lost
            self.lost += lost

        sequence.fetching = True
        store.fetch(keys, lambda found, lost: self._post(lambda: arrived(found, lost)))
