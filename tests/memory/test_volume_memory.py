"""What a mount holds in memory does not grow with the volume, but for the index: some bytes of each chunk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def mounted(files: int) -> tuple[float, int]:
    """Peak memory in MiB of a process that mounts so many files, and their chunks."""
    command = [sys.executable, "-m", "tests.memory.grown", str(files)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    peak, chunks = done.stdout.split()
    return float(peak), int(chunks)


def test_memory_is_nearly_flat_in_the_size_of_a_volume() -> None:
    small, few = mounted(20)
    large, many = mounted(160)
    assert many > 7 * few > 7000
    grown = (large - small) * 2**20 / (many - few)  # bytes a chunk; its vector alone would be 1536
    assert grown < 1200
