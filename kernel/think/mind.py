"""What a strategy has in hand: answers to be had, steps, verifiers, a budget, and the record of it all.

What: writes answers by forking the turn's window, asks verifiers and the model itself what they are worth, and keeps
    every branch for `turn.tree`.
Invariant: the first answer is the one that the turn would have given without thinking. An answer counts as one only
    when it has come to its end. What a strategy asks for is cut to what the budget has left; nothing is begun when it
    is over. Only syscalls whose effect is `none` or `read` are called.
Interface: `Mind`: `begin`, `answers`, `steps`, `finish`, `revise`; `judge`, `believe`, `calculate`; `over`,
    `candidates`, `first`; `Candidate`, `Verdict`, `Strategy`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import exp
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, Protocol

from llmos.abi.errors import CallDenied, LLMOSError
from llmos.abi.events import Thought, ThoughtTree
from llmos.abi.labels import Label, join
from llmos.kernel.engine.sampling import Greedy, Sample
from llmos.kernel.grants import Grant
from llmos.kernel.journal.records import Intent
from llmos.kernel.monitor import Attempt
from llmos.kernel.think.answers import Kind, Value, kind_of, number_in, value_of
from llmos.kernel.think.branches import Branches, Wish, Written
from llmos.kernel.think.verifiers import CALCULATE

if TYPE_CHECKING:
    from llmos.kernel.engine.sequence import Emitted, Finished
    from llmos.kernel.think.budget import Meter
    from llmos.kernel.think.execution import Thinking
    from llmos.kernel.think.verifiers import Verifier

Part = Literal["answer", "step", "revision"]
QUIET = frozenset({"none", "read"})  # effects of what may be called while thinking
ASIDE = "Let me think step by step.\n"  # an answer of a given form is thought about in words first
THEN = "\n\nThe answer, in the form that was asked for:\n"
RIGHT = "Is this answer correct? Answer yes or no."
AGAIN = "Check the answer step by step. If there is a mistake, correct it. Then give the whole answer again."
FORM = 64  # tokens that count as a plain answer where its form leaves no room to think
STEP = 8  # tokens that a step has at least
MOST = 512  # branches that are kept
HEAD = 400  # characters of a branch's text that are kept
VERIFIER_S = 60.0  # that one verifier may take for one answer
_YES = ("yes", "y", "correct", "true", "right")
_NO = ("no", "n", "incorrect", "false", "wrong", "not")


@dataclass(slots=True, eq=False)
class Candidate:
    """A branch: the tokens `behind` the window at its end, of which `told` would be the answer."""

    number: int
    parent: int
    kind: Part
    behind: tuple[int, ...]
    told: tuple[Emitted, ...]
    text: str  # of what would be told
    reasoning: str  # all that led to it
    own: str  # what this branch alone wrote
    whole: bool  # it came to its end
    tokens: int = 0  # written for this branch alone
    value: Value | None = None  # what it comes to
    score: float | None = None  # a verifier's
    prior: float | None = None  # how good a step looks
    note: str = ""
    dropped: bool = False
    cut: bool = False  # its limit, the budget or the user ended it
    calls: bool = False  # it makes calls: it is no answer yet

    @property
    def sure(self) -> float:
        """The model's own likelihood of all its words, 0 to 1."""
        return exp(sum(t.logprob for t in self.told if t.logprob is not None)) if self.told else 0.0

    @property
    def fluent(self) -> float:
        """The same of a word, in the mean."""
        known = [t.logprob for t in self.told if t.logprob is not None]
        return exp(sum(known) / len(known)) if known else 0.0


Basis = Literal["first", "votes", "verified", "partial"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a strategy came to.

    Args:
        raw: how sure, 0 to 1, as far as the strategy can tell; `confidence.py` makes a probability of it.
        basis: what that stands on.
        why: why it stopped.
    """

    chosen: Candidate
    raw: float
    basis: Basis
    why: str


class Strategy(Protocol):
    """A way to think."""

    @property
    def budget(self) -> str | int: ...

    async def run(self, mind: Mind) -> Verdict:
        """Think until sure, or until the budget is used up."""


@dataclass(slots=True)
class Mind:
    """Of one turn. Lives on the loop."""

    turn: Thinking
    meter: Meter
    branches: Branches
    question: str
    limit: int  # tokens of an answer
    temperature: float = 0.7
    top_p: float = 0.95
    candidates: list[Candidate] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)  # of what verifiers read
    names: list[str] = field(default_factory=list)  # of strategies that had a part
    used: Finished | None = None  # of the first branch
    _kind: Kind = "words"
    _began: float = field(default_factory=perf_counter)
    _calculated: dict[str, Fraction | None] = field(default_factory=dict)
    _numbers: int = 0
    _stuck: bool = False  # the last branches wrote nothing

    # -- what is left ------------------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Nothing more may be begun: no budget is left, the turn is given up, or no branch gets a word any more."""
        return self._stuck or self.meter.over or self.branches.halted

    @property
    def first(self) -> Candidate:
        """The answer that the turn would have given without thinking."""
        return self.candidates[0]

    @property
    def kind(self) -> Kind:
        """How answers to this question are compared."""
        return self._kind

    @property
    def whole(self) -> list[Candidate]:
        """The answers that came to their end, oldest first."""
        return [c for c in self.candidates if c.whole and c.kind != "step" and not c.calls]

    @property
    def typical(self) -> int:
        """Tokens of an answer, as they have been so far."""
        lengths = [max(c.tokens, len(c.told)) for c in self.candidates if c.kind == "answer"]
        return max(sum(lengths) // max(len(lengths), 1), 4)

    def room(self, wanted: int, each: int = 0) -> tuple[int, int]:
        """(how many branches, of how many tokens together) the budget has room for, of `wanted` ones with about `each`
        tokens (0: an answer's); (0, 0) where there is hardly any for one."""
        each = each or self.typical
        left = self.meter.left
        if self.over or left < each * 3 // 4:
            return 0, 0
        return max(min(wanted, left // each), 1), left

    # -- answers -----------------------------------------------------------------------------------------------

    async def begin(self) -> Candidate:
        """The first answer. Raises what keeps it from being written."""
        wish = Wish(
            number=1, limit=self.limit, strategy=self.turn.strategy, grammar=self.turn.grammar(), cut=self.turn.stops,
            urgent=True,
        )  # fmt: skip
        (written,) = await self._write([wish])
        if written.error is not None:
            raise written.error
        self.used = written.finished
        calls = written.end == "stop" and self.turn.makes_calls([t.id for t in written.tokens])
        self._kind = kind_of(self.question, written.text, typed=self.turn.typed)
        made = self._enter("answer", 0, written, (), calls=calls)
        self.meter.plain(max(made.tokens, FORM if self.turn.typed else 1))
        return made

    async def answers(self, wanted: int) -> list[Candidate]:
        """Up to `wanted` more answers, drawn at random, side by side; fewer or none where the budget has no room."""
        aside = tuple(self._encode(ASIDE)) if self.turn.typed else ()
        count, tokens = self.room(wanted, 2 * self.typical + FORM if aside and len(self.whole) < 2 else 0)
        if aside:  # the answers themselves have to follow
            tokens = max(tokens - count * (2 * len(self.first.told) + len(self._encode(THEN))), count * STEP)
        most = min(self.limit, max(4 * self.typical, tokens // 4))  # one that rambles does not eat it all
        written = await self._write([self._drawn(aside, limit=most) for _ in range(count)], tokens)
        made = [self._enter("answer", 0, w, aside) for w in written]
        return [c for c in (await self._typed(made)) if c.whole]

    async def steps(self, parents: Sequence[Candidate | None], each: int, length: int) -> list[Candidate]:
        """`each` next steps behind each of `parents` (None: the question), drawn at random, side by side. A step ends
        with its line; one that ends the answer is `whole`."""
        begins = [p for p in parents for _ in range(each)]
        count, tokens = self.room(len(begins), length)
        wishes = [
            self._drawn(() if p is None else p.behind, limit=4 * length, step=True) for p in begins[:count]
        ]
        written = await self._write(wishes, tokens)
        made = []
        for parent, w in zip(begins, written, strict=False):
            above = () if parent is None else parent.told
            behind = () if parent is None else parent.behind
            c = self._enter("step", 0 if parent is None else parent.number, w, behind, above=above)
            c.whole = w.end == "stop" or self.turn.stops(c.text)
            if w.end == "length":  # a long line is gone on with
                c.cut, c.note = False, ""
            made.append(c)
        return await self._typed(made)

    async def finish(self, candidate: Candidate) -> Candidate | None:
        """Write a step's answer to its end; None where there is no room."""
        count, tokens = self.room(1)
        if not count:
            return None
        (written,) = await self._write([self._drawn(candidate.behind, greedy=True)], tokens)
        made = self._enter("answer", candidate.number, written, candidate.behind, above=candidate.told)
        (made,) = await self._typed([made])
        return made if made.whole else None

    async def revise(self, candidate: Candidate, complaint: str = "") -> Candidate | None:
        """Have the model look at an answer again, and give it once more; None where there is no room for it."""
        said = f"{complaint.strip().rstrip('.')}. {AGAIN}" if complaint else AGAIN
        asked = self._going_on(said)
        count, tokens = self.room(1, self.typical + len(asked))
        tokens -= len(asked)
        if not count or tokens < 1:
            return None
        behind = (*candidate.behind, *asked)
        self._spend(len(asked))
        (written,) = await self._write([self._drawn(behind)], tokens)
        made = self._enter("revision", candidate.number, written, behind, fresh=True)
        (made,) = await self._typed([made])
        return made if made.whole else None

    # -- what they are worth -----------------------------------------------------------------------------------

    async def judge(self, candidates: Sequence[Candidate], verifier: Verifier | None) -> None:
        """Have a verifier give a score to those that have none."""
        if verifier is None:
            return
        fresh = [c for c in candidates if c.score is None]
        for c, score in zip(
            fresh, await asyncio.gather(*(self._check(c, verifier) for c in fresh)), strict=True
        ):
            c.score = score

    async def believe(self, candidates: Sequence[Candidate]) -> list[float]:
        """How likely the model calls each of these right, when it is asked; 0.5 where there is no room to ask."""
        asked = self._going_on(RIGHT)
        cost = len(candidates) * (len(asked) + 1)
        if not candidates or self.over or cost > self.meter.left:
            return [0.5] * len(candidates)
        behinds = [(*c.behind, *asked) for c in candidates]
        self._spend(cost)
        tops = await self.branches.first_words(behinds, self._seconds)
        return [self._yes(top) for top in tops]

    async def calculate(self, expression: str) -> Fraction | None:
        """What the calculator makes of an expression; None where it is none."""
        if expression not in self._calculated:
            text = await self.call(CALCULATE, {"expression": expression})
            self._calculated[expression] = number_in(text.split(" ")[0]) if isinstance(text, str) else None
        return self._calculated[expression]

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """What a syscall comes to that only calculates or reads; None where it fails. CallDenied: it does more."""
        process, kernel = self.turn.process, self.turn.process.kernel
        syscall = (await asyncio.to_thread(lambda: kernel.syscalls)).get(name)
        if syscall is None:
            return None
        if syscall.effect not in QUIET:
            raise CallDenied(
                f"{name} was not called while thinking", why=f"its effect is {syscall.effect}",
                do="have the process call it, which is done once",
            )  # fmt: skip
        labels = dict.fromkeys(arguments, self.turn.layout.taint)
        await process.trap.judge(self.turn, Attempt(syscall, arguments, labels), 0, (Grant(name),))
        key = f"{kernel.machine_id}-{process.pid}-{self.turn.turn.number}-thinking"
        intent = Intent(self.turn.turn.number, 0, name, dict(arguments), key, syscall.retry, labels)
        outcome = await kernel.apps.call(process, syscall, intent)
        self.labels.append(join([syscall.label, outcome.label]))
        return None if outcome.error is not None else outcome.value

    # -- the record --------------------------------------------------------------------------------------------

    def tree(self, verdict: Verdict) -> ThoughtTree:
        """All of it, as it is looked at."""
        kept = [c for c in self.candidates if c is verdict.chosen or len(self.candidates) <= MOST or c.whole][
            -MOST:
        ]
        return ThoughtTree(
            " → ".join(dict.fromkeys(self.names)), verdict.why, self.meter.spent, perf_counter() - self._began,
            verdict.basis, verdict.raw, tuple(self._thought(c, verdict.chosen) for c in kept),
        )  # fmt: skip

    def _thought(self, c: Candidate, chosen: Candidate) -> Thought:
        state: Literal["chosen", "kept", "dropped"] = (
            "chosen"
            if c is chosen
            else "dropped"
            if c.dropped or not (c.whole or c.kind == "step")
            else "kept"
        )
        worth = c.score if c.score is not None else c.prior
        own = c.own if len(c.own) <= HEAD else f"{c.own[:HEAD]} …"
        return Thought(
            c.number, c.parent, c.kind, own, c.tokens, worth, c.value.shown if c.value else "", state, c.note
        )

    # -- helpers -----------------------------------------------------------------------------------------------

    @property
    def _seconds(self) -> float | None:
        left = self.meter.seconds_left
        return None if left is None else max(left, 0.0)

    async def _write(self, wishes: Sequence[Wish], tokens: int | None = None) -> list[Written]:
        await self.turn.process.going.wait()
        limits = [min(w.limit, self.turn.room - len(w.behind)) for w in wishes]
        fitting = [replace(w, limit=limit) for w, limit in zip(wishes, limits, strict=True) if limit > 0]
        written = iter(await self.branches.write(fitting, self._seconds, tokens))
        found = [next(written) if limit > 0 else Written((), "", "failed") for limit in limits]
        self._spend(sum(len(w.tokens) for w in found))
        self._stuck = bool(found) and not any(w.tokens for w in found)
        for w in found:
            if w.finished is not None:
                self.turn.held(w.finished)
        return found

    def _spend(self, tokens: int) -> None:
        self.meter.spend(tokens)
        self.turn.process.ledger.spend("tokens", tokens)

    def _drawn(
        self, behind: tuple[int, ...], *, limit: int = 0, step: bool = False, greedy: bool = False
    ) -> Wish:
        self._numbers += 1
        return Wish(
            number=self._numbers + 1, limit=limit or self.limit, behind=behind,
            cut=self._line if step else self.turn.stops,
            strategy=Greedy() if greedy else Sample(temperature=self.temperature, top_p=self.top_p),
            grammar=self.turn.grammar(words=True, free=self.turn.typed),
        )  # fmt: skip

    def _line(self, text: str) -> bool:
        """A step is over: with its line, once it says something."""
        return self.turn.stops(text) or (text.endswith("\n") and len(text.strip()) >= 2 * STEP)

    def _enter(
        self,
        kind: Part,
        parent: int,
        written: Written,
        behind: tuple[int, ...],
        *,
        above: tuple[Emitted, ...] = (),
        calls: bool = False,
        fresh: bool = False,
    ) -> Candidate:
        ids = tuple(t.id for t in written.tokens)
        told = (*above, *written.tokens)
        text = self._text(told) if above else written.text
        whole = written.end in ("stop", "cut") or (
            written.end == "length" and kind == "answer" and not self.candidates
        )
        made = Candidate(
            len(self.candidates) + 1, parent, kind, (*behind, *ids), told, text, text, written.text, whole,
            tokens=len(ids), calls=calls, cut=written.end in ("length", "cancelled"),
        )  # fmt: skip
        if made.whole and not calls and not (self.turn.typed and self.candidates):
            made.value = value_of(self._kind, text)
        if written.error is not None:
            made.note = str(written.error)
        elif made.cut:
            made.note = "cut short"
        self.candidates.append(made)
        return made

    async def _typed(self, made: list[Candidate]) -> list[Candidate]:
        """Where the answer has a form of its own: write it behind what was thought."""
        if not self.turn.typed:
            return made
        then = tuple(self._encode(THEN))
        ripe = [c for c in made if (c.whole or c.cut) and not self.over]
        wishes = []
        for c in ripe:
            self._numbers += 1
            wishes.append(
                Wish(
                    number=self._numbers + 1,
                    limit=self.limit,
                    behind=(*c.behind, *then),
                    grammar=self.turn.grammar(words=True),
                )
            )
        for c in made:
            c.whole = False
        for c, w in zip(ripe, await self._write(wishes), strict=True):
            c.behind = (*c.behind, *then, *(t.id for t in w.tokens))
            c.told, c.text, c.whole, c.cut = w.tokens, w.text, w.end == "stop", w.end != "stop"
            c.tokens += len(then) + len(w.tokens)
            c.value = value_of("json", w.text) if c.whole else None
            self._spend(len(then))
        return made

    async def _check(self, candidate: Candidate, verifier: Verifier) -> float | None:
        """A verifier's word; None, and why, where it fails or takes too long."""
        seconds = min(VERIFIER_S, self._seconds if self._seconds is not None else VERIFIER_S)
        try:
            async with asyncio.timeout(seconds):
                return await verifier.check(self, candidate)
        except TimeoutError:
            candidate.note = f"the verifier did not answer within {seconds:.3g} s"
        except Exception as error:  # whatever it is, the turn goes on without its word
            told = str(error) if isinstance(error, LLMOSError) else f"{type(error).__name__}: {error}"
            candidate.note = f"the verifier failed: {told}"
        return None

    def _yes(self, top: Sequence[tuple[int, float]]) -> float:
        yes = no = 1e-9
        for token, logprob in top:
            word = self._piece(token).strip().strip(".,!*").casefold()
            yes += exp(logprob) if word in _YES else 0.0
            no += exp(logprob) if word in _NO else 0.0
        return yes / (yes + no) if yes + no > 1e-6 else 0.5

    def _text(self, told: Sequence[Emitted]) -> str:
        stream = self.turn.process.kernel.tokenizer.stream()
        return "".join(stream.push(t.id) for t in told) + stream.flush()

    def _piece(self, token: int) -> str:
        return self.turn.process.kernel.tokenizer.token_bytes(token).decode("utf-8", "replace")

    def _encode(self, text: str) -> list[int]:
        return self.turn.process.kernel.tokenizer.encode(text)

    def _going_on(self, text: str) -> tuple[int, ...]:
        segments = self.turn.process.kernel.prompt.going_on(text)
        return tuple(token for segment in segments for token in segment.tokens)
