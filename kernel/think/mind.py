"""What a strategy has in hand: answers to be had, steps, verifiers, a budget, and the record of it all.

What: writes answers by forking the turn's window, asks verifiers and the model itself what they are worth, and keeps
    every branch for `turn.tree`.
Invariant: the first answer is the one that the turn would have given without thinking. An answer counts as one only
    when it has come to its end. What a strategy asks for is cut to what the budget has left; nothing is begun when it
    is over. Only syscalls whose effect is `none` or `read` are called.
Interface: `Mind`: `begin`, `answers`, `steps`, `finish`, `revise`; `judge`, `believe`, `calculate`; `over`,
    `candidates`, `first`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import exp
from time import perf_counter
from typing import TYPE_CHECKING, Any

from llmos.abi.errors import LLMOSError
from llmos.kernel.engine.sampling import Greedy, Sample
from llmos.kernel.think.answers import Kind, kind_of, number_in, value_of
from llmos.kernel.think.branches import Branches, Wish, Written
from llmos.kernel.think.candidates import Candidate, Part, Verdict, tree_of
from llmos.kernel.think.quiet import quietly
from llmos.kernel.think.verifiers import CALCULATE

if TYPE_CHECKING:
    from llmos.abi.events import ThoughtTree
    from llmos.abi.labels import Label
    from llmos.kernel.engine.sequence import Emitted, Finished
    from llmos.kernel.think.budget import Meter
    from llmos.kernel.think.execution import Thinking
    from llmos.kernel.think.verifiers import Verifier

ASIDE = "Let me think step by step.\n"  # an answer of a given form is thought about in words first
THEN = "\n\nThe answer, in the form that was asked for:\n"
RIGHT = "Is this answer correct? Answer yes or no."
AGAIN = "Check the answer step by step. If there is a mistake, correct it. Then give the whole answer again."
FORM = 64  # tokens that count as a plain answer where its form leaves no room to think
STEP = 8  # tokens that a step has at least
VERIFIER_S = 60.0  # that one verifier may take for one answer
_YES = ("yes", "y", "correct", "true", "right")
_NO = ("no", "n", "incorrect", "false", "wrong", "not")


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
        value, label = await quietly(self.turn, name, arguments)
        if label is not None:
            self.labels.append(label)
        return value

    def tree(self, verdict: Verdict) -> ThoughtTree:
        """All of it, as it is looked at."""
        return tree_of(self.candidates, verdict, self.names, self.meter.spent, perf_counter() - self._began)

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
