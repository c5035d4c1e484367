"""Where answers looked: in the map of a window, and in what leaves it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import pytest

from llmos.abi import wire
from llmos.abi.machine import Region
from llmos.apps.shell.pmap import draw
from llmos.kernel.kernel import Kernel
from tests.memory.words_encoder import WordsEncoder

Make = Callable[..., Kernel]


def test_the_map_says_where_the_last_answer_looked(tiny_kernel: Make) -> None:
    kernel = tiny_kernel()
    process = kernel.spawn(instructions="Be brief.")
    assert kernel.pmap(process.pid, look=True) == []
    _ = process.ask("Hello there.", max_tokens=6).answer
    plain = kernel.pmap(process.pid)
    assert plain and all(region.attention is None for region in plain)
    regions = kernel.pmap(process.pid, look=True)
    assert [region.start for region in regions] == [region.start for region in plain]
    assert sum(region.attention or 0 for region in regions) == pytest.approx(1, abs=1e-4)
    assert kernel.engine.pool.leaked == 0
    assert "ATTENTION" in draw(regions, 80)[1] and "ATTENTION" not in draw(plain, 80)[1]
    assert wire.load(Region, json.loads(json.dumps(wire.dump(regions[0])))) == regions[0]
    assert asdict(regions[0])["attention"] is not None


def test_a_window_under_pressure_learns_what_is_looked_at(tiny_kernel: Make) -> None:
    kernel = tiny_kernel(window=256)
    kernel.library.__dict__["encode"] = None
    process = kernel.spawn()
    for n in range(4):
        _ = process.ask(f"Number {n}, and some words about the weather of today.", max_tokens=8).answer
    regions = kernel.pmap(process.pid)  # the last answers looked by themselves: something was left out
    turns = {region.source for region in regions if region.source}
    assert turns and all(region.attention is not None for region in regions)
    used = process.view._used
    assert turns <= used.keys() and 0 < sum(used.values()) <= 1 + 1e-6


def test_what_was_looked_at_stays_longer(scripted_kernel: Make) -> None:
    kernel = scripted_kernel(lambda window: "So it is.", window=1024)
    kernel.library.__dict__["encoder"] = WordsEncoder()

    def held(looked: str = "") -> list[str]:
        """The turns in the window after a dozen exchanges that are all alike."""
        process = kernel.spawn()
        for n in range(12):
            _ = process.ask(
                f"({n}) the same words again and again, of no weight at all", max_tokens=40
            ).answer
            layout = process.questions.window
            assert layout is not None
            if looked and n < 8:
                shares = np.zeros(len(layout.tokens), np.float32)
                for region in layout.map():
                    shares[region.start : region.start + region.tokens] = region.source == looked
                process.view.looked(layout, shares)
        return [region.source for region in kernel.pmap(process.pid) if region.source]

    without = held()
    gone = next(f"turn {n}" for n in range(1, 12) if f"turn {n}" not in without)
    assert gone in held(gone)
