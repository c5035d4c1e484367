"""The fit against laws that are known."""

from __future__ import annotations

import numpy as np
import pytest

from llmos.abi.errors import LearningError
from llmos.kernel.learn.law import Law, Seen, fit, spread

TRUE = Law(E=1.6, A=60.0, B=240.0, a=0.42, b=0.36)
SIZES = (3e4, 6e4, 1.5e5, 4e5, 1e6)
TOKENS = (1e5, 2e5, 4e5, 8e5, 1.6e6, 3.2e6)


def runs(law: Law, noise: float = 0.0, seed: int = 0) -> list[Seen]:
    chance = np.random.default_rng(seed)
    return [
        Seen(n, d, law.loss(n, d) * float(np.exp(noise * chance.standard_normal())))
        for n in SIZES
        for d in TOKENS
    ]


def test_the_numbers_of_a_law_are_found_again() -> None:
    found = fit(runs(TRUE))
    assert [found.E, found.A, found.B, found.a, found.b] == pytest.approx(
        [TRUE.E, TRUE.A, TRUE.B, TRUE.a, TRUE.b], rel=1e-3
    )
    assert found.misses < 1e-5


@pytest.mark.parametrize("law", [TRUE, Law(0.9, 400.0, 30.0, 0.6, 0.2), Law(2.5, 5.0, 2000.0, 0.15, 0.55)])
def test_noisy_runs_foretell_one_of_eight_times_the_compute(law: Law) -> None:
    for seed in range(2):
        seen = runs(law, noise=0.003, seed=seed)
        at = (SIZES[-1] * 2, TOKENS[-1] * 4)
        found = fit(seen)
        assert found.loss(*at) == pytest.approx(law.loss(*at), rel=0.02)
        low, high = spread(seen, found, *at)
        assert low <= found.loss(*at) <= high
        assert high - low < 0.1 * found.loss(*at)


def test_one_run_that_went_wrong_does_not_bend_the_law() -> None:
    seen = runs(TRUE)
    seen[7] = Seen(seen[7].parameters, seen[7].tokens, seen[7].loss * 1.5)
    found = fit(seen)
    assert found.loss(2e6, 6.4e6) == pytest.approx(TRUE.loss(2e6, 6.4e6), rel=2e-3)


def test_the_best_model_for_a_compute_has_no_better_neighbour() -> None:
    compute = 1e14
    n, d = TRUE.best(compute)
    assert 6 * n * d == pytest.approx(compute)
    for other in (0.8, 1.25):
        assert TRUE.loss(n * other, d / other) > TRUE.loss(n, d)


def test_runs_that_say_nothing_of_a_part_still_make_a_law() -> None:
    """Size does not matter here, and nothing is left at the end."""
    seen = [Seen(n, d, 30 / d**0.2) for n in SIZES for d in TOKENS]
    found = fit(seen)
    assert found.loss(5e5, 6.4e6) == pytest.approx(30 / 6.4e6**0.2, rel=0.01)
    low, high = spread(seen, found, 5e5, 6.4e6)
    assert 0 < low <= high


@pytest.mark.parametrize("few", [runs(TRUE)[:4], [r for r in runs(TRUE) if r.tokens == 1e5]])
def test_too_few_runs_make_no_law(few: list[Seen]) -> None:
    with pytest.raises(LearningError, match="do not make a law"):
        fit(few)
