"""Budgets: what is one, and what is nonsense."""

from __future__ import annotations

from typing import Any

import pytest

from llmos.abi.errors import ConfigError
from llmos.kernel.think import (
    BestOf,
    Budget,
    Examples,
    Makes,
    Revise,
    SelfConsistency,
    Sums,
    Think,
    Tree,
    strategy_of,
)
from llmos.kernel.think.budget import Meter
from llmos.kernel.think.forms import dump, load


@pytest.mark.parametrize(
    ("said", "budget"),
    [
        ("30s", Budget(seconds=30)), ("2 min", Budget(seconds=120)), ("0.5s", Budget(seconds=0.5)),
        ("250ms", Budget(seconds=0.25)), ("1h", Budget(seconds=3600)), ("8x", Budget(times=8)),
        ("2.5X", Budget(times=2.5)), (4000, Budget(tokens=4000)), ("4000", Budget(tokens=4000)),
        ("900 tokens", Budget(tokens=900)),
    ],
)  # fmt: skip
def test_what_people_say_is_read(said: str | int, budget: Budget) -> None:
    assert Budget.of(said) == budget


@pytest.mark.parametrize(
    "said",
    ["", "soon", "0", 0, -5, "-3s", "0s", "0x", "0.5x", "1e9s", "2d", "8 y", "99999x", "1.5", 1.5, True, None, "30s 8x",
     "∞",
     "１s extra", [8], 10**12, "100h"],
)  # fmt: skip
def test_nonsense_is_a_typed_error_that_says_what_to_say(said: Any) -> None:
    with pytest.raises(ConfigError, match=r"no budget to think with.*8x"):
        Budget.of(said)


def test_a_meter_counts_against_each_kind() -> None:
    now = [0.0]

    def meter(budget: Budget, quota: int = 1 << 40) -> Meter:
        return Meter(budget, 0.0, lambda: quota, clock=lambda: now[0])

    tokens = meter(Budget(tokens=10))
    tokens.spend(9)
    assert tokens.left == 1 and not tokens.over and tokens.seconds_left is None
    tokens.spend(2)
    assert tokens.over
    times = meter(Budget(times=3))
    times.plain(7)
    assert times.left == 21
    seconds = meter(Budget(seconds=5))
    now[0] = 4.0
    assert seconds.seconds_left == 1.0 and not seconds.over
    now[0] = 5.0
    assert seconds.over
    assert meter(Budget(tokens=100), quota=3).left == 3


@pytest.mark.parametrize(
    "strategy",
    [
        Think(budget="30s"), SelfConsistency(budget=900, verifier=Sums(), width=3), Revise(rounds=2),
        BestOf(verifier=Makes(target=24, numbers=(4, 6, 7, 1))), BestOf(verifier=Examples(examples=(("f(1)", "2"),))),
        Tree(budget="16x", branch=4, verifier=Sums()),
    ],
)  # fmt: skip
def test_strategies_are_read_back_equal(strategy: Any) -> None:
    assert load(dump(strategy)) == strategy == strategy_of(strategy) == strategy_of(dump(strategy))


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ({"kind": "guess"}, "kind"), ({"kind": "tree", "branch": 1}, "branch"), ({"kind": "best-of"}, "verifier"),
        ({"kind": "think", "colour": "red"}, "colour"), ({}, "kind"), (3.5, "float"), (b"8x", "bytes"),
        ({"kind": "best-of", "verifier": {"kind": "oracle"}}, "verifier"),
    ],
)  # fmt: skip
def test_a_way_to_think_that_there_is_not_is_told(said: Any, names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        strategy_of(said)


def test_a_dataclass_out_of_range_is_told_too() -> None:
    with pytest.raises(ConfigError, match="branch"):
        strategy_of(Tree(branch=99))
    with pytest.raises(ConfigError, match="budget"):
        Think(budget="a while")
