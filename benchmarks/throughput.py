"""How our decoding goes on with width, context and threads: tokens a second.

What: greedy decoding, drafting off. Keys `width.<model>.<n>` (all streams together, 64 tokens of context),
    `context.<model>.<tokens>` (one stream), each also for one thread as `width_1_thread…`, `context_1_thread…`.
Invariant: one run; prompts are never met twice.
Interface: `run`.
"""

from __future__ import annotations

import statistics

from benchmarks.figures import Figures, Progress, models
from benchmarks.ours import Ours
from llmos.drivers import cpu

WIDTHS, CONTEXTS = (1, 2, 4, 8, 16, 32), (128, 512, 2048)


def run(quick: bool, progress: Progress) -> Figures:
    """See the module."""
    values: dict[str, float] = {}
    names = tuple(models(quick))[: 1 if quick else None]
    tokens, rounds = (8, 1) if quick else (24, 3)
    for name in names:
        with Ours(name) as ours:
            for threads in (2, 1) if cpu.available() else (0,):
                if threads:
                    cpu.set_threads(threads)
                suffix = "_1_thread" if threads == 1 else ""
                for n in WIDTHS:
                    found = [ours.streams(n, 64, tokens) for _ in range(rounds)]
                    values[f"width{suffix}.{name}.{n}"] = statistics.median(found)
                for context in CONTEXTS[: 2 if quick else None]:
                    found = [ours.decode(context, tokens) for _ in range(rounds)]
                    values[f"context{suffix}.{name}.{context}"] = statistics.median(found)
                progress(f"{name}, {threads} threads: {values[f'width{suffix}.{name}.16']:.0f} tok/s at 16")
    return Figures(values, names)
