"""A sequence: tokens that are being caught up with, and the stream that its reader holds.

What: `Request` (what to generate), `Sequence` (the engine's side), `Stream` (the reader's side; a
    `BlockingStream` is read by a thread).
Invariant: `computed <= len(tokens)`; KV exists for the first `computed` tokens, in `pages`. Only the engine
    thread touches a Sequence; reader and engine meet in the Stream's bounded queue.
Interface: `Request(tokens=…, …)`, `Stream` (`cancel`, `pause`), `BlockingStream` (iterate).
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Rows
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from llmos.abi.errors import LLMOSError
from llmos.abi.labels import Label, join
from llmos.abi.limits import MAX_DRAFT, MAX_UNREAD
from llmos.kernel.engine.draft import Drafter
from llmos.kernel.engine.pages import PageHash, PagePool, adapted_root, blended_root, page_hash
from llmos.kernel.engine.sampling import Greedy, Randomness, Strategy
from llmos.kernel.recompute import borders
from llmos.kernel.scheduler import Priority

if TYPE_CHECKING:
    from llmos.drivers.weights.adapter import Adapter
    from llmos.memory.chunks import KV
    from llmos.memory.pagefile import Page

FinishReason = Literal["stop", "length", "cancelled"]


class Grammar(Protocol):
    """What a constrained sequence needs from its grammar. Stateful: it advances with `accept`."""

    def masks(self, draft: Rows[int], out: NDArray[np.uint32]) -> None:
        """Write the bit sets of allowed tokens [1 + len(draft), W]: now, and after each token of a draft.
        Rows after a token that is not allowed are left alone."""

    def instead(self, token: int) -> list[int] | None:
        """The tokens that are taken in place of `token`, already advanced over; None where it stands."""

    def accept(self, token: int) -> list[int]:
        """Advance by `token`; returns the tokens that must follow, already advanced over."""

    @property
    def finished(self) -> bool:
        """Nothing more may follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to generate: continue `tokens` by at most `max_tokens`, until a token of `stop`.

    `top` asks for that many of the likeliest tokens beside each one chosen; `draft` is the longest draft that
    a step may check (0: none; the output is the same). `labels` says where the prompt's words came from, as runs
    of (end, label) that cover it; pages are shared between equals only. None stands for the user's own words.
    `hint` is what is expected to come (a turn that is resumed): it is checked as a draft, many tokens a step.
    `pieces` says where pieces of the prompt end whose KV is put together instead of computed in this window: what
    stands in front of all knowledge, then passages (see blend.py). Without any, all is computed as it stands.
    `adapter` changes the model for this request alone; its KV is shared with requests of the same version only.
    `attend`: the last item says where the tokens from that place on looked (see gaze.py).
    """

    tokens: tuple[int, ...]
    max_tokens: int
    stop: frozenset[int] = frozenset()
    strategy: Strategy = field(default_factory=Greedy)
    randomness: Randomness = field(default_factory=Randomness)
    grammar: Grammar | None = None
    top: int = 0
    draft: int = MAX_DRAFT
    priority: Priority = Priority.INTERACTIVE
    labels: tuple[tuple[int, Label], ...] = ()
    hint: tuple[int, ...] = ()
    pieces: tuple[int, ...] = ()
    adapter: Adapter | None = None
    attend: int | None = None

    def label(self, start: int, end: int) -> Label:
        """The label of tokens `start` to `end`: of what was generated, that of all it was generated from."""
        if end > len(self.tokens):
            return join(label for _, label in self.labels)
        begins = (0, *(at for at, _ in self.labels))
        return join(
            label
            for begin, (at, label) in zip(begins, self.labels, strict=False)
            if begin < end and at > start
        )


@dataclass(frozen=True, slots=True)
class Emitted:
    """One token: its log-probability under the model's own distribution (None where a grammar forced it), and
    the likeliest alternatives as (id, log-probability), best first."""

    id: int
    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """A stream's last item."""

    reason: FinishReason
    cached_tokens: int
    pages: int
    faults: int = 0  # pages that came back from host memory or disk
    lost: int = 0  # pages that had been damaged on disk, and were computed again
    attention: NDArray[np.float32] | None = None  # of each token with KV its share, where that was asked for


Item = Emitted | Finished | LLMOSError  # what a stream carries; the last two end it


class Stream:
    """The reader's end of a sequence, and its handle on it.

    A reader that falls `MAX_UNREAD` tokens behind stops its own sequence, never the step.
    """

    def __init__(self) -> None:
        self.finished: Finished | None = None
        self.cancelled = self.paused = False
        self.swapped = False  # its sequence has had to leave the pool, and is not back
        self._wake: Callable[[], None] = lambda: None

    def attach(self, wake: Callable[[], None]) -> None:
        """Engine side: `wake` makes the engine look at this stream's state."""
        self._wake = wake

    @property
    def full(self) -> bool:
        """Engine side: the reader is too far behind to be given more."""
        raise NotImplementedError

    def put(self, item: Item) -> None:
        """Engine side: hand over an item."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Ask the engine to stop; the stream then ends with reason "cancelled". Idempotent, any thread."""
        self.cancelled = True
        self._wake()

    def pause(self, paused: bool = True) -> None:
        """Hold the sequence where it is, or let it go on; its pages may be taken meanwhile. Any thread."""
        self.paused = paused
        self._wake()


class BlockingStream(Stream):
    """For a thread: iterate over `Emitted`; afterwards `finished` is set. Raises what ended the sequence."""

    def __init__(self) -> None:
        super().__init__()
        self._queue: queue.SimpleQueue[Item] = queue.SimpleQueue()

    def __iter__(self) -> Iterator[Emitted]:
        while self.finished is None:
            item = self._queue.get()
            if self._queue.qsize() == MAX_UNREAD - 1:
                self._wake()
            if isinstance(item, LLMOSError):
                raise item
            if isinstance(item, Finished):
                self.finished = item
                return
            yield item

    @property
    def full(self) -> bool:
        return self._queue.qsize() >= MAX_UNREAD

    def put(self, item: Item) -> None:
        self._queue.put(item)


class Sequence:
    """The engine's side of one request."""

    def __init__(self, request: Request, stream: Stream, pool: PagePool, arrival: int) -> None:
        self.request, self.stream = request, stream
        self.priority, self.arrival, self.vtime = request.priority, arrival, -1.0
        self.tokens = list(request.tokens)
        self.end = len(request.tokens) + request.max_tokens
        self.computed = 0
        self.cached = 0  # tokens whose KV was found instead of computed
        self.pages: list[int] = []
        self.peak_pages = 0
        self.looking = True  # pages that it does not hold may be found
        self.fetching = False  # the disk is being read for it
        self.fetched: dict[PageHash, Page] = {}  # read, and not in the pool yet
        self.held: dict[bytes, KV] = {}  # of its pieces, until all are there
        self.faults = self.lost = 0
        self.drafter = Drafter(request.draft)
        self._pool = pool
        self._root = _root(pool.root, request)
        self._hint_seen, self._as_hinted = 0, True
        self._hashes: list[PageHash] = []  # of full pages, as far as known
        self._left = 0  # tokens that had KV when it was swapped out, where its last page was stored by itself

    def hinted(self) -> tuple[int, ...]:
        """What the request expects from here on; nothing once it was wrong."""
        prompt, hint = len(self.request.tokens), self.request.hint
        made = len(self.tokens) - prompt
        if made >= len(hint) or not self._as_hinted:
            return ()
        new = self.tokens[prompt + self._hint_seen :]
        self._as_hinted = tuple(new) == hint[self._hint_seen : made]
        self._hint_seen = made
        return hint[made:] if self._as_hinted else ()

    @property
    def behind(self) -> int:
        """Tokens without KV yet."""
        return len(self.tokens) - self.computed

    @property
    def runnable(self) -> bool:
        return self.behind > 0 and not (self.stream.full or self.stream.paused or self.fetching)

    def _hash(self, i: int) -> PageHash:
        """Hash of full page `i`."""
        page = self._pool.page
        while len(self._hashes) <= i:
            n = len(self._hashes)
            parent = self._hashes[-1] if n else self._root
            label = self.request.label(n * page, (n + 1) * page)
            self._hashes.append(page_hash(parent, self.tokens[n * page : (n + 1) * page], label.key))
        return self._hashes[i]

    @property
    def _full(self) -> int:
        """Pages that may be found. The last token is always left to compute: only a computed token has logits."""
        return (len(self.tokens) - 1) // self._pool.page

    def find_prefix(self) -> None:
        """Adopt the pages that the pool remembers, behind those that it holds."""
        if self.computed % self._pool.page == 0:
            self.pages += self._pool.match(self._hash(i) for i in range(len(self.pages), self._full))
            self.computed = len(self.pages) * self._pool.page
            self.peak_pages = max(self.peak_pages, len(self.pages))

    def wanted(self, limit: int) -> list[PageHash]:
        """Keys of what comes next behind the pages it holds, at most `limit`; the last may be a page's beginning."""
        page = self._pool.page
        if self.computed % page:
            return []
        keys = [self._hash(i) for i in range(len(self.pages), min(self._full, len(self.pages) + limit))]
        if self._left and len(keys) < limit:
            keys.append(self._key(self._left))
        return keys

    def tokens_of(self, count: int) -> int:
        """Tokens in the first `count` pages of what is `wanted`."""
        beyond = len(self.pages) + count > self._full
        return (self._left if beyond else (len(self.pages) + count) * self._pool.page) - self.computed

    def found(self) -> None:
        """Nothing more is to be found: the rest is computed."""
        self.looking = self.stream.swapped = False
        self.fetched.clear()
        self.held.clear()
        self.cached = max(self.cached, self.computed)

    def tail(self) -> tuple[int, PageHash] | None:
        """The last page and its key, where it is not full and holds all but the tokens just sampled."""
        full, part = divmod(self.computed, self._pool.page)
        self._left = self.computed if part and full == self._full else 0
        return (self.pages[full], self._key(self._left)) if self._left else None

    def _key(self, end: int) -> PageHash:
        """Hash of the page that holds the tokens up to `end` and is not full: nobody takes it for one that is."""
        start = end // self._pool.page * self._pool.page
        parent = self._hash(start // self._pool.page - 1) if start else self._root
        return page_hash(parent, self.tokens[start:end], self.request.label(start, end).key)

    def grow(self, count: int) -> None:
        """Hold pages enough for `count` more tokens of KV. Raises PoolExhausted, taking nothing."""
        needed = -(-(self.computed + count) // self._pool.page) - len(self.pages)
        if needed > 0:
            self.pages += self._pool.allocate(needed)
            self.peak_pages = max(self.peak_pages, len(self.pages))

    def advance(self, count: int) -> None:
        """Note that `count` more tokens have KV; pages that became full can now be found by others."""
        before, self.computed = self.computed // self._pool.page, self.computed + count
        for i in range(before, self.computed // self._pool.page):
            self._pool.publish(self.pages[i], self._hash(i))

    def drop(self) -> None:
        """Give back every page. What was full stays findable until evicted, so resuming is often cheap."""
        self._pool.release(self.pages)
        self.pages, self.computed, self.looking = [], 0, True


def _root(root: PageHash, request: Request) -> PageHash:
    """Where the hashes of a request's pages begin."""
    if request.adapter is not None:
        root = adapted_root(root, request.adapter.version)
    return blended_root(root, request.pieces, borders(request.pieces)) if request.pieces else root
