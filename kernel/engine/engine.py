"""The engine: one step for every process.

What: a thread that owns pool, sequences and device. Each step gives every runnable sequence a number of tokens
    to catch up under one budget; whoever reaches its last token samples the next. Prefill, decode, prefix
    reuse, forced tokens and drafts are all that one rule.
Invariant: only the engine thread touches sequences, pool and runner; others talk to it through `_inbox`.
    A step either happens whole or fails the sequences in it. What a step made is handed to `commit`, whose part
    it is to deliver it: a kernel with a journal does so once it is durable.
Interface: `Engine(runner, commit)`, `start(request, stream)`, `submit(request) -> BlockingStream`, `run(job)`,
    `close()`.
    It knows nothing about text.
"""

from __future__ import annotations

import itertools
import os
import queue
import threading
from collections.abc import Callable
from collections.abc import Sequence as Rows
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from llmos.abi.errors import EngineError, LLMOSError, PoolExhausted
from llmos.abi.limits import MAX_DRAFTING_ROWS
from llmos.kernel.engine.batch import Batch, SampleBatch, Sampled, Work
from llmos.kernel.engine.pages import PagePool
from llmos.kernel.engine.sequence import (
    BlockingStream,
    Emitted,
    Finished,
    FinishReason,
    Item,
    Request,
    Sequence,
    Stream,
)
from llmos.kernel.engine.swap import Swap
from llmos.kernel.scheduler import Scheduler, rank, victims
from llmos.kernel.trace import OFF, Trace

if TYPE_CHECKING:
    from llmos.drivers.weights.adapter import Adapter
    from llmos.kernel.engine.blend import Blender
    from llmos.memory.pages import Store

T = TypeVar("T")
Commit = Callable[[Rows[tuple[Stream, Item]]], None]


def deliver(items: Rows[tuple[Stream, Item]]) -> None:
    """Hand every item to its reader, at once."""
    for stream, item in items:
        stream.put(item)


class Runner(Protocol):
    """The device side: the real one runs the model, a test's may play given tokens."""

    pages: int
    page: int
    window: int  # tokens that one sequence may hold
    vocab: int
    processes: int  # sequences in one step
    budget: int  # tokens in one step
    latency_budget: int  # tokens in one step that somebody waits for word by word
    identity: str  # of everything that makes KV differ

    def forward(self, batch: Batch) -> object:
        """Start computing; returns a handle for `sample`. May return before it is done."""

    def sample(self, logits: object, rows: SampleBatch) -> Sampled:
        """Choose one token for each row; waits for the result."""

    def read_pages(self, pages: Rows[int]) -> NDArray[np.generic]:
        """What `pages` hold, verbatim [P, ...]; waits for what is being computed."""

    def write_pages(self, pages: Rows[int], data: NDArray[np.generic]) -> None:
        """Put what `read_pages` gave into `pages`."""

    def poison(self, pages: Rows[int]) -> None:
        """Fill `pages` with what nobody can take for KV."""

    def attention(
        self, tokens: Rows[int], looking: range, pages: Rows[int], adapter: Adapter | None
    ) -> NDArray[np.float32] | None:
        """How much of the attention of the tokens at `looking` each of `tokens` has; None where that is not known."""

    def check(self, adapter: Adapter) -> None:
        """AdapterMismatch where `adapter` cannot change this model. Any thread."""

    def adapt(self, adapter: Adapter) -> None:
        """Have `adapter` ready for the steps that bring it."""


@dataclass(slots=True)
class Counters:
    """What the engine has done since it started."""

    steps: int = 0
    tokens: int = 0
    emitted: int = 0
    preemptions: int = 0


class Engine:
    """Runs requests on a runner, many at a time, on a thread of its own."""

    def __init__(
        self,
        runner: Runner,
        commit: Commit = deliver,
        trace: Trace = OFF,
        scheduler: Scheduler | None = None,
        store: Store | None = None,
        blender: Blender | None = None,
    ) -> None:
        """`store` takes the pages that there is no room for; the engine does not close it. `blender` serves requests
        that are made of pieces."""
        self.pool = PagePool(runner.pages, runner.page, runner.identity)
        self.counters = Counters()
        self._runner = runner
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.swap = Swap(self.pool, runner, store, self._inbox.put)
        if os.environ.get("LLMOS_DEBUG"):
            self.pool.on_free = runner.poison
        self._blender = blender
        self._sequences: list[Sequence] = []  # in order of arrival
        self._arrivals = itertools.count()
        self._scheduler = scheduler or Scheduler()
        self._commit = commit
        self._trace = trace
        self._outbox: list[tuple[Stream, Item]] = []
        self._closing = self._keeping = False
        self._thread = threading.Thread(target=self._run, name="llmos-engine", daemon=True)
        self._thread.start()

    # -- any thread --------------------------------------------------------------------------------------

    def submit(self, request: Request) -> BlockingStream:
        """Start a request; its tokens arrive in the returned stream. Raises as `start`."""
        stream = BlockingStream()
        self.start(request, stream)
        return stream

    def start(self, request: Request, stream: Stream) -> None:
        """Start a request whose tokens go to `stream`.

        Raises:
            EngineError: empty prompt, or more tokens than a window or the pool can ever hold.
            AdapterMismatch: its adapter was made for other weights.
        """
        self._check(request)
        stream.attach(lambda: self._inbox.put(_nothing))
        sequence = Sequence(request, stream, self.pool, next(self._arrivals))
        self._post(lambda: self._sequences.append(sequence))

    def run(self, job: Callable[[], T]) -> T:
        """What `job` comes to on the engine's thread, between two steps."""
        future: Future[T] = Future()

        def work() -> None:
            try:
                future.set_result(job())
            except BaseException as error:
                future.set_exception(error)

        self._post(work)
        return future.result()

    def close(self, *, keep: bool = False) -> None:
        """Cancel everything and stop the thread; with `keep` the store gets what the pool remembers."""
        if not self._closing:
            self._closing, self._keeping = True, keep
            self._inbox.put(None)
            self._thread.join()

    def _post(self, job: Callable[[], None]) -> None:
        if self._closing:
            raise EngineError("the engine is closed", do="open a new kernel")
        self._inbox.put(job)

    def _check(self, request: Request) -> None:
        held = min(self._runner.window, (self.pool.pages - 1) * self.pool.page)
        if not request.tokens:
            raise EngineError("a request without tokens", why="there is nothing to continue")
        if request.max_tokens < 1:
            raise EngineError(f"max_tokens is {request.max_tokens}", do="ask for at least one token")
        if len(request.tokens) + request.max_tokens > held:
            raise EngineError(
                f"{len(request.tokens)} tokens and up to {request.max_tokens} more do not fit",
                why=f"one process can hold {held} tokens",
                do="ask for fewer, or raise `kernel.window` and `kernel.pool` in llmos.yaml",
            )
        if request.adapter is not None:
            self._runner.check(request.adapter)
        ends = (0, *request.pieces, len(request.tokens))
        if request.pieces and (self._blender is None or any(b <= a for a, b in itertools.pairwise(ends))):
            raise EngineError(
                "this request cannot be put together of pieces",
                why="this engine has no store of them"
                if self._blender is None
                else f"they end at {ends[1:-1]}",
                do='spawn with fidelity="exact"',
            )
        if not 0 <= min(request.tokens) <= max(request.tokens) < self._runner.vocab:
            raise EngineError(
                "a token id outside the vocabulary", why=f"ids go up to {self._runner.vocab - 1}"
            )

    # -- engine thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            idle = not any(s.runnable or s.stream.cancelled for s in self._sequences)
            while idle or not self._inbox.empty():
                job = self._inbox.get()
                if job is None:
                    for sequence in list(self._sequences):
                        self._finish(sequence, "cancelled")
                    self._deliver()
                    if self._keeping:
                        self.swap.keep()
                    return
                job()
                idle = False
            self._trace.lap("begin")
            try:
                self._step()
            except LLMOSError as e:
                self._fail(e)
            except Exception as e:  # the thread must outlive a step: a dead engine hangs every reader
                self._fail(EngineError("the step failed", why=f"{type(e).__name__}: {e}"))
            self._trace.lap("take")
            self._deliver()
            self._trace.lap("journal")
            self._trace.step(self.counters)

    def _deliver(self) -> None:
        """Hand over what the step made."""
        if self._outbox:
            items, self._outbox = self._outbox, []
            self._commit(items)

    def _fail(self, error: LLMOSError) -> None:
        for sequence in list(self._sequences):
            self._remove(sequence, error)

    def _step(self) -> None:
        for sequence in [s for s in self._sequences if s.stream.cancelled]:
            self._finish(sequence, "cancelled")
        work = self._plan()
        if not work:
            return
        self._trace.lap("plan")
        sampling = [item for item in work if item.catches_up]
        handle = self._runner.forward(Batch.build(work, self._runner))
        for item in work:
            item.sequence.advance(item.count)
        self._trace.lap("forward")
        self.counters.steps += 1
        self.counters.tokens += sum(item.count + len(item.draft) for item in work)
        if sampling:
            mask_BW, failed = self._masks(sampling)  # on the host, while the device is busy
            self._trace.lap("mask")
            sampled = self._runner.sample(handle, SampleBatch.build(sampling, mask_BW))
            self._trace.lap("sample")
            row = 0
            for item in sampling:
                top = item.sequence.request.top
                rows = [sampled.emitted(row + i, top) for i in range(1 + len(item.draft))]
                row += len(rows)
                if item.sequence in failed:
                    self._remove(item.sequence, failed[item.sequence])
                else:
                    self._take(item, rows)

    def _plan(self) -> list[Work]:
        """Who computes how many tokens in this step."""
        runner = self._runner
        for sequence in [s for s in self._sequences if s.stream.paused and s.pages]:
            self.swap.out(sequence)
        for sequence in sorted((s for s in self._sequences if s.runnable and s.looking), key=rank):
            if sequence.runnable and sequence in self._sequences:
                self.swap.bring(sequence, partial(self._make_room, sequence), partial(self._blend, sequence))
        runnable = [s for s in self._sequences if s.runnable and not s.looking]
        planned = self._scheduler.plan(runnable, runner.budget, runner.latency_budget)[: runner.processes]
        drafts = MAX_DRAFTING_ROWS // max(len(planned), 1) - 1  # a process
        budget, work = runner.budget - sum(count for _, count in planned), list[Work]()
        for sequence, count in planned:
            if sequence.looking or sequence not in self._sequences:  # it has had to give way just now
                continue
            if not self._make_room(sequence, count, work):
                continue
            draft = self._draft(sequence, min(drafts, budget)) if count == sequence.behind else []
            self._scheduler.charge(sequence, count)
            work.append(Work(sequence, count, draft))
            budget -= len(draft)
        return work

    def _blend(self, sequence: Sequence) -> bool:
        """Bring the pieces that `sequence` is made of; whether they are there. Others go on meanwhile."""
        if self._blender is None or not sequence.request.pieces:
            return True
        alone = not any(s.runnable for s in self._sequences if s is not sequence)
        budget = self._runner.budget if alone else self._runner.latency_budget
        return self._blender.bring(sequence, partial(self._make_room, sequence), self._inbox.put, budget)

    def _draft(self, sequence: Sequence, limit: int) -> list[int]:
        """A guess at what follows, where it needs no room that others could use."""
        limit = min(limit, sequence.end - len(sequence.tokens) - 1)
        hinted = list(sequence.hinted()[: max(limit, 0)])
        draft = hinted or sequence.drafter.propose(sequence.tokens, limit)
        stop = next((i for i, token in enumerate(draft) if token in sequence.request.stop), len(draft))
        draft = draft[: stop + 1]  # nothing comes behind it
        try:
            sequence.grow(sequence.behind + len(draft))
        except PoolExhausted:
            return []
        return draft

    def _make_room(self, sequence: Sequence, count: int, work: Rows[Work] = ()) -> bool:
        """Give `sequence` pages for `count` tokens, preempting others if it must: those that stand still, then
        whoever ranks below it. A preempted sequence is swapped out, and goes on later, to the same
        tokens. Else it waits: whoever ranks highest can always go on, so nobody waits for ever."""
        planned = {id(item.sequence) for item in work}
        while True:
            try:
                sequence.grow(count)
                return True
            except PoolExhausted as e:
                others = [
                    s for s in self._sequences if s.pages and s is not sequence and id(s) not in planned
                ]
                idle = [s for s in others if not s.runnable and not s.fetching]
                if idle or (below := victims(others, sequence)):
                    self.swap.out((idle or below)[-1])
                    self.counters.preemptions += 1
                elif others or work:
                    return False
                else:
                    self._remove(sequence, e)
                    return False

    def _masks(self, work: list[Work]) -> tuple[NDArray[np.uint32] | None, dict[Sequence, LLMOSError]]:
        """Allowed tokens [B, W] (None where nobody has a grammar), and whose grammar failed."""
        failed: dict[Sequence, LLMOSError] = {}
        if all(item.sequence.request.grammar is None for item in work):
            return None, failed
        count = sum(1 + len(item.draft) for item in work)
        mask_BW = np.full((count, -(-self._runner.vocab // 32)), 0xFFFFFFFF, np.uint32)
        row = 0
        for item in work:
            rows = mask_BW[row : row + 1 + len(item.draft)]
            row += len(rows)
            if (grammar := item.sequence.request.grammar) is not None:
                try:
                    grammar.masks(item.draft, rows)
                except LLMOSError as e:
                    failed[item.sequence] = e
        return mask_BW, failed

    def _take(self, item: Work, rows: list[Emitted]) -> None:
        """Append what was sampled: row j holds for as long as the draft's first j tokens are what came."""
        sequence, request, draft = item.sequence, item.sequence.request, list(item.draft)
        taken: list[Emitted] = []
        for j, row in enumerate(rows):
            if [t.id for t in taken[:j]] != draft[:j]:
                break
            if len(taken) > j:  # a grammar forced this one already
                continue
            if request.grammar is not None and (instead := request.grammar.instead(row.id)) is not None:
                taken += [Emitted(t, None) for t in instead]
                if request.grammar.finished:
                    break
                continue
            taken.append(row)
            if request.grammar is not None and row.id not in request.stop:
                try:
                    taken += [Emitted(t, None) for t in request.grammar.accept(row.id)]
                except LLMOSError as e:
                    self._remove(sequence, e)
                    return
                if request.grammar.finished:
                    break
            if row.id in request.stop:
                break
        kept = 0  # tokens of the draft that came true: their KV is there already
        while kept < min(len(draft), len(taken)) and draft[kept] == taken[kept].id:
            kept += 1
        if draft:
            sequence.drafter.learn(len(draft), kept)
        for token in taken:
            self.counters.emitted += 1
            if token.id in request.stop:
                self._finish(sequence, "stop")
                return
            sequence.tokens.append(token.id)
            self._outbox.append((sequence.stream, token))
            if len(sequence.tokens) >= sequence.end:
                self._finish(sequence, "length")
                return
        sequence.advance(kept)
        if request.grammar is not None and request.grammar.finished:
            self._finish(sequence, "stop")

    def _finish(self, sequence: Sequence, reason: FinishReason) -> None:
        s = sequence
        attention = None if reason == "cancelled" else self._attention(s)
        self._remove(s, Finished(reason, s.cached, s.peak_pages, s.faults, s.lost, attention))

    def _attention(self, s: Sequence) -> NDArray[np.float32] | None:
        """Where the last tokens of a sequence looked, if somebody wants to know."""
        if s.request.attend is None or s.request.attend >= s.computed:
            return None
        looking = range(s.request.attend, s.computed)
        return self._runner.attention(s.tokens[: s.computed], looking, s.pages, s.request.adapter)

    def _remove(self, sequence: Sequence, last: Finished | LLMOSError) -> None:
        self._sequences.remove(sequence)
        sequence.drop()
        self._outbox.append((sequence.stream, last))


def _nothing() -> None:
    """A job that only wakes the engine."""
