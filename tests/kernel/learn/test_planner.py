"""The planner: published runs come out of it, and what it cannot plan it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmos.abi.errors import PlanError
from llmos.kernel.learn.planner import DEVICES, SHARDINGS, Shape, plan

LLAMA2_70B = Shape(80, 8192)


def test_the_talk_s_run() -> None:
    """70 billion parameters, 2T tokens, 6,000 GPUs: 12 days, two million dollars, 140 GB."""
    made = plan(70e9, 2e12, DEVICES["a100"], 6000)
    assert 11 < made.days < 13
    assert 1.8e6 < made.cost < 2.2e6
    assert made.file == 140e9
    assert made.fits


def test_llama_2_s_published_hours() -> None:
    """Touvron et al. 2023 (arXiv 2307.09288), table 2: 1,720,320 A100 hours for the 70B."""
    made = plan(70e9, 2e12, DEVICES["a100"], 2000, shape=LLAMA2_70B)
    assert made.device_hours == pytest.approx(1_720_320, rel=0.05)


def test_other_runs_utilisation() -> None:
    """Llama 3.1 405B (arXiv 2407.21783): 3.8e25 operations over 15.6T tokens."""
    made = plan(405e9, 15.6e12, DEVICES["h100"], 16_384, shape=Shape(126, 16_384), sequence=8192)
    assert made.flops == pytest.approx(3.8e25, rel=0.1)


def test_gpt_3_by_the_rule_of_six() -> None:
    """Brown et al. 2020 (arXiv 2005.14165), table D.1: 3.14e23 operations for 175B and 300B tokens."""
    made = plan(174.6e9, 300e9, DEVICES["v100"], 1000, shape=Shape(96, 12_288), sequence=2048)
    assert made.flops * (1 - made.attention_share) == pytest.approx(3.14e23, rel=0.01)


def test_a_usual_shape_has_the_parameters() -> None:
    for params in (1e6, 1e8, 7e9, 70e9, 1e12):
        shape = Shape.of(params)
        assert 12 * shape.layers * shape.dim**2 == pytest.approx(params, rel=0.05)


def test_memory_by_what_is_divided() -> None:
    """ZeRO's own example (arXiv 1910.02054, figure 1): 7.5B over 64 devices: 120, 31.4, 16.6 and 1.9 GB."""
    states = []
    for sharding in SHARDINGS:
        made = plan(7.5e9, 1e9, DEVICES["v100"], 64, sharding=sharding)
        states.append((made.memory - made.activations) / 1e9)
    assert states == pytest.approx([120, 31.4, 16.6, 1.9], rel=0.02)


def test_it_takes_twice_as_long_with_half_of_the_devices() -> None:
    one, two = (plan(1e9, 2e10, DEVICES["h100"], count) for count in (8, 16))
    assert one.seconds == pytest.approx(2 * two.seconds)
    assert one.cost == pytest.approx(two.cost) and one.energy == pytest.approx(two.energy)
    assert one.tokens_per_s * one.seconds == pytest.approx(2e10)


def test_stored_activations_cost_more_than_computed_ones() -> None:
    kept = plan(7e9, 1e12, DEVICES["h100"], 8, batch=8, recompute=False)
    again = plan(7e9, 1e12, DEVICES["h100"], 8, batch=8)
    assert kept.activations > 10 * again.activations
    assert not kept.fits


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"params": 0}, "params"),
        ({"tokens": -1}, "tokens"),
        ({"tokens": float("nan")}, "tokens"),
        ({"count": 0}, "count"),
        ({"mfu": 0}, "mfu"),
        ({"mfu": 1.5}, "mfu"),
        ({"price": -1}, "price"),
        ({"sequence": 0}, "sequence"),
        ({"params": float("inf")}, "params"),
        ({"device": replace(DEVICES["a100"], flops=0)}, "flops"),
    ],
)
def test_what_cannot_be_meant(change: dict[str, float], word: str) -> None:
    given = {"params": 1e9, "tokens": 1e10, "device": DEVICES["a100"], "count": 8} | change
    with pytest.raises(PlanError, match=word):
        plan(**given)  # type: ignore[arg-type]
