"""The ledger of a process: what it has used, and what it may.

What: counters, and quotas on some of them.
Invariant: nothing is used beyond a quota: `take` refuses before, `left` bounds what is asked for.
Interface: `Ledger(quotas)`: `left`, `take`, `spend`; `check_quotas`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from llmos.abi.errors import ConfigError, QuotaExceeded

Quota = Literal["tokens", "syscalls", "seconds", "pages"]
NO_LIMIT = 1 << 62


class Ledger:
    """Counts for one process; on the loop. What a child uses, its parent has used too."""

    def __init__(self, quotas: Mapping[str, float], parent: Ledger | None = None) -> None:
        self.quotas, self.parent = dict(quotas), parent
        self.turns = self.tokens = self.prompt_tokens = self.cached_tokens = self.syscalls = 0
        self.pages = 0  # of its largest window

    def limit(self, quota: str) -> int:
        """How much there may be in all."""
        return int(self.quotas.get(quota, NO_LIMIT))

    def left(self, quota: Literal["tokens", "syscalls"]) -> int:
        """How much more may be used."""
        own = self.limit(quota) - int(getattr(self, quota))
        return own if self.parent is None else min(own, self.parent.left(quota))

    def take(self, quota: Literal["tokens", "syscalls"], amount: int) -> None:
        """Use some.

        Raises:
            QuotaExceeded: less is left; nothing was used.
        """
        if self.left(quota) < amount:
            raise exceeded(quota, self.limit(quota))
        self.spend(quota, amount)

    def spend(self, quota: Literal["tokens", "syscalls"], amount: int) -> None:
        """Note a use that has happened."""
        setattr(self, quota, getattr(self, quota) + amount)
        if self.parent is not None:
            self.parent.spend(quota, amount)


def exceeded(quota: Quota, limit: float) -> QuotaExceeded:
    """The error that ends a process."""
    return QuotaExceeded(
        f"the quota of {limit:g} {quota} is used up", do="spawn one with a larger quota", quota=quota
    )


def check_quotas(quotas: Mapping[str, float]) -> dict[str, float]:
    """The quotas, as numbers; ConfigError for one that does not exist or is not positive."""
    for name, limit in quotas.items():
        if name not in get_args(Quota) or not limit > 0:
            raise ConfigError(
                f"a quota of {limit!r} {name}", do=f"give positive numbers for {', '.join(get_args(Quota))}"
            )
    return {name: float(limit) for name, limit in quotas.items()}
