"""Random bits are a function of (seed, fork path, position); strategies refuse nonsense."""

from __future__ import annotations

from typing import Any

import pytest

from llmos.abi.errors import EngineError
from llmos.kernel.engine.sampling import Greedy, Randomness, Sample, strategy


def test_bits_depend_on_each_part_and_nothing_else() -> None:
    base = Randomness(7).uniform(3)
    assert base == Randomness(7).uniform(3)
    others = [Randomness(8).uniform(3), Randomness(7).uniform(4), Randomness(7).fork(0).uniform(3)]
    assert len({base, *others}) == 4
    assert Randomness(7).fork(0).fork(1) != Randomness(7).fork(1).fork(0)


def test_bits_are_uniform() -> None:
    draws = [Randomness(1).uniform(i) for i in range(20_000)]
    assert 0 <= min(draws) and max(draws) < 1
    for tenth in range(10):
        share = sum(tenth / 10 <= d < (tenth + 1) / 10 for d in draws) / len(draws)
        assert abs(share - 0.1) < 0.01


@pytest.mark.parametrize(
    "dials",
    [
        {"temperature": -1.0},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"top_k": -1},
        {"min_p": 1.0},
        {"repetition_penalty": 0.0},
    ],
)
def test_dials_out_of_range_are_refused(dials: dict[str, Any]) -> None:
    with pytest.raises(EngineError, match="out of range"):
        Sample(**dials)


def test_temperature_zero_is_greedy() -> None:
    assert strategy(0) == Greedy()
    assert strategy(0.5).row().temperature == 0.5
