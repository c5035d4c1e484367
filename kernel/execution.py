"""The life of a turn: from a window that is laid out to its answer.

What: asks the engine for words, tells them to the reader, answers the syscalls among them, and goes on until there
    are none.
Invariant: what a turn does is a function of its layout, its seed and the results of its calls: a turn that is
    resumed after a crash is run again with what the journal holds, and comes to the same words. Every record is in
    the journal before what it stands for is seen.
Interface: `Execution(process, turn, question, asking, layout)`, `run()`, `cancel()`; `Asking`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

from llmos.abi.errors import WindowOverflow
from llmos.abi.events import Call, Citation, Done, Event, PageOut, StopReason, Timings, Token, Usage
from llmos.kernel import grounding
from llmos.kernel.calling import Calling
from llmos.kernel.engine.grammar import InnerGrammar, PlainText
from llmos.kernel.engine.sampling import Randomness, strategy
from llmos.kernel.engine.sequence import Emitted, Grammar, Request
from llmos.kernel.journal.records import Finished, Forced
from llmos.kernel.layout import DEFAULT_MAX_TOKENS, Layout, resumed
from llmos.kernel.ledger import exceeded
from llmos.kernel.stops import StopText
from llmos.kernel.streams import ProcessStream
from llmos.kernel.syscalls import OPEN, Invocation, SyscallTable, answer_lark
from llmos.kernel.telling import HoldingGrammar, remembered

if TYPE_CHECKING:
    from llmos.abi.labels import Label
    from llmos.drivers.weights.adapter import Adapter
    from llmos.kernel.journal.state import RunningTurn
    from llmos.kernel.process import Process
    from llmos.kernel.prompt import Part
    from llmos.kernel.turn import Turn


PRESSED = 0.75  # of a window: with so much in it, something will soon have to leave


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How a question wants to be answered; the options of `Process.ask` as the journal keeps them."""

    max_tokens: int | None = None
    seed: int = 0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    raw: bool = False
    schema: dict[str, Any] | None = None  # of the answer
    tools: tuple[dict[str, Any], ...] = ()  # syscalls that whoever asks carries out, as JSON
    choice: str = "auto"  # of them: auto, required, none, or the name of one
    think: dict[str, Any] | None = None  # how, before it is answered; a strategy of `kernel.think` as JSON

    def dump(self) -> dict[str, Any]:
        """What differs from the defaults, as JSON."""
        defaults = asdict(Asking())
        lists = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return {k: v for k, v in lists.items() if getattr(self, k) != defaults[k]}

    @classmethod
    def load(cls, options: dict[str, Any]) -> Asking:
        """What `dump` gave."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
        return cls(**values)


class Words(Protocol):
    """Words that come one after the other, and can be stopped."""

    def __aiter__(self) -> AsyncIterator[Emitted]: ...
    def cancel(self) -> None: ...


class Execution:
    """One turn of one process. Lives on the loop."""

    def __init__(
        self,
        process: Process,
        turn: Turn,
        question: str,
        asking: Asking,
        layout: Layout,
        *,
        grounded: bool,
        table: SyscallTable | None,
        started: float,
        resumed: RunningTurn | None = None,
    ) -> None:
        self.process, self.turn = process, turn
        self.question, self.asking, self.layout = question, asking, layout
        self.table = table
        self._kernel = process.kernel
        self._first_calls = (
            asking.choice == "required" and not asking.tools
        )  # of one's own: one call, then free
        free = (asking.choice == "auto" or self._first_calls) and asking.schema is None
        self._calling = (
            None
            if table is None
            else Calling(process, question, layout, table, free=free, first=self._first_calls)
        )
        self._grounded = grounded
        self._started, self._resumed = started, resumed
        self._stream: ProcessStream | None = None
        self._cancelled = False
        self._adapter: Adapter | None = None  # of the whole turn
        self._work: asyncio.Task[Any] | None = None
        self._room = asyncio.Event()
        turn.on_drained(lambda: self._kernel.loop.call(self._room.set))
        self._usage = dict.fromkeys(
            ("prompt", "cached", "completion", "pages", "faults", "lost", "syscalls", "thinking"), 0
        )
        self._first = self._last = 0.0
        self._steps = 0  # tokens that the model chose: what a grammar wrote alone has no speed
        self._cached: int | None = None  # tokens that were there before this turn chose how to answer
        self._chosen = False  # how to answer, for the words that come next
        self._expected: tuple[int, ...] = ()  # words of the next burst, as far as they can be guessed

    @property
    def swapped(self) -> bool:
        """Its window has had to leave the pool."""
        stream = self._stream
        return stream is not None and stream.swapped

    # -- from the loop -------------------------------------------------------------------------------------------

    def cancel(self) -> None:
        """Stop; what was written so far becomes the answer."""
        self._cancelled = True
        self._room.set()
        if self._stream is not None:
            self._stream.cancel()
        if self._work is not None:
            self._work.cancel()

    def pause(self, paused: bool) -> None:
        """Hold the words where they are, or let them come."""
        if self._stream is not None:
            self._stream.pause(paused)

    async def begin(self, label: Label) -> None:
        """Choose how to answer before anything is written. A window for words is laid out without the syscall table:
        a small model that reads of calls writes some, also where none can be read.

        Args:
            label: of the question, which is what this turn was asked, and no whole conversation.
        """
        if self._calling is None:
            return
        self._cached, self._chosen = await self._calling.choose(self.layout), True
        if self._calling.words:
            self.layout = await asyncio.to_thread(
                self.process.view.lay_out, self.question, label, self.asking, words=True
            )
            if self._cached is not None:
                self._cached = min(self._cached, len(self.layout.tokens))

    async def run(self) -> Done:
        """The whole turn; its end has been journalled when this returns."""
        number = self.turn.number
        try:
            self._adapter = await self._kernel.adapters.aget(self.layout.adapter)
            with self._kernel.trace.turn(self.process.pid, self.process.expert, number):
                done = await self._answer()
        except Exception:
            await self._end(Finished(number, "", "error", self.layout.taint))
            raise
        kept = self.kept(done.answer)
        await self._end(Finished(number, kept, done.reason, self.layout.taint, asdict(done.usage)))
        return done

    async def _end(self, record: Finished) -> None:
        ledger, usage = self.process.ledger, self._usage
        ledger.turns += 1
        ledger.prompt_tokens += usage["prompt"]
        ledger.cached_tokens += usage["cached"]
        ledger.pages = max(ledger.pages, usage["pages"])
        await self._kernel.durable(self.process.pid, record)

    def kept(self, answer: str) -> str:
        """The answer as the conversation keeps it: what is [1] now is not [1] at the next question."""
        if self.asking.raw:
            return ""
        return grounding.uncited(answer) if self._grounded else answer

    # -- the turn ------------------------------------------------------------------------------------------------

    async def _answer(self) -> Done:
        known = self._take_up()
        self._kernel.trace.layout(self.process.pid, self.layout.events)
        for event in self.layout.events:
            await self.tell(event)
        while True:
            if self._calling is not None and not self._chosen:
                self._cached = await self._calling.choose(self.layout)
            self._chosen = False
            tokens, text, reason = await self._burst(known)
            known = ()
            calls = self._calls(tokens) if reason == "stop" else []
            if not calls or self._cancelled:
                break
            if self.asking.tools:
                made = [Call(self.process.next_call(), c.syscall, c.arguments) for c in calls]
                return replace(self._done(text, "calls"), calls=tuple(made))
            self._usage["syscalls"] += len(calls)
            open_calls = () if self._resumed is None else self._resumed.calls
            told = partial(self._told, tokens)
            self._work = asyncio.ensure_future(self.process.trap.answer(self, calls, open_calls, told=told))
            try:
                segments = await self._work
            except asyncio.CancelledError:
                if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                    raise  # the kernel closes
                reason = "cancelled"
                break
            finally:
                self._work = self._resumed = None
            before = self.layout
            self.layout = before.extended(tokens, segments, self._kernel.tokenizer)
            position = len(before.tokens) + len(tokens)
            call = self.process.calls
            await self._kernel.durable(
                self.process.pid,
                Forced(self.turn.number, position, self.layout.tokens[position:], call, self.layout.taint),
            )
        return self._done(text, "cancelled" if self._cancelled and reason != "stop" else reason)

    def _calls(self, tokens: Sequence[int]) -> list[Invocation]:
        """The calls among the words of a burst."""
        return [] if self._calling is None else self._calling.calls(tokens, self.layout)

    def _told(self, tokens: Sequence[int], results: Sequence[Part]) -> Sequence[Part]:
        """What the model is told behind the results of the calls among its tokens."""
        return () if self._calling is None else self._calling.told(tokens, self.layout, results)

    def _take_up(self) -> tuple[int, ...]:
        """Where the journal left this turn: the window as it stood, and the words that followed."""
        runs = () if self._resumed is None else self._resumed.runs
        self.layout, known = resumed(self.layout, runs, self._kernel.tokenizer)
        return known

    async def _burst(self, known: tuple[int, ...]) -> tuple[list[int], str, StopReason]:
        """Words until the model stops: their tokens, the text among them, and why it ended."""
        kernel, process = self._kernel, self.process
        await process.going.wait()
        limit = self._limit()
        if limit < 1:
            return [], "", "length"
        request = self._request(limit, known)
        self._stream = stream = ProcessStream(process.pid, self.turn.number, len(self.layout.tokens), known)
        if self._cancelled:
            return [], "", "cancelled"
        kernel.engine.start(request, stream)
        process.questions.phase = "running"
        try:
            tokens, text, stopped = await self._speak(stream)
        finally:
            process.questions.phase = "waiting"
            self._stream = None
        finished = stream.finished
        assert finished is not None
        usage = self._usage
        usage["prompt"] = usage["prompt"] or len(self.layout.tokens)
        usage["cached"] += finished.cached_tokens if self._cached is None else self._cached
        usage["completion"] += len(tokens)
        usage["pages"] = max(usage["pages"], finished.pages)
        usage["faults"] += finished.faults
        usage["lost"] += finished.lost
        process.ledger.spend("tokens", len(tokens))
        if finished.attention is not None:
            process.view.looked(self.layout, finished.attention)
        self._within_quotas(finished.reason, len(tokens))
        return tokens, text, "stop" if stopped else finished.reason

    def _within_quotas(self, reason: str, written: int) -> None:
        """QuotaExceeded: what ended the words behind the window, of which so many were written, is a quota."""
        ledger = self.process.ledger
        if reason == "length" and ledger.left("tokens") < 1:
            raise exceeded("tokens", ledger.limit("tokens"))
        if reason == "length" and self.process.view.fills(len(self.layout.tokens) + written):
            raise exceeded("pages", ledger.limit("pages"))

    def _request(self, limit: int, known: tuple[int, ...]) -> Request:
        """What the engine is asked for; `known` of it is in the journal already."""
        kernel, process, a = self._kernel, self.process, self.asking
        return Request(
            tokens=self.layout.tokens,
            max_tokens=limit,
            stop=kernel.tokenizer.eos_ids,
            strategy=strategy(a.temperature, a.top_k, a.top_p, a.min_p, a.repetition_penalty),
            randomness=Randomness(a.seed, process.path),
            grammar=self._grammar(),
            priority=process.priority,
            labels=self.layout.labels,
            hint=known or self._expected,
            pieces=self.layout.pieces,
            adapter=self._adapter,
            attend=len(self.layout.tokens) - 1 if self._pressed else None,
        )

    @property
    def _pressed(self) -> bool:
        """Whether something is left out of the window, or soon will be: then it is of use to know what is looked at."""
        used = len(self.layout.tokens) > PRESSED * self.process.view.size
        return used or any(isinstance(event, PageOut) for event in self.layout.events)

    def _limit(self) -> int:
        """Tokens that may still be written. WindowOverflow, QuotaExceeded: there is no room for any."""
        process = self.process
        room = process.view.size - len(self.layout.tokens)
        wanted = self.asking.max_tokens or DEFAULT_MAX_TOKENS
        if room < 1:
            self._within_quotas("length", 0)
            raise WindowOverflow(
                "the results of its calls have filled the window",
                why=f"it has {process.view.size} tokens",
                do="ask for less at once, or raise `kernel.window` in llmos.yaml",
            )
        return min(wanted - self._usage["completion"], room, process.ledger.left("tokens"))

    async def _speak(self, stream: Words) -> tuple[list[int], str, bool]:
        """Tell the reader what is said, but not the calls: tokens, text, and whether a stop text ended it."""
        tokens: list[int] = []
        text = ""
        decoder, stop = self._kernel.tokenizer.stream(), StopText(self.asking.stop)
        speech = StopText(() if self.table is None else (OPEN,))
        async for item in stream:
            self._last = perf_counter()
            self._first = self._first or self._last
            self._steps += item.logprob is not None
            tokens.append(item.id)
            if self.table is not None and item.id == self.table.open:
                speech.met = True
            piece = stop.push(speech.push(decoder.push(item.id)))
            text += piece
            await self.tell(Token(piece, item.id, item.logprob))
            if stop.met:
                stream.cancel()
                break
        if rest := stop.push(speech.push(decoder.flush()) + speech.flush()) + stop.flush():
            text += rest
            await self.tell(Token(rest, -1))
        async for _ in stream:  # tokens that were under way when a stop text was met
            pass
        return tokens, text, stop.met

    def _grammar(self, *, words: bool = False) -> Grammar | None:
        """What this turn's process may write next; with `words` no calls."""
        kernel, asking = self._kernel, self.asking
        if asking.raw:
            return None
        grammar: InnerGrammar
        if self._calling is not None and not self.layout.words:  # else it knows of nothing to call
            must = asking.choice not in ("auto", "none")
            if self._first_calls:
                must = not self._usage["syscalls"]
            lark = self._calling.lark(must, asking.schema)
            if words and self.table is not None:
                lark = self.table.lark(no_call=True)
            grammar = kernel.grammars.compile(lark)
        elif asking.schema is not None:
            grammar = kernel.grammars.compile(answer_lark(asking.schema))
        else:
            grammar = PlainText(kernel.control_ids, kernel.runner.vocab)
        if self._grounded and asking.schema is None:
            calls = None if words or self._calling is None or self._calling.words else self._calling.open
            return grounding.answer_grammar(
                self.question, self.layout.passages, kernel.tokenizer, grammar, calls,
                alone=all(kind != "result" for kind, _ in self.layout.origins),
            )  # fmt: skip
        if self._calling is not None and self._calling.result is not None:
            return HoldingGrammar(self._calling.question, self._calling.result, kernel.tokenizer, grammar)
        said = remembered(self.question, self.layout) if asking.schema is None else None
        if said is None or (self.table is not None and self.table.reads_as_call(said.text)):
            return grammar
        return HoldingGrammar(self.question, said, kernel.tokenizer, grammar)

    async def tell(self, event: Event) -> None:
        """Hand an event to the reader, when there is room; nobody waits for the reader of a turn that was given up."""
        while self.turn.full and not self.turn.detached and not self._cancelled:
            self._room.clear()
            if self.turn.full:
                await self._room.wait()
        self.turn.put(event)

    def _done(self, text: str, reason: StopReason) -> Done:
        answer, dropped = text if self.asking.raw else text.strip(), 0
        citations: tuple[Citation, ...] = ()
        if self._grounded and self.asking.schema is None:
            found = grounding.extract(text, self.layout.passages, self.question)
            answer, citations, dropped = found.answer, found.citations, found.dropped
        usage, now = self._usage, perf_counter()
        count, first, last = usage["completion"], self._first or now, self._last
        fill = max(first - self._started, 1e-9)
        return Done(
            answer,
            reason,
            citations,
            Usage(
                prompt_tokens=usage["prompt"],
                cached_tokens=usage["cached"],
                completion_tokens=count,
                pages=usage["pages"],
                faults=usage["faults"],
                lost=usage["lost"],
                thinking_tokens=usage["thinking"],
                syscalls=usage["syscalls"],
                citations_dropped=dropped,
            ),
            Timings(
                boot_s=self._kernel.boot_s,
                first_token_s=fill,
                total_s=now - self._started,
                prefill_tokens_per_s=max(usage["prompt"] - usage["cached"], 0) / fill,
                decode_tokens_per_s=(count - 1) / (last - first) if self._steps > 1 and last > first else 0.0,
            ),
        )
