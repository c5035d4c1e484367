"""The page pool's bookkeeping: which KV page belongs to whom. (The bytes live on the device, in the runner.)

What: reference counts, a free list, and a prefix cache that finds full pages again by content.
Invariant: a page is free, or referenced by sequences, or unreferenced but cached (least recently used goes
    first). A page is cached under a hash over everything that made its KV: the pages before it, its tokens,
    the pool's identity (weights, numeric mode), the adapter's version; so equal hash means bit-equal KV, by the row
    contract. Its label is part of the hash too: only equals share.
    Page 0 is never handed out: rows of padding point at it.
Interface: `match`, `find`, `allocate`, `retain`, `release`, `publish`, `free`, `leaked`, `cached`; `on_evict` and
    `on_free` are called before a page that was found by content is handed out, and when what a page held is of no
    more use.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b

from llmos.abi.errors import PoolExhausted

PageHash = bytes


def page_hash(parent: PageHash, tokens: Sequence[int], label: bytes = b"") -> PageHash:
    """Content address of a full page: 16 bytes over its parent's hash, its tokens and their label."""
    digest = blake2b(parent, digest_size=16, salt=blake2b(label, digest_size=16).digest() if label else b"")
    digest.update(b"".join(t.to_bytes(4, "little") for t in tokens))
    return digest.digest()


def adapted_root(root: PageHash, version: str) -> PageHash:
    """Where the hashes begin of what an adapter of this version computes: apart from all others."""
    return blake2b(version.encode(), digest_size=16, key=root, person=b"adapter").digest()


def blended_root(root: PageHash, pieces: Sequence[int], again: Sequence[int]) -> PageHash:
    """Where the hashes begin of a window that is put together of pieces that end there, of which the tokens `again` are
    computed again: apart from all others."""
    ends = b"".join(end.to_bytes(4, "little") for end in (*pieces, *again))
    return blake2b(ends, digest_size=16, key=root, person=b"blend").digest()


class PagePool:
    """Bookkeeping of `pages` pages of `page` token slots each; `identity` goes into every hash."""

    def __init__(self, pages: int, page: int, identity: str) -> None:
        if pages < 2:
            raise PoolExhausted(
                f"a pool of {pages} pages holds nothing", do="raise `kernel.pool` in llmos.yaml"
            )
        self.pages, self.page = pages, page
        self.root: PageHash = blake2b(identity.encode(), digest_size=16).digest()
        self._free = list(range(pages - 1, 0, -1))
        self._references = [0] * pages
        self._cached: dict[PageHash, int] = {}
        self._hash_of: dict[int, PageHash] = {}
        self._evictable: OrderedDict[int, None] = OrderedDict()  # unreferenced and cached, oldest first
        self.on_evict: Callable[[Mapping[int, PageHash]], object] = lambda pages: None
        self.on_free: Callable[[Sequence[int]], object] = lambda pages: None

    @property
    def free(self) -> int:
        """Pages that can be handed out now, cached ones included."""
        return len(self._free) + len(self._evictable)

    @property
    def leaked(self) -> int:
        """Pages still referenced; zero once every sequence has been closed."""
        return self.pages - 1 - self.free

    @property
    def cached(self) -> dict[int, PageHash]:
        """Pages that nobody holds and that can be found by content, the one to go first in front."""
        return {page: self._hash_of[page] for page in self._evictable}

    def allocate(self, count: int) -> list[int]:
        """Take `count` pages, each with one reference; evicts cached pages nobody holds, oldest first.

        Raises:
            PoolExhausted: fewer than `count` are free; nothing was taken.
        """
        if count > self.free:
            raise PoolExhausted(f"{count} pages wanted, {self.free} of {self.pages} free")
        taken: list[int] = []
        evicted: dict[int, PageHash] = {}
        for _ in range(count):
            if self._free:
                page = self._free.pop()
            else:
                page, _ = self._evictable.popitem(last=False)
                evicted[page] = self._hash_of.pop(page)
                del self._cached[evicted[page]]
            self._references[page] = 1
            taken.append(page)
        if evicted:
            self.on_evict(evicted)
            self.on_free(list(evicted))
        return taken

    def retain(self, pages: Iterable[int]) -> None:
        """Add one reference to each page."""
        for page in pages:
            self._references[page] += 1
            self._evictable.pop(page, None)

    def release(self, pages: Iterable[int]) -> None:
        """Drop one reference from each page. Later pages are evicted before earlier ones of the same prefix."""
        freed: list[int] = []
        for page in reversed(list(pages)):
            self._references[page] -= 1
            if self._references[page] == 0:
                if page in self._hash_of:
                    self._evictable[page] = None
                else:
                    freed.append(page)
        if freed:
            self._free += freed
            self.on_free(freed)

    def match(self, hashes: Iterable[PageHash]) -> list[int]:
        """The longest cached run of pages under `hashes`, each retained for the caller."""
        found: list[int] = []
        for h in hashes:
            page = self._cached.get(h)
            if page is None:
                break
            found.append(page)
        self.retain(found)
        return found

    def find(self, h: PageHash) -> int | None:
        """The page under this hash; nobody holds it by that."""
        return self._cached.get(h)

    def publish(self, page: int, h: PageHash) -> None:
        """Make a full page findable. The first page under a hash wins; a twin stays private."""
        if h not in self._cached and page not in self._hash_of:
            self._cached[h] = page
            self._hash_of[page] = h
