"""Sums of several numbers, worked out term by term.

What: `47 + 38 - 12`; a level has one term more than the one before. The last number of an answer counts.
Invariant: what is right is computed exactly. The teacher errs as children do: where a column has to carry or borrow it
    forgets to, more often than not; so whoever imitates its most frequent answer is worse than it, and whoever imitates
    it perfectly is as good.
Interface: `Arithmetic(levels, digits, lapse)`, a `Domain`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from llmos.kernel.heard import NUMBER
from llmos.kernel.learn.domains import Task

SEEN = ("What is {}?", "Compute {}.", "{} = ?", "Work out {}.")
UNSEEN = ("How much do {} come to?", "Please tell me the value of {}", "Evaluate: {}")
_NUMBER = re.compile(rf"[-−]?(?:{NUMBER})")
LONGEST = 2000  # characters of an answer that are looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """Args:
    levels: that are trained: 2 terms, 3, ...
    digits: of a term, at most.
    lapse: how often the teacher forgets what it has to carry or borrow.
    tokens: the most that an answer may take.
    """

    levels: int = 3
    digits: int = 2
    lapse: float = 0.6
    tokens: int = 64

    def task(self, level: int, rng: Random, unseen: bool) -> Task:
        terms = [self._term(rng)]
        while len(terms) < level + 2:
            term = self._term(rng)
            terms.append(-term if rng.random() < 0.5 and term <= sum(terms) else term)
        written = str(terms[0]) + "".join(f" {'-' if t < 0 else '+'} {abs(t)}" for t in terms[1:])
        return Task(rng.choice(UNSEEN if unseen else SEEN).format(written), level, tuple(terms))

    def check(self, task: Task, answer: str) -> float:
        numbers = _NUMBER.findall(answer[-LONGEST:])
        if not numbers:
            return 0.0
        said = numbers[-1].replace(",", "").replace("−", "-")
        return float(len(said) < 20 and float(said) == sum(map(int, task.facts)))

    def teach(self, task: Task, rng: Random) -> str:
        first, *others = map(int, task.facts)
        totals = [first]
        for term in others:
            forgets = rng.random() < self.lapse
            totals.append((without_carry if forgets else int.__add__)(totals[-1], term))
        steps = [
            f"{before} {'-' if term < 0 else '+'} {abs(term)} = {after}"
            for (before, after), term in zip(pairwise(totals), others, strict=True)
        ]
        return ", ".join(steps)

    def _term(self, rng: Random) -> int:
        return rng.randrange(1, 10**self.digits)


def without_carry(a: int, b: int) -> int:
    """a + b column by column: nothing is carried; of a difference each column has the smaller digit from the larger."""
    if a < 0:
        return a + b
    subtracts, b = b < 0, abs(b)
    columns = max(len(str(a)), len(str(b)))
    out = 0
    for i in reversed(range(columns)):
        x, y = a // 10**i % 10, b // 10**i % 10
        column = abs(x - y) if subtracts else x + y
        out = out * 10 + (column if i == columns - 1 else column % 10)
    return out
