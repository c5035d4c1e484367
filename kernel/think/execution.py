"""A turn that thinks before it answers.

What: where the turn would write its answer, a strategy looks at several first; the chosen one is told as if it had just
    been written. Calls are made as ever: one after the other, through the monitor, and once.
Invariant: the choice is durable before a word of it is told, so a turn that a crash cuts off thinks again or tells the
    rest of what it had chosen, and no word twice. What was thought leaves the turn's window alone: it holds the answer,
    and the label of what helped to choose it. The answer comes in time: what has been found by then is told.
Interface: `Thinking`, an `Execution`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llmos.abi import wire
from llmos.abi.events import Done, StopReason, ThoughtTree
from llmos.abi.labels import join
from llmos.kernel.engine.grammar import PlainText
from llmos.kernel.engine.sampling import Strategy as Drawing
from llmos.kernel.engine.sampling import strategy
from llmos.kernel.engine.sequence import Emitted, Finished, Grammar
from llmos.kernel.execution import Execution
from llmos.kernel.journal.records import Considered, Sampled
from llmos.kernel.syscalls import answer_lark
from llmos.kernel.think.branches import Branches
from llmos.kernel.think.budget import Budget, Meter
from llmos.kernel.think.confidence import probability
from llmos.kernel.think.forms import load
from llmos.kernel.think.mind import Mind

if TYPE_CHECKING:
    from llmos.kernel.layout import Layout

SHARE, LEAST_S, MOST_S = (
    0.03,
    0.05,
    1.0,
)  # of a time that is kept for telling the answer: a part, and its bounds


class Chosen:
    """Words that stand already, read as if they came."""

    def __init__(self, tokens: Sequence[Emitted]) -> None:
        self._tokens, self._cancelled = tokens, False

    def cancel(self) -> None:
        """No more of them."""
        self._cancelled = True

    async def __aiter__(self) -> AsyncIterator[Emitted]:
        for token in self._tokens:
            if self._cancelled:
                return
            yield token


class Thinking(Execution):
    """One turn of one process, with a budget to think. Lives on the loop."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._considered = None if self._resumed is None else self._resumed.considered
        self._mind: Mind | None = None

    # -- what a mind asks of its turn ----------------------------------------------------------------------------

    @property
    def typed(self) -> bool:
        """The answer has a form of its own."""
        return self.asking.schema is not None

    @property
    def room(self) -> int:
        """Tokens that may stand behind the window."""
        return self.process.view.size - len(self.layout.tokens)

    @property
    def strategy(self) -> Drawing:
        """How the plain answer is drawn."""
        a = self.asking
        return strategy(a.temperature, a.top_k, a.top_p, a.min_p, a.repetition_penalty)

    def grammar(self, *, words: bool = False, free: bool = False) -> Grammar | None:
        """What the plain answer may be; with `words` without calls; with `free` also where the answer has a form."""
        kernel = self.process.kernel
        if not words:
            return self._grammar()
        if free or (not self.typed and (self._calling is None or self.layout.words) and not self._grounded):
            return PlainText(kernel.control_ids, kernel.runner.vocab)
        if self.typed:
            return kernel.grammars.compile(answer_lark(self.asking.schema or {}))
        return self._grammar(words=True)

    def stops(self, text: str) -> bool:
        """A text that ends the answer has appeared."""
        return any(stop in text for stop in self.asking.stop)

    def makes_calls(self, tokens: Sequence[int]) -> bool:
        """Whether these words hold calls."""
        return bool(self._calls(tokens))

    def held(self, finished: Finished) -> None:
        """Note what a branch has used."""
        usage = self._usage
        usage["pages"] = max(usage["pages"], finished.pages)
        usage["faults"] += finished.faults
        usage["lost"] += finished.lost

    # -- from the loop -------------------------------------------------------------------------------------------

    def cancel(self) -> None:
        """Stop; the best of what has been found becomes the answer."""
        if self._mind is not None:
            self._mind.branches.halt()
        super().cancel()

    def pause(self, paused: bool) -> None:
        """Hold what is being thought, or let it go on."""
        super().pause(paused)
        if self._mind is not None:
            self._mind.branches.pause(paused)

    # -- the turn ------------------------------------------------------------------------------------------------

    async def _burst(self, known: tuple[int, ...]) -> tuple[list[int], str, StopReason]:
        if self._considered is None and not known:
            await self.process.going.wait()
            limit = self._limit()
            if limit < 1 or self._cancelled:
                return [], "", "length" if limit < 1 else "cancelled"
            tokens = await self._think(limit)
            if self._considered is None:  # they hold calls, which are made before anything is thought
                self._expected = tokens
        if self._considered is None:
            burst = await super()._burst(known)
            self._expected = ()
            return burst
        return await self._tell_chosen(self._considered, known)

    async def _think(self, limit: int) -> tuple[int, ...]:
        """Look at answers until one is chosen, which is then journalled; the words of the plain one."""
        process, kernel, layout = self.process, self.process.kernel, self.layout
        way = load(self.asking.think or {})
        budget = Budget.of(way.budget)
        if budget.seconds is not None:
            kept = min(max(SHARE * budget.seconds, LEAST_S), MOST_S, budget.seconds / 2)
            budget = replace(budget, seconds=budget.seconds - kept)
        meter = Meter(budget, self._started, lambda: process.ledger.left("tokens"))
        request = replace(self._request(limit, ()), attend=None)  # nobody asks where a thought looked
        branches = Branches(kernel, request, layout.taint)
        asked = self.question or next((m.text for m in reversed(layout.messages) if m.role == "user"), "")
        mind = self._mind = Mind(self, meter, branches, asked, limit)
        if self.asking.temperature:
            mind.temperature, mind.top_p = self.asking.temperature, self.asking.top_p
        process.questions.phase = "running"
        try:
            first = await mind.begin()
            words = tuple(t.id for t in first.told)
            if first.calls:
                return words
            verdict = await way.run(mind)
        finally:
            self._usage["thinking"] += meter.spent
            branches.halt()
            self._mind = None
            process.questions.phase = "waiting"
        chosen, usage = verdict.chosen, self._usage
        if mind.used is not None:
            usage["cached"] += mind.used.cached_tokens if self._cached is None else self._cached
        usage["prompt"] = usage["prompt"] or len(layout.tokens)
        label = join([layout.taint, *mind.labels])
        reason = "length" if chosen.cut else "stop"
        record = Considered(
            self.turn.number, tuple(t.id for t in chosen.told), reason,
            probability(kernel.runner.identity, verdict.basis, verdict.raw), wire.dump(mind.tree(verdict)), label,
        )  # fmt: skip
        await kernel.durable(process.pid, record)
        self._considered = record
        return words

    async def _tell_chosen(
        self, chosen: Considered, known: tuple[int, ...]
    ) -> tuple[list[int], str, StopReason]:
        """Tell the words that were chosen, of which the journal has `known` already."""
        process, start = self.process, len(self.layout.tokens)
        if known != chosen.tokens:
            record = Sampled(self.turn.number, start, chosen.tokens)
            await process.kernel.durable(process.pid, record)
        self.layout = _joined(self.layout, chosen)
        tokens, text, stopped = await self._speak(Chosen([Emitted(token, None) for token in chosen.tokens]))
        self._usage["completion"] += len(tokens)
        self._within_quotas(chosen.reason, len(tokens))
        reason: StopReason = "length" if chosen.reason == "length" and not stopped else "stop"
        return tokens, text, "cancelled" if self._cancelled and not stopped else reason

    def _done(self, text: str, reason: StopReason) -> Done:
        done, chosen = super()._done(text, reason), self._considered
        if chosen is None:
            return done
        return replace(done, confidence=chosen.confidence, tree=wire.load(ThoughtTree, dict(chosen.tree)))


def _joined(layout: Layout, chosen: Considered) -> Layout:
    """The window, with the label of what helped to choose."""
    if not layout.labels or join([layout.taint, chosen.label]) == layout.taint:
        return layout
    *before, (end, label) = layout.labels
    return replace(layout, labels=(*before, (end, join([label, chosen.label]))))
