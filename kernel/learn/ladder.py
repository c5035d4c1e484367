"""The curriculum: which levels to draw tasks from.

What: a level is worth as many questions as it is likely to teach something: the chance that a group's answers differ,
    by how often answers of that level were right lately. What is too easy and what is too hard drops out by itself.
Invariant: a function of what came before alone, so a resumed run chooses the same. No level is ever given up: what was
    too hard is looked at again now and then.
Interface: `Ladder(levels, count)`, `shares(history)`; `Tally`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Tally = Mapping[int, tuple[float, int]]
"""Of each level: the rewards together, and of how many answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """Args:
    levels: there are.
    count: answers of a group.
    floor: the least chance that a level is taken to have of teaching something.
    memory: what a round still counts after the next one.
    """

    levels: int
    count: int
    floor: float = 0.05
    memory: float = 0.7

    def rates(self, history: Sequence[Tally]) -> list[float]:
        """How good an answer of each level is expected to be; 1/2 where nobody knows."""
        right, of = [1.0] * self.levels, [2.0] * self.levels
        for age, tally in enumerate(reversed(history)):
            for level, (reward, number) in tally.items():
                right[level] += reward * self.memory**age
                of[level] += number * self.memory**age
        return [r / n for r, n in zip(right, of, strict=True)]

    def shares(self, history: Sequence[Tally]) -> list[float]:
        """Which share of the next questions is of each level."""
        rates = self.rates(history)
        chances = [max(self.floor, 1 - p**self.count - (1 - p) ** self.count) for p in rates]
        return [chance / sum(chances) for chance in chances]
