"""kill -9 of a whole kernel, with a scripted model: nothing lost, nothing doubled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def crashes(count: int, seed: int, timeout: float) -> dict[str, Any]:
    """Run `crashes.py` in a process of its own: it forks, and must have no threads."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernel.crashes", str(count), "--seed", str(seed)], cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert (report["lost"], report["doubled"], report["corrupt"]) == (0, 0, 0), (report, done.stderr)
    assert report["crashes"] == count
    return report


def test_twenty_crashes() -> None:
    """And more, where the machine is so busy that kernels die before they have done much."""
    answered = effects = 0
    for seed in range(1, 7):
        report = crashes(20, seed=seed, timeout=200)
        answered, effects = answered + report["answered"], effects + report["effects"]
        if answered >= 6 and effects >= 18:
            return
    raise AssertionError(f"{answered} answers and {effects} effects in 120 crashes")


@pytest.mark.slow
def test_two_thousand_crashes() -> None:
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda seed: crashes(250, seed=seed, timeout=1700), range(100, 108)))
    assert min(report["answered"] for report in reports) > 25
    assert sum(report["parked"] for report in reports) > 0, "no call waited for a word across a crash"
