"""Prefill, prompt tokens a second up to the first token: ours, llama.cpp's on the same file, the ratio.

What: prompts of 128 and 512 tokens (and 2,048 without `--quick`). Keys `ours.<model>.<tokens>`,
    `llama_cpp.<model>.<tokens>`, `ratio.<model>.<tokens>`.
Invariant: see duel.py; no prompt is met twice, so the prefix cache never helps.
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
        sizes=(128,) if quick else (128, 512, 2048),
        measure=lambda side, tokens: side.prefill(tokens),
        probe=lambda side: side.prefill(192),
        choices=llama.grid(),
        context=2304,
    )
