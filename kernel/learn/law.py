"""The law of scaling: loss as a smooth function of a model's size and of its text.

What: L(N, D) = E + A / N^a + B / D^b, fitted to runs (Hoffmann et al. 2022, arXiv 2203.15556, approach 3): the
    Huber loss between logarithms, minimised from many starts.
Invariant: N are parameters without those of the vocabulary, D tokens learnt from once, L nats a token. All five
    numbers are positive; the same runs give the same law.
Interface: `fit(runs) -> Law`; `Law.loss(N, D)`, `Law.best(compute)`; `spread(runs, N, D)`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmos.abi.errors import LearningError

F64 = NDArray[np.float64]
DELTA = 1e-3  # of log L: a run that is further off than this pulls with constant force (Hoffmann et al.)
EXPONENTS = (0.15, 0.3, 0.5, 0.8, 1.2)  # starts: every pair of these, the best E, A and B beside it
LEAST, MOST = 0.01, 3.0  # exponents
FAR = 50.0  # |log| of E, A and B at most: a part that the runs say nothing of ends there, and stays a number


@dataclass(frozen=True, slots=True)
class Seen:
    """One run: parameters, tokens, and the loss on held-out text in nats a token."""

    parameters: float
    tokens: float
    loss: float


@dataclass(frozen=True, slots=True)
class Law:
    """The five numbers; `misses` is the root mean square of the runs' relative distances from it."""

    E: float
    A: float
    B: float
    a: float
    b: float
    misses: float = 0.0

    def loss(self, parameters: float, tokens: float) -> float:
        """Nats a token."""
        return self.E + self.A / parameters**self.a + self.B / tokens**self.b

    def best(self, compute: float) -> tuple[float, float]:
        """(N, D) of the lowest loss with so many operations, 6 N D."""
        ratio = (self.a * self.A / (self.b * self.B)) ** (1 / (self.a + self.b))
        parameters = ratio * (compute / 6) ** (self.b / (self.a + self.b))
        return parameters, compute / 6 / parameters

    def __str__(self) -> str:
        return f"L(N, D) = {self.E:.3f} + {self.A:.4g} / N^{self.a:.3f} + {self.B:.4g} / D^{self.b:.3f}"


def fit(runs: Sequence[Seen]) -> Law:
    """The law of these runs.

    Raises:
        LearningError: fewer than five of them, or all of one size or one length: the law would be any.
    """
    N, D, L = _columns(runs)
    if len(runs) < 5 or len(set(N)) < 3 or len(set(D)) < 3:
        raise LearningError(
            f"{len(runs)} runs do not make a law",
            why="five numbers are sought, from at least three sizes and three amounts of text",
            do="add runs to the grid",
        )
    starts = [_start(N, D, L, a, b) for a in EXPONENTS for b in EXPONENTS]
    found = min((_descend(N, D, L, start) for start in starts), key=lambda end: float(end.cost))
    return _law(found.x, N, D, L)


def spread(runs: Sequence[Seen], law: Law, parameters: float, tokens: float) -> tuple[float, float]:
    """The lowest and highest loss foretold when each run in turn is left out: how much it hangs on any one."""
    start = np.array([math.log(law.E), math.log(law.A), math.log(law.B), law.a, law.b])
    said = []
    for left_out in range(len(runs)):
        N, D, L = _columns([run for i, run in enumerate(runs) if i != left_out])
        said.append(_law(_descend(N, D, L, start).x, N, D, L).loss(parameters, tokens))
    return min(said), max(said)


def _columns(runs: Sequence[Seen]) -> tuple[F64, F64, F64]:
    table = np.array([(r.parameters, r.tokens, r.loss) for r in runs], np.float64)
    return table[:, 0], table[:, 1], table[:, 2]


def _start(N: F64, D: F64, L: F64, a: float, b: float) -> F64:
    """For given exponents the law is linear in E, A and B: their best values that are not negative."""
    from scipy.optimize import nnls

    terms = np.stack([np.ones_like(N), N**-a, D**-b], axis=1) / L[:, None]  # relative errors
    scale = terms.max(axis=0)
    values = nnls(terms / scale, np.ones_like(L))[0] / scale
    least = 1e-3 * np.array([L.min(), L.min() * N.min() ** a, L.min() * D.min() ** b])
    return np.array([*np.log(np.maximum(values, least)), a, b])


def _descend(N: F64, D: F64, L: F64, start: F64) -> Any:
    from scipy.optimize import least_squares

    def parts(theta: F64) -> F64:
        e, A, B, a, b = theta
        return np.stack([np.full_like(N, e), A - a * np.log(N), B - b * np.log(D)], axis=1)

    def off(theta: F64) -> F64:
        return np.logaddexp.reduce(parts(theta), axis=1) - np.log(L)

    def slopes(theta: F64) -> F64:
        logs = parts(theta)
        share = np.exp(logs - np.logaddexp.reduce(logs, axis=1)[:, None])
        return np.column_stack([share, -share[:, 1] * np.log(N), -share[:, 2] * np.log(D)])

    bounds = np.array([[-FAR, FAR]] * 3 + [[LEAST, MOST]] * 2).T
    start = np.clip(start, bounds[0] + 1e-9, bounds[1] - 1e-9)
    return least_squares(
        off, start, slopes, bounds=bounds, loss="huber", f_scale=DELTA, x_scale="jac", xtol=1e-12, ftol=1e-12,
        gtol=1e-12, max_nfev=200,
    )  # fmt: skip


def _law(theta: F64, N: F64, D: F64, L: F64) -> Law:
    e, A, B, a, b = (float(x) for x in theta)
    law = Law(math.exp(e), math.exp(A), math.exp(B), a, b)
    misses = [law.loss(n, d) / loss - 1 for n, d, loss in zip(N, D, L, strict=True)]
    return Law(law.E, law.A, law.B, law.a, law.b, math.sqrt(sum(m * m for m in misses) / len(misses)))
