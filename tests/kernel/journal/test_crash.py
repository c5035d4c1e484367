"""kill -9 at every point and at any time: nothing reported durable is lost, nothing doubled, nothing corrupt."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]


def crashes(*arguments: str, timeout: float) -> dict[str, Any]:
    """Run `crashes.py` in a process of its own, which no other test's threads and libraries slow down."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.kernel.journal.crashes", *arguments], cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert (report["lost"], report["doubled"], report["corrupt"]) == (0, 0, 0), (report, done.stderr)
    return report


def test_fifty_crashes() -> None:
    report = crashes("50", "--seed", "1", timeout=100)
    assert report["crashes"] == 50 and report["durable"] > 500
    # At chosen places and at random times, both: how many of each depends on how fast the machine is.
    assert report["killed_at"]["random"] >= 5 and len(report["killed_at"]) >= 10


def test_a_start_that_mends_may_be_killed_too() -> None:
    report = crashes("--recovery", timeout=100)
    assert report["crashes"] >= 25 and len(report["killed_at"]) >= 16


@pytest.mark.slow
def test_two_thousand_crashes() -> None:
    report = crashes("2000", "--seed", "2", timeout=1700)
    assert report["crashes"] == 2000
    places = {place.partition(" ")[2] for place in report["killed_at"]} - {"", "killed"}
    assert len(places) >= 20, sorted(places)
