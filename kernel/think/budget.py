"""How long a turn may think, and how much of that is left.

What: `Budget`, read from what a person says, and `Meter`, which counts against it.
Invariant: a budget is one of seconds, multiples of a plain answer's tokens, or tokens. Nothing new is begun that it has
    no room for; what has begun is cut when the time is up.
Interface: `Budget.of("30s" | "8x" | 4000)`; `Meter(budget, started, quota)`: `spend`, `left`, `seconds_left`, `over`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

from llmos.abi.errors import ConfigError

MAX_SECONDS = 86_400
MAX_TIMES = 4096
MAX_TOKENS = 1 << 30
_SAID = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*")
_SECONDS = {
    "ms": 0.001, "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0,
    "m": 60.0, "min": 60.0, "minute": 60.0, "minutes": 60.0, "h": 3600.0, "hour": 3600.0, "hours": 3600.0,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """One of them: wall `seconds` from the question to the answer, `times` the tokens of a plain answer (that one
    included), or `tokens` written and read while thinking."""

    seconds: float | None = None
    times: float | None = None
    tokens: int | None = None

    @classmethod
    def of(cls, said: str | int) -> Budget:
        """The budget that somebody said: `30s`, `2m`, `8x`, 4000.

        Raises:
            ConfigError: it is none, is nothing, or is more than anybody would wait for.
        """
        match = _SAID.fullmatch(str(said).lower()) if type(said) in (str, int) else None
        if match is None:
            raise _wrong(said, "it is neither a time, nor a multiple, nor a number of tokens")
        amount, unit = float(match[1]), match[2]
        if unit in _SECONDS:
            seconds = amount * _SECONDS[unit]
            if not 0 < seconds <= MAX_SECONDS:
                raise _wrong(said, f"a time is more than 0 and at most {MAX_SECONDS} seconds")
            return cls(seconds=seconds)
        if unit in ("x", "times"):
            if not 1 <= amount <= MAX_TIMES:
                raise _wrong(said, f"a multiple is from 1 to {MAX_TIMES}")
            return cls(times=amount)
        if unit not in ("", "token", "tokens"):
            raise _wrong(said, f"{unit!r} is no unit")
        if not 1 <= amount <= MAX_TOKENS or amount != int(amount):
            raise _wrong(said, f"tokens are whole, from 1 to {MAX_TOKENS}")
        return cls(tokens=int(amount))


def _wrong(said: object, why: str) -> ConfigError:
    return ConfigError(
        f"{str(said)[:40]!r} is no budget to think with", why=why,
        do='give seconds ("30s", "2m"), a multiple of a plain answer ("8x"), or tokens (4000)',
    )  # fmt: skip


class Meter:
    """What is left of a budget."""

    def __init__(
        self,
        budget: Budget,
        started: float,
        quota: Callable[[], int],
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        """
        Args:
            started: when the question was asked, on `clock`.
            quota: tokens that the process may still use.
        """
        self.spent = 0  # tokens
        self._budget, self._quota, self._clock = budget, quota, clock
        self._limit = budget.tokens
        self.deadline = None if budget.seconds is None else started + budget.seconds

    def plain(self, tokens: int) -> None:
        """A plain answer has so many tokens."""
        if self._budget.times is not None:
            self._limit = max(round(self._budget.times * tokens), 1)

    def spend(self, tokens: int) -> None:
        """Note tokens that were written or read."""
        self.spent += tokens

    @property
    def left(self) -> int:
        """Tokens that may still be used."""
        quota = self._quota()
        return quota if self._limit is None else min(self._limit - self.spent, quota)

    @property
    def seconds_left(self) -> float | None:
        """Until an answer has to be there; None for no such time."""
        return None if self.deadline is None else self.deadline - self._clock()

    @property
    def over(self) -> bool:
        """Nothing more may be begun."""
        seconds = self.seconds_left
        return self.left < 1 or (seconds is not None and seconds <= 0)
