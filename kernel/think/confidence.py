"""How sure: from what a strategy can tell to a probability.

What: for each kind of evidence (the plain answer's likelihood, votes, a check) a line through a few points, fitted by
    `python -m benchmarks.think_fit` on one half of its problems and judged on the other; the points lie in
    `confidence.json`.
Invariant: monotone: more evidence is never less confidence. Points belong to the weights that they were fitted for;
    others take the evidence as it is.
Interface: `probability(identity, basis, raw)`; `fit(evidence, right) -> points`, isotonic; `interpolated(points, raw)`.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmos.kernel.think.candidates import Basis

Points = Sequence[Sequence[float]]
"""(evidence, probability), both rising."""


def probability(identity: str, basis: Basis, raw: float) -> float:
    """How likely an answer is right. `identity` is of the runner."""
    points = _table().get(identity.partition("/")[0], {}).get(basis)
    return min(max(raw, 0.0), 1.0) if not points else interpolated(points, raw)


def fit(evidence: Sequence[float], right: Sequence[bool], bins: int = 12) -> list[tuple[float, float]]:
    """The rising line that fits best (pool adjacent violators), through at most `bins` points. Each is drawn half a
    case towards the middle: nothing is certain."""
    pairs = sorted(zip(evidence, right, strict=True))
    size = max(-(-len(pairs) // bins), 1)
    groups = [pairs[i : i + size] for i in range(0, len(pairs), size)]
    blocks = [[sum(x for x, _ in g) / len(g), float(sum(r for _, r in g)), float(len(g))] for g in groups]
    pooled: list[list[float]] = []
    for block in blocks:
        pooled.append(block)
        while len(pooled) > 1 and _mean(pooled[-2]) >= _mean(pooled[-1]):
            x, r, n = pooled.pop()
            before = pooled[-1]
            pooled[-1] = [(before[0] * before[2] + x * n) / (before[2] + n), before[1] + r, before[2] + n]
    return [(round(block[0], 4), round(_mean(block), 4)) for block in pooled]


def _mean(block: Sequence[float]) -> float:
    return (block[1] + 0.5) / (block[2] + 1)


def interpolated(points: Points, raw: float) -> float:
    """The line through the points, level beyond them."""
    at = bisect_right([x for x, _ in points], raw)
    if at == 0 or at == len(points):
        return points[min(at, len(points) - 1)][1]
    (x0, y0), (x1, y1) = points[at - 1], points[at]
    return y0 + (y1 - y0) * (raw - x0) / (x1 - x0) if x1 > x0 else y1


@cache
def _table() -> dict[str, dict[str, list[list[float]]]]:
    found: dict[str, dict[str, list[list[float]]]] = json.loads(
        files("llmos.kernel.think").joinpath("confidence.json").read_text("utf-8")
    )
    return found
