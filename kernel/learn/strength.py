"""As much of what was learnt as it takes: an adapter between what was and what was learnt.

What: on the straight way from the weights before a course to those behind it new answers come soon and old ones go late
    (Wortsman et al. 2022, arXiv 2109.01903). So an adapter is taken back as far as the answers that it learnt stay.
Invariant: only what was learnt from is looked at; nothing held out decides. The way's end is never passed.
Interface: `between(start, end, share)`; `enough(weights, rows, window, start, end) -> (adapter, share)`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from llmos.abi.errors import AdapterMismatch
from llmos.drivers.weights.adapter import Adapter, LowRank
from llmos.kernel.learn.data import Row
from llmos.kernel.learn.evaluation import foretold

if TYPE_CHECKING:
    from llmos.drivers.weights import Weights

SHARES = (0.5, 0.6, 0.7, 0.8, 0.9)
LOOKED = 128  # rows, at most, that decide how far
GIVEN = 0.001  # of the tokens of the right answers, that may be foretold no longer


def between(start: Adapter | None, end: Adapter, share: float) -> Adapter:
    """A `share` of the way from `start`, or from no change at all, to `end`, which was trained from there.

    Raises:
        AdapterMismatch: `end` is of other matrices, or another rank or strength, than `start`.
    """
    if start is None:
        layers = tuple(
            {name: LowRank(change.a_RK, change.b_NR * share) for name, change in layer.items()}
            for layer in end.layers
        )
        return replace(end, layers=layers)
    alike = start.rank == end.rank and math.isclose(start.scale, end.scale)
    if not alike or [*map(set, start.layers)] != [*map(set, end.layers)]:
        raise AdapterMismatch("two adapters of other forms", why="what lies between them is no adapter")

    def mixed(name: str, old: LowRank, new: LowRank) -> LowRank:
        return LowRank(old.a_RK + (new.a_RK - old.a_RK) * share, old.b_NR + (new.b_NR - old.b_NR) * share)

    layers = tuple(
        {name: mixed(name, old[name], change) for name, change in new.items()}
        for old, new in zip(start.layers, end.layers, strict=True)
    )
    return replace(end, layers=layers)


def enough(
    weights: Weights, rows: Sequence[Row], window: int, start: Adapter | None, end: Adapter
) -> tuple[Adapter, float]:
    """The least of `SHARES` of the way at which the answers of `rows` are foretold as at its end.

    Raises BadExamples, AdapterMismatch.
    """
    rows = rows[:: -(-len(rows) // LOOKED)]
    wanted = foretold(weights, rows, window, end).accuracy - GIVEN
    low, high, found = 0, len(SHARES), (end, 1.0)
    while low < high:
        at = (low + high) // 2
        tried = between(start, end, SHARES[at])
        if foretold(weights, rows, window, tried).accuracy >= wanted:
            high, found = at, (tried, SHARES[at])
        else:
            low = at + 1
    return found
