"""Easy or hard: how much thought a question is worth, and of which kind.

What: `Think`, the strategy that chooses. It looks at the plain answer first: where the model was sure of its words, or
    a check settles it, that is all (System 1). Else a few more answers show whether they agree; then the strategy
    goes on that fits what can judge such answers.
Invariant: a question that looks easy costs its plain answer and no more. What is chosen follows from the question, the
    answers and what judges them: nobody tells it what the answer should be.
Interface: `Think`; `natural(question, kind)`, who can judge such answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import ConfigDict

from llmos.kernel.think.budget import Budget
from llmos.kernel.think.candidates import Verdict
from llmos.kernel.think.strategies import BestOf, Revise, SelfConsistency, Share, best, settled, verdict
from llmos.kernel.think.verifiers import STRICT, AnyVerifier, Examples, Judge, Sums

if TYPE_CHECKING:
    from llmos.kernel.think.answers import Kind
    from llmos.kernel.think.mind import Mind

EASY = 0.35  # likelihood of all the words of a plain answer from which it is believed without a second look
ALIKE = 0.5  # share of the first answers that must agree for votes to be worth counting


@dataclass(frozen=True, slots=True, kw_only=True)
class Think:
    """What `think="8x"` means.

    Args:
        verifier: who judges; None for whoever can judge such answers.
        easy: stop at the plain answer where all its words together were this likely.
        sure: stop when the first among the answers stays the first with this probability.
    """

    budget: str | int = "8x"
    verifier: AnyVerifier | None = None
    easy: Share = EASY
    sure: Share = 0.95
    kind: Literal["think"] = "think"
    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    def __post_init__(self) -> None:
        Budget.of(self.budget)

    async def run(self, mind: Mind) -> Verdict:
        verifier = self.verifier or natural(mind.question, mind.kind)
        await mind.judge(mind.whole, verifier)
        first = mind.first
        if verifier is not None and verifier.exact and first.score is not None:
            return await self._checked(mind, verifier)
        wrong = first.score is not None and first.score < 1
        if first.sure >= self.easy and not wrong:
            mind.names.append("plain")
            return verdict(mind, "it looked easy")
        if mind.kind in ("number", "json"):
            return await SelfConsistency(budget=self.budget, verifier=verifier, sure=self.sure).run(mind)
        return await self._talked_over(mind)

    async def _checked(self, mind: Mind, verifier: AnyVerifier) -> Verdict:
        """There is a check that settles it: answers until one passes it, and in between the best one mended."""
        if settled(mind, exact=True):
            mind.names.append("plain")
            return best(mind, exact=True)
        await BestOf(budget=self.budget, verifier=verifier, count=8).run(mind)
        if not settled(mind, exact=True) and not mind.over and best(mind, exact=True).chosen.score:
            await Revise(budget=self.budget, verifier=verifier, rounds=2).run(mind)
        return await BestOf(budget=self.budget, verifier=verifier).run(mind)

    async def _talked_over(self, mind: Mind) -> Verdict:
        """Nothing can check it: where answers agree they are counted, else the model looks at them again."""
        await SelfConsistency(budget=self.budget, sure=self.sure, most=8).run(mind)
        found = verdict(mind, "the answers agree")
        if mind.over or found.raw >= ALIKE:
            return found
        return await BestOf(budget=self.budget, verifier=Judge(), count=12).run(mind)


def natural(question: str, kind: Kind) -> AnyVerifier | None:
    """Who can judge answers of that kind to that question; None for nobody."""
    if kind == "code":
        from llmos.kernel.think.trial import examples_in

        return Examples() if examples_in(question) else None
    return Sums() if kind in ("number", "json") else None
