"""Whole answers, compared: votes, a verifier's choice, second thoughts.

What: `SelfConsistency` (what most answers come to), `BestOf` (what a verifier finds best), `Revise` (the answer looked
    at again, kept where it got better).
Invariant: each stops when it is sure, when the budget is used up, or when the turn is given up, and always has a
    verdict: at worst the answer that the turn would have given anyway.
Interface: the dataclasses; `ballot(candidates) -> [Group]`, `verdict(mind, why) -> Verdict`, `settled(mind, verifier)`.

Sources: self-consistency, Wang et al. 2022 (arXiv 2203.11171); when to stop, Aggarwal et al. 2023 (arXiv 2305.11860);
verifiers, Cobbe et al. 2021 (arXiv 2110.14168); second thoughts, Madaan et al. 2023 (arXiv 2303.17651).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from llmos.kernel.think.budget import Budget
from llmos.kernel.think.candidates import Candidate, Verdict
from llmos.kernel.think.verifiers import STRICT, AnyVerifier

if TYPE_CHECKING:
    from llmos.kernel.think.mind import Mind

FLOOR = 0.1  # of a vote, whatever its verifier says: it may be wrong
WAVE = 4  # answers that are written side by side at first; then twice as many

Width = Annotated[int, Field(ge=1, le=64)]
Count = Annotated[int, Field(ge=1, le=4096)]
Share = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True, slots=True)
class Group:
    """Answers that come to the same; `weight` is that of their votes."""

    candidates: tuple[Candidate, ...]
    weight: float

    @property
    def best(self) -> Candidate:
        """The one to be told: what its verifier likes best, else the likeliest words."""
        return max(self.candidates, key=lambda c: (c.score or 0.0, c.fluent, -c.number))


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfConsistency:
    """What most answers come to. With a verifier, a vote has the weight of its word.

    Args:
        most: answers, at most.
        width: answers that are written side by side, at most.
        sure: stop when the first among the answers stays the first with this probability; 1 for never.
    """

    budget: str | int = "8x"
    verifier: AnyVerifier | None = None
    most: Count = 4096
    width: Width = 16
    sure: Share = 0.95
    kind: Literal["self-consistency"] = "self-consistency"
    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    def __post_init__(self) -> None:
        Budget.of(self.budget)

    async def run(self, mind: Mind) -> Verdict:
        mind.names.append(self.kind)
        if await _waves(mind, self.verifier, self.most, self.width, lambda: agreed(mind, self.sure)):
            return verdict(mind, "the answers agree")
        return verdict(mind, "the budget is used up" if mind.over else "there are answers enough")


@dataclass(frozen=True, slots=True, kw_only=True)
class BestOf:
    """The answer that a verifier finds best; the first that it finds perfect, where its word settles it.

    Args:
        count: answers, at most.
    """

    budget: str | int = "8x"
    verifier: AnyVerifier
    count: Count = 4096
    width: Width = 16
    kind: Literal["best-of"] = "best-of"
    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    def __post_init__(self) -> None:
        Budget.of(self.budget)

    async def run(self, mind: Mind) -> Verdict:
        mind.names.append(self.kind)
        exact = self.verifier.exact
        await _waves(mind, self.verifier, self.count, self.width, lambda: settled(mind, exact))
        return best(mind, exact)


@dataclass(frozen=True, slots=True, kw_only=True)
class Revise:
    """The answer looked at again: kept where the verifier, or without one the model, likes it better.

    Args:
        rounds: times, at most.
        margin: by which the model must like it better.
    """

    budget: str | int = "8x"
    verifier: AnyVerifier | None = None
    rounds: Annotated[int, Field(ge=1, le=64)] = 4
    margin: Annotated[float, Field(ge=0, le=1)] = 0.05
    kind: Literal["revise"] = "revise"
    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    def __post_init__(self) -> None:
        Budget.of(self.budget)

    async def run(self, mind: Mind) -> Verdict:
        mind.names.append(self.kind)
        exact = self.verifier is not None and self.verifier.exact
        await mind.judge(mind.whole, self.verifier)
        held = best(mind, exact).chosen
        for _ in range(self.rounds):
            if mind.over or settled(mind, exact):
                break
            made = await mind.revise(held, held.note)
            if made is None:
                break
            await mind.judge([made], self.verifier)
            if await self._better(mind, made, held):
                held.dropped, held = True, made
            else:
                made.dropped = True
        raw = held.score if held.score is not None else held.prior if held.prior is not None else held.fluent
        why = "it passes its check" if settled(mind, exact) else "it has been looked at again"
        return Verdict(chosen=held, raw=raw, basis="verified" if settled(mind, exact) else "partial", why=why)

    async def _better(self, mind: Mind, new: Candidate, old: Candidate) -> bool:
        if new.score is not None and old.score is not None:
            return new.score > old.score
        if new.value == old.value:
            return False
        fresh = [c for c in (new, old) if c.prior is None]
        for c, prior in zip(fresh, await mind.believe(fresh), strict=True):
            c.prior = prior
        return (new.prior or 0.0) > (old.prior or 0.0) + self.margin


async def _waves(
    mind: Mind, verifier: AnyVerifier | None, most: int, width: int, enough: Callable[[], bool]
) -> bool:
    """Have answers written and judged, a few and then more, up to `most`; whether it stopped for being `enough`."""
    await mind.judge(mind.whole, verifier)
    wave = WAVE
    while not mind.over and len(mind.whole) < most:
        if enough():
            return True
        made = await mind.answers(min(wave, width, most - len(mind.whole)))
        if not made and mind.room(1) == (0, 0):
            break
        await mind.judge(made, verifier)
        wave *= 2
    return False


def ballot(candidates: Sequence[Candidate]) -> list[Group]:
    """Answers by what they come to, the weightiest first. What a verifier doubts counts less."""
    groups: dict[object, list[Candidate]] = {}
    for c in candidates:
        if c.value is not None:
            groups.setdefault(c.value.key, []).append(c)
    made = [Group(tuple(g), sum(weight(c) for c in g)) for g in groups.values()]
    return sorted(made, key=lambda g: -g.weight)


def weight(candidate: Candidate) -> float:
    """Of a vote."""
    return 1.0 if candidate.score is None else FLOOR + (1 - FLOOR) * candidate.score


def stays_first(candidates: Sequence[Candidate]) -> float:
    """How likely the first among the answers would stay the first, however many more were written: between the first
    two, under a flat prior, which of them is the likelier to be written."""
    groups = ballot(candidates)
    if not groups:
        return 0.0
    a = round(groups[0].weight)
    b = round(groups[1].weight) if len(groups) > 1 else 0
    # P(X > 1/2), X ~ Beta(a + 1, b + 1), which is a tail of the binomial
    n = a + b + 1
    return sum(comb(n, k) for k in range(b + 1, n + 1)) / 2**n if a >= b else 0.0


def agreed(mind: Mind, sure: float) -> bool:
    """There is no need for more answers; never so where somebody wants to be quite `sure` (1)."""
    return sure < 1 and stays_first(mind.whole) >= sure


def verdict(mind: Mind, why: str) -> Verdict:
    """What most answers come to."""
    groups = ballot(mind.whole)
    if not groups:
        likeliest = max(mind.whole, key=lambda c: c.fluent, default=mind.first)
        return Verdict(chosen=likeliest, raw=likeliest.sure, basis="first", why=_why(mind, why))
    if len(mind.whole) < 2:
        return Verdict(chosen=groups[0].best, raw=groups[0].best.sure, basis="first", why=_why(mind, why))
    votes = sum(weight(c) for c in mind.whole)
    raw = (groups[0].weight + 0.5) / (votes + 1)
    return Verdict(chosen=groups[0].best, raw=raw, basis="votes", why=_why(mind, why))


def settled(mind: Mind, exact: bool) -> bool:
    """A verifier whose word settles it has found an answer perfect."""
    return exact and any(c.score is not None and c.score >= 1 for c in mind.whole)


def best(mind: Mind, exact: bool) -> Verdict:
    """What the verifier likes best; among equals, what most of them come to."""
    judged = [c for c in mind.whole if c.score is not None]
    if not judged:
        return verdict(mind, "the verifier had nothing to say")
    top = max(c.score or 0.0 for c in judged)
    equals = [c for c in judged if c.score == top]
    groups = ballot(equals)
    chosen = groups[0].best if groups else max(equals, key=lambda c: (c.fluent, -c.number))
    if settled(mind, exact):
        return Verdict(chosen=chosen, raw=1.0, basis="verified", why="it passes its check")
    return Verdict(chosen=chosen, raw=top, basis="partial", why=_why(mind, "the budget is used up"))


def _why(mind: Mind, why: str) -> str:
    return "it was stopped" if mind.branches.halted else why
