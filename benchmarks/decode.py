"""Decoding of one stream, tokens a second: ours, llama.cpp's on the same file, the ratio.

What: greedy decoding after 128 tokens of context (and 2,048 without `--quick`), drafting off. Keys
    `ours.<model>.<context>`, `llama_cpp.<model>.<context>`, `ratio.<model>.<context>`.
Invariant: see duel.py.
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
        sizes=(128,) if quick else (128, 2048),
        measure=lambda side, context: side.decode(context, 24 if quick else 48),
        probe=lambda side: side.decode(128, 12),
        choices=llama.grid(ubatches=(512,)),
        context=2304,
    )
