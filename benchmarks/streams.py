"""Many streams decoded together, tokens a second in all: ours, llama.cpp's own batches, the ratio.

What: 4, 16 and 32 streams, each with 64 tokens of context of its own. Keys `ours.<model>.<streams>`,
    `llama_cpp.<model>.<streams>`, `ratio.<model>.<streams>`.
Invariant: see duel.py; llama.cpp is driven through its batch API.
Interface: `run`.
"""

from __future__ import annotations

from benchmarks import llama
from benchmarks.duel import duel
from benchmarks.figures import Figures, Progress


def run(quick: bool, progress: Progress) -> Figures:
    """See the module."""
    return duel(
        quick,
        progress,
        sizes=(16,) if quick else (4, 16, 32),
        measure=lambda side, n: side.streams(n, 64, 12 if quick else 24),
        probe=lambda side: side.streams(8, 16, 6),
        choices=llama.grid(ubatches=(512,)),
        context=128,
        streams=32,
    )
