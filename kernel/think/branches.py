"""Windows that are forked and written on: several continuations of one window, side by side.

What: starts requests behind a turn's window and takes what they write. What branches have in common is computed once:
    the engine finds its pages again by content, so a fork costs no page until it differs, and then its own words'.
Invariant: nothing that a branch writes is journalled or told. Every branch ends: by itself, where its wish says, when
    the time is up, or because the turn is given up; its pages go then. What it writes is a function of the window, the
    seed and its number, whatever runs beside it.
Interface: `Branches(kernel, request)`: `write(wishes, seconds)`, `first_words(behinds, seconds)`, `halt`, `pause`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from llmos.abi.errors import LLMOSError
from llmos.abi.labels import Label, join
from llmos.kernel.engine.sampling import Greedy, Randomness, Strategy
from llmos.kernel.engine.sequence import Emitted, Finished, Grammar, Item, Request, Stream
from llmos.kernel.scheduler import Priority

if TYPE_CHECKING:
    from llmos.kernel.kernel import Kernel

End = Literal["stop", "length", "cut", "cancelled", "failed"]
"""`cut`: where the wish wanted; `cancelled`: the time was up, or the turn was given up."""
TOP = 64  # likeliest first words that are looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be written: behind the window and the tokens `behind`, at most `limit` tokens, with the random bits of
    branch `number`, until `cut` of the text so far is true."""

    number: int
    limit: int
    behind: tuple[int, ...] = ()
    strategy: Strategy = field(default_factory=Greedy)
    grammar: Grammar | None = None
    cut: Callable[[str], bool] | None = None
    urgent: bool = False  # in the process's own class; else behind all who wait for words


@dataclass(frozen=True, slots=True)
class Written:
    """What was: tokens (with their log-probabilities), their text, and why it ends."""

    tokens: tuple[Emitted, ...]
    text: str
    end: End
    error: LLMOSError | None = None
    finished: Finished | None = None


class _Pen(Stream):
    """The reader's end of one branch, on the loop."""

    def __init__(self, kernel: Kernel, cut: Callable[[str], bool] | None, pot: _Pot) -> None:
        super().__init__()
        self._kernel, self._pot = kernel, pot
        pot.pens.append(self)
        self.tokens: list[Emitted] = []
        self.text = ""
        self.how: End | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.error: LLMOSError | None = None
        self._call, self._decoder, self._cut = kernel.loop.call, kernel.tokenizer.stream(), cut

    @property
    def full(self) -> bool:
        """Never: it writes at most what its wish allows."""
        return False

    def put(self, item: Item) -> None:
        """On the engine's thread."""
        self._call(self._take, item)

    def end(self, how: End) -> None:
        """Take no more."""
        if self.how is None:
            self.how = how
            self.text += self._decoder.flush() if how in ("stop", "length") else ""
            self.done.set_result(None)

    def cut_to(self, count: int) -> None:
        """Take back what stands behind the first `count` tokens, whether it had come to its end or not."""
        if len(self.tokens) > count:
            self.end("cancelled")
            self.cancel()
            self.how, self.tokens = "cancelled", self.tokens[:count]
            decoder = self._kernel.tokenizer.stream()
            self.text = "".join(decoder.push(token.id) for token in self.tokens)

    def _take(self, item: Item) -> None:
        if isinstance(item, Finished):
            self.finished = item
            self.end(item.reason)
        elif isinstance(item, LLMOSError):
            self.error = item
            self.end("failed")
        elif self.how is None:
            self.tokens.append(item)
            self.text += self._decoder.push(item.id)
            if self._cut is not None and self._cut(self.text):
                self.end("cut")
                self.cancel()
        self._pot.look()


class _Pot:
    """Tokens that pens write from together, a round of one each in turn. What is written in a round that they do not
    suffice for is taken back: so what there is in the end hangs on the words alone, not on who came first."""

    def __init__(self, tokens: int | None) -> None:
        self._tokens = tokens
        self.pens: list[_Pen] = []

    def look(self) -> None:
        """After a token or an end: whether a round that all have been through was one too many."""
        if self._tokens is None:
            return
        lengths = [len(pen.tokens) for pen in self.pens]
        rounds = min((len(pen.tokens) for pen in self.pens if pen.how is None), default=max(lengths))
        if sum(min(n, rounds) for n in lengths) > self._tokens:
            while sum(min(n, rounds) for n in lengths) > self._tokens:
                rounds -= 1
            for pen in self.pens:
                pen.cut_to(rounds)


class Branches:
    """Of one turn. Lives on the loop."""

    def __init__(self, kernel: Kernel, request: Request, taint: Label) -> None:
        """`request` is what the turn itself would ask of the engine; `taint` is of all that its window has read."""
        self._kernel, self._request, self._taint = kernel, request, taint
        self._pens: list[_Pen] = []
        self._halted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.room = len(request.tokens)

    @property
    def halted(self) -> bool:
        """The turn was given up."""
        return self._halted.done()

    def halt(self) -> None:
        """Give up: what is being written ends where it stands, and nothing more is begun."""
        if not self._halted.done():
            self._halted.set_result(None)

    def pause(self, paused: bool) -> None:
        """Hold what is being written, or let it go on."""
        for pen in self._pens:
            pen.pause(paused)

    async def write(
        self, wishes: Sequence[Wish], seconds: float | None, tokens: int | None = None
    ) -> list[Written]:
        """Fulfil wishes side by side; what is not done after `seconds`, or when they have written `tokens` together,
        ends where it stands."""
        requests = [
            replace(
                self._behind(wish.behind), max_tokens=wish.limit, strategy=wish.strategy, grammar=wish.grammar,
                randomness=self._bits(wish.number),
                priority=self._request.priority if wish.urgent else Priority.BATCH,
            )
            for wish in wishes
        ]  # fmt: skip
        return await self._run(requests, [wish.cut for wish in wishes], seconds, tokens=tokens)

    async def first_words(
        self, behinds: Sequence[tuple[int, ...]], seconds: float | None
    ) -> list[tuple[tuple[int, float], ...]]:
        """The likeliest next tokens behind each, with their log-probabilities, best first; none where there was no
        time."""
        requests = [
            replace(
                self._behind(behind),
                max_tokens=1,
                strategy=Greedy(),
                grammar=None,
                top=TOP,
                priority=Priority.BATCH,
            )
            for behind in behinds
        ]
        written = await self._run(requests, [None] * len(requests), seconds, stop=frozenset())
        return [w.tokens[0].top if w.tokens else () for w in written]

    async def _run(
        self,
        requests: Sequence[Request],
        cuts: Sequence[Callable[[str], bool] | None],
        seconds: float | None,
        stop: frozenset[int] | None = None,
        tokens: int | None = None,
    ) -> list[Written]:
        pot = _Pot(tokens)
        pens = [_Pen(self._kernel, cut, pot) for cut in cuts]
        self._pens += pens
        try:
            for request, pen in zip(requests, pens, strict=True):
                try:
                    self._kernel.engine.start(request if stop is None else replace(request, stop=stop), pen)
                except LLMOSError as error:  # it does not fit
                    pen.error = error
                    pen.end("failed")
            await self._until_done(pens, seconds)
        finally:
            for pen in pens:
                if pen.finished is None:
                    pen.cancel()
                pen.end("cancelled")
                self._pens.remove(pen)
        return [Written(tuple(p.tokens), p.text, p.how or "cancelled", p.error, p.finished) for p in pens]

    async def _until_done(self, pens: Sequence[_Pen], seconds: float | None) -> None:
        loop = asyncio.get_running_loop()
        end = None if seconds is None else loop.time() + seconds
        left = {pen.done for pen in pens if not pen.done.done()}
        while left and not self._halted.done():
            more = None if end is None else end - loop.time()
            if more is not None and more <= 0:
                return
            _, left = await asyncio.wait(
                {*left, self._halted}, timeout=more, return_when=asyncio.FIRST_COMPLETED
            )
            left = {future for future in left if future is not self._halted}

    def _behind(self, behind: tuple[int, ...]) -> Request:
        """The turn's own request, as if its window went on with these tokens. What was written behind a window has the
        label of all that it was written from, as pages are shared by label too."""
        own = self._request
        if not behind:
            return own
        tokens = (*own.tokens, *behind)
        labels = own.labels or ((len(own.tokens), self._taint),)
        return replace(own, tokens=tokens, labels=(*labels, (len(tokens), join([self._taint]))), hint=())

    def _bits(self, number: int) -> Randomness:
        """Children that are forked count from 1: no branch has the bits of one."""
        own = self._request.randomness
        return own if number == 1 else own.fork(0).fork(number)
