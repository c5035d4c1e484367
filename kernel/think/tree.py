"""Tree of thoughts: an answer looked for step by step, with back-tracking.

What: each step is a fork of the process's own window. The most promising steps so far, wherever they stand in the tree,
    are gone on from; what looks hopeless is dropped, and the search turns back to what it had left.
Invariant: what a step is worth is said by a verifier of what stands so far, and by the model itself, asked whether it
    is right; never by what the answer should be. Steps that are never gone on from cost no page beyond their own words.
Interface: `Tree`. Source: Yao et al. 2023 (arXiv 2305.10601).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from llmos.kernel.think.budget import Budget
from llmos.kernel.think.candidates import Candidate, Verdict
from llmos.kernel.think.strategies import agreed, best, settled, verdict
from llmos.kernel.think.verifiers import STRICT, AnyVerifier

if TYPE_CHECKING:
    from llmos.kernel.think.mind import Mind


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """Args:
    branch: steps that are tried behind each.
    beam: steps that are gone on from side by side.
    depth: steps of an answer; a longer one is written to its end in one go.
    hopeless: a step that is worth less is dropped.
    length: tokens of a step, about.
    sure: stop when the first among the finished answers stays the first with this probability.
    """

    budget: str | int = "8x"
    verifier: AnyVerifier | None = None
    branch: Annotated[int, Field(ge=2, le=16)] = 3
    beam: Annotated[int, Field(ge=1, le=16)] = 3
    depth: Annotated[int, Field(ge=1, le=256)] = 24
    hopeless: Annotated[float, Field(ge=0, lt=1)] = 0.2
    length: Annotated[int, Field(ge=4, le=1024)] = 24
    sure: Annotated[float, Field(gt=0, le=1)] = 0.95
    kind: Literal["tree"] = "tree"
    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    def __post_init__(self) -> None:
        Budget.of(self.budget)

    async def run(self, mind: Mind) -> Verdict:
        mind.names.append(self.kind)
        exact = self.verifier is not None and self.verifier.exact
        await mind.judge(mind.whole, self.verifier)
        steps = {c.number: 0 for c in mind.candidates}
        front: list[Candidate] = []
        begun = False
        while not mind.over and not settled(mind, exact):
            if agreed(mind, self.sure) and not exact:
                return verdict(mind, "the answers agree")
            parents: list[Candidate | None] = [front.pop() for _ in range(min(self.beam, len(front)))]
            if not parents:  # the root, at first and wherever nothing else is left
                if begun and mind.room(1, self.length) == (0, 0):
                    break
                parents = [None]
            begun = True
            made = await self._on(mind, parents, steps)
            if not made:
                break
            front = sorted([*front, *made], key=lambda c: (_worth(c), -c.number))
        await self._land(mind, front)
        return best(mind, exact) if exact else verdict(mind, "the budget is used up")

    async def _on(
        self, mind: Mind, parents: Sequence[Candidate | None], steps: dict[int, int]
    ) -> list[Candidate]:
        """Go on from these; the steps that may be gone on from themselves. Equal steps are one."""
        deep = [p for p in parents if p is not None and steps.get(p.number, 0) >= self.depth]
        for p in deep:
            if (ended := await mind.finish(p)) is not None:
                await mind.judge([ended], self.verifier)
        made = await mind.steps([p for p in parents if p not in deep], self.branch, self.length)
        seen: set[tuple[int, str]] = set()
        fresh: list[Candidate] = []
        for c in made:
            steps[c.number] = steps.get(c.parent, 0) + 1
            if (key := (c.parent, " ".join(c.own.split()))) in seen and not c.whole:
                c.dropped, c.note = True, "it says the same as another"
            elif c.tokens and not c.cut:
                seen.add(key)
                fresh.append(c)
        done = [c for c in fresh if c.whole]
        for c in done:
            c.kind = "answer"
        await mind.judge(done, self.verifier)
        going_on = [c for c in fresh if not c.whole]
        await self._value(mind, going_on)
        return [c for c in going_on if not c.dropped]

    async def _value(self, mind: Mind, steps: Sequence[Candidate]) -> None:
        """What steps are worth: what the model believes of them, less what is provably wrong in them."""
        if self.verifier is not None and not self.verifier.exact:
            await mind.judge(steps, self.verifier)
        for c, belief in zip(steps, await mind.believe(steps), strict=True):
            c.prior = (belief + c.fluent) / 2 * (1.0 if c.score is None else c.score)
            c.dropped = c.prior < self.hopeless
            if c.dropped:
                c.note = c.note or "it looks hopeless"

    async def _land(self, mind: Mind, front: Sequence[Candidate]) -> None:
        """The budget is nearly used up: where nothing has come to its end, the best step is written to its end."""
        if (
            not mind.over
            and front
            and len(mind.whole) < 2
            and (done := await mind.finish(front[-1])) is not None
        ):
            await mind.judge([done], self.verifier)


def _worth(candidate: Candidate) -> float:
    return candidate.prior if candidate.prior is not None else 0.5
