"""Branches and what is made of them: the values that strategies hand around.

What: a `Candidate` is one branch, written to its end or not; a `Verdict` what a strategy came to; `tree_of` writes both
    down for people.
Invariant: a branch keeps its number; what is chosen is always shown.
Interface: `Candidate`, `Verdict`, `Strategy`; `tree_of(candidates, verdict, names, spent, seconds)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from typing import TYPE_CHECKING, Literal, Protocol

from llmos.abi.events import Thought, ThoughtTree

if TYPE_CHECKING:
    from llmos.kernel.engine.sequence import Emitted
    from llmos.kernel.think.answers import Value
    from llmos.kernel.think.mind import Mind

Part = Literal["answer", "step", "revision"]
MOST = 512  # branches that are kept
HEAD = 400  # characters of a branch's text that are kept


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


def tree_of(
    candidates: Sequence[Candidate], verdict: Verdict, names: Sequence[str], spent: int, seconds: float
) -> ThoughtTree:
    """All of it, as it is looked at; where there is too much, what came to its end."""
    kept = [c for c in candidates if c is verdict.chosen or len(candidates) <= MOST or c.whole][-MOST:]
    thoughts = tuple(_thought(c, verdict.chosen) for c in kept)
    return ThoughtTree(
        " → ".join(dict.fromkeys(names)), verdict.why, spent, seconds, verdict.basis, verdict.raw, thoughts
    )


def _thought(c: Candidate, chosen: Candidate) -> Thought:
    state: Literal["chosen", "kept", "dropped"] = "kept"
    if c is chosen:
        state = "chosen"
    elif c.dropped or not (c.whole or c.kind == "step"):
        state = "dropped"
    worth = c.score if c.score is not None else c.prior
    own = c.own if len(c.own) <= HEAD else f"{c.own[:HEAD]} …"
    return Thought(
        c.number, c.parent, c.kind, own, c.tokens, worth, c.value.shown if c.value else "", state, c.note
    )
