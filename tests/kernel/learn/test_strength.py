"""As much of what was learnt as it takes: what lies between two adapters, and how far back one may go."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llmos.abi.errors import AdapterMismatch
from llmos.drivers.weights import find, open_weights
from llmos.drivers.weights.adapter import Adapter, LowRank, read_adapter
from llmos.kernel.learn.course import Course, sft
from llmos.kernel.learn.data import Row
from llmos.kernel.learn.evaluation import foretold
from llmos.kernel.learn.strength import GIVEN, SHARES, between, enough
from tests.kernel.learn.little import WINDOW, tiny


def adapter(seed: int, rank: int = 2, alpha: float = 4.0) -> Adapter:
    rng = np.random.default_rng(seed)

    def matrix(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    return Adapter(rank, alpha, "", tuple({"q": LowRank(matrix(rank, 8), matrix(6, rank))} for _ in range(2)))


def test_between_nothing_and_an_adapter_lies_that_share_of_its_change() -> None:
    end = adapter(0)
    half, whole = between(None, end, 0.5), between(None, end, 1.0)
    assert whole.version == end.version and half.scale == end.scale
    for found, given in zip(half.layers, end.layers, strict=True):
        change, full = (one["q"].b_NR @ one["q"].a_RK for one in (found, given))
        np.testing.assert_allclose(change, 0.5 * full, rtol=1e-6)


def test_the_way_begins_at_one_adapter_and_ends_at_the_other() -> None:
    start, end = adapter(0), adapter(1)
    assert between(start, end, 0.0).version == start.version
    for found, given in zip(between(start, end, 1.0).layers, end.layers, strict=True):
        np.testing.assert_allclose(found["q"].b_NR, given["q"].b_NR, rtol=1e-5, atol=1e-6)


def test_a_way_may_begin_at_an_adapter_whose_strength_is_written_otherwise() -> None:
    """As with rsLoRA: alpha over the root of the rank, which training writes as alpha over the rank."""
    start = replace(adapter(0, rank=3, alpha=5.0), rslora=True)
    end = replace(adapter(1, rank=3), alpha=start.scale * 3)
    assert between(start, end, 1.0).scale == end.scale


@pytest.mark.parametrize("other", [adapter(1, rank=3), adapter(1, alpha=8.0)])
def test_between_adapters_of_other_forms_lies_nothing(other: Adapter) -> None:
    with pytest.raises(AdapterMismatch, match="other forms"):
        between(adapter(0), other, 0.5)


def test_an_adapter_is_taken_back_as_far_as_its_answers_stay(tmp_path: Path) -> None:
    weights = open_weights(find(str(tiny(tmp_path / "model"))))
    rows = [
        Row(f"row {i}", {"prompt": q, "completion": a})
        for i, (q, a) in enumerate((("One?", "no"), ("Two?", "it is")))
    ]
    course = Course(epochs=0, steps=25, window=WINDOW, batch=WINDOW, micro=1, rate=1e-3)
    learnt = read_adapter(sft(weights, rows, tmp_path / "out", course).out / "adapter")
    found, share = enough(weights, rows, WINDOW, None, learnt)
    right = foretold(weights, rows, WINDOW, learnt).accuracy
    assert right == 1.0 > foretold(weights, rows, WINDOW).accuracy
    assert share in (*SHARES, 1.0) and found.version == between(None, learnt, share).version
    assert foretold(weights, rows, WINDOW, found).accuracy >= right - GIVEN
    assert any(less < share for less in SHARES) and share < 1.0  # or nothing was looked for
    for less in SHARES:
        if less < share:
            assert foretold(weights, rows, WINDOW, between(None, learnt, less)).accuracy < right - GIVEN
