"""What leaves a window under pressure, and what comes back.

What: policies as frozen dataclasses with one method. They see what stands in a window as `Held` values and say in which
    order it would leave; the window's owner takes as many as it must.
Invariant: pure: the order is a function of what is held. Pinned things are not in it.
Interface: `LeastValue()` (the default), `Oldest()`; `Held`, `Policy`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class Held:
    """Something in a window.

    Args:
        kind: knowledge that was retrieved, or an exchange of the conversation.
        tokens: that would be free without it.
        value: to the question at hand, 0 for nothing known.
        age: 0 for the newest of its kind, counted upwards.
        pin: it never leaves.
        attention: its share of what the last answers looked at among all that may leave, 0 where nobody looked.
    """

    kind: Literal["knowledge", "exchange"]
    tokens: int
    value: float = 0.0
    age: int = 0
    pin: bool = False
    attention: float = 0.0


class Policy(Protocol):
    """Who goes first."""

    def leaving(self, held: Sequence[Held]) -> list[int]:
        """Indices of what may leave, in the order in which it would."""


@dataclass(frozen=True, slots=True)
class LeastValue:
    """Knowledge first, by value a token, all but the best; then exchanges, by what they are worth to the question and a
    little for being new, for a question may refer to the last one by a mere "it"; the best passage goes last. Both are
    worth a little more where the last answers looked at them.

    Args:
        new: what the newest exchange is worth beside its relevance; half of it the one before, and so on.
        used: what something would be worth that had all the attention of the last answers.
    """

    new: float = 0.3
    used: float = 0.3

    def leaving(self, held: Sequence[Held]) -> list[int]:
        free = [i for i, h in enumerate(held) if not h.pin]
        worth = [h.value + self.used * h.attention for h in held]
        knowledge = sorted(
            (i for i in free if held[i].kind == "knowledge"), key=lambda i: worth[i] / max(held[i].tokens, 1)
        )
        exchanges = sorted(
            (i for i in free if held[i].kind == "exchange"),
            key=lambda i: (worth[i] + self.new / 2 ** min(held[i].age, 99), -held[i].age),
        )
        return [*knowledge[:-1], *exchanges, *knowledge[-1:]]


@dataclass(frozen=True, slots=True)
class Oldest:
    """A sliding window: knowledge from the least valuable on, then the oldest exchanges."""

    def leaving(self, held: Sequence[Held]) -> list[int]:
        free = [i for i, h in enumerate(held) if not h.pin]
        knowledge = sorted((i for i in free if held[i].kind == "knowledge"), key=lambda i: held[i].value)
        exchanges = sorted((i for i in free if held[i].kind == "exchange"), key=lambda i: -held[i].age)
        return [*knowledge[:-1], *exchanges, *knowledge[-1:]]
