"""How the next token is chosen.

What: strategies (`Greedy`, `Sample`), frozen, each with one method `row()`: the parameters of one row of the
    batched sampler. And the random bits that a row draws with.
Invariant: bits are a function of (seed, fork path, position) alone, so a token does not depend on the batch,
    the step, the machine's history or a swap; a draft can be checked against the bits of its own position.
Interface: `Greedy()`, `Sample(temperature=…)`, `uniform(seed, path, position)`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Protocol

from llmos.abi.errors import EngineError


@dataclass(frozen=True, slots=True)
class SamplerRow:
    """One row of the sampler's parameters. Temperature 0 is greedy; top_k 0, top_p 1, min_p 0 and penalty 1
    are off."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0


class Strategy(Protocol):
    """Anything that can say how its row is sampled."""

    def row(self) -> SamplerRow: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Greedy:
    """The most likely token; of equals the lowest id."""

    repetition_penalty: float = 1.0

    def row(self) -> SamplerRow:
        return SamplerRow(repetition_penalty=self.repetition_penalty)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Draw from the tempered distribution, filtered in this order: penalty, temperature, top-k, top-p, min-p.

    Sources: top-p, Holtzman et al. 2020 (arXiv 1904.09751); min-p, Nguyen et al. 2024 (arXiv 2407.01082);
    repetition penalty, Keskar et al. 2019 (arXiv 1909.05858).
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        ranges = {
            "temperature": 0 < self.temperature <= 100,
            "top_k": self.top_k >= 0,
            "top_p": 0 < self.top_p <= 1,
            "min_p": 0 <= self.min_p < 1,
            "repetition_penalty": 0 < self.repetition_penalty <= 10,
        }
        for name, fine in ranges.items():
            if not fine:
                raise EngineError(
                    f"{name} = {getattr(self, name)} is out of range",
                    do="temperature in (0, 100] (0 is greedy), top_k >= 0, top_p in (0, 1], min_p in [0, 1), "
                    "repetition_penalty in (0, 10]",
                )

    def row(self) -> SamplerRow:
        return SamplerRow(self.temperature, self.top_k, self.top_p, self.min_p, self.repetition_penalty)


def strategy(
    temperature: float,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
) -> Strategy:
    """The strategy that these dials describe; temperature 0 is greedy."""
    if temperature == 0:
        return Greedy(repetition_penalty=repetition_penalty)
    return Sample(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=repetition_penalty
    )


@dataclass(frozen=True, slots=True)
class Randomness:
    """Where a sequence's random bits come from: a seed and the path of forks that led to it."""

    seed: int = 0
    path: tuple[int, ...] = field(default=())

    def uniform(self, position: int) -> float:
        """A float in [0, 1) with 24 random bits (exact in f32) for the token at `position`."""
        text = f"{self.seed}/{','.join(map(str, self.path))}/{position}"
        return int.from_bytes(blake2b(text.encode(), digest_size=3).digest(), "little") / (1 << 24)

    def fork(self, branch: int) -> Randomness:
        """The randomness of a fork's `branch`-th child."""
        return Randomness(self.seed, (*self.path, branch))
