"""A fork of a full window into 8: how long it takes, and what it costs in pages.

What: a process whose window has about 4,000 tokens (600 with --quick) forks 8 children; then 8 branches of such a
    window go on beside each other, each with random bits of its own. Keys `fork8_ms` (median; asked: at most 5),
    `pages_at_fork` (asked: 0), `pages_per_branch` (held beyond those of one window, once they differ; asked: at most
    1), `extra_pool_share` (the same of all 8, of one window's pages), `leaked_pages` (asked: 0).
Invariant: pages are counted by the pool itself, at every step.
Interface: `run`.
"""

from __future__ import annotations

import time
from statistics import median

from benchmarks.figures import SMALL, Figures, Progress
from benchmarks.llama import filler
from llmos import connect
from llmos.abi.config import DEFAULT_MODEL
from llmos.kernel.engine.engine import Counters, Engine
from llmos.kernel.engine.sampling import Randomness, Sample
from llmos.kernel.engine.sequence import Request
from llmos.kernel.trace import Trace

BRANCHES, ROUNDS = 8, 21


class Held(Trace):
    """The most pages that sequences held after any step."""

    engine: Engine | None = None
    most = 0

    def step(self, counters: Counters) -> None:
        if self.engine is not None:
            self.most = max(self.most, self.engine.pool.leaked)


def run(quick: bool, progress: Progress) -> Figures:
    """See the module."""
    model, tokens = (SMALL[0], 600) if quick else (DEFAULT_MODEL, 4000)
    with connect(model=model, window=tokens + 512, pool="256MiB", attach=False) as kernel:
        process = kernel.spawn()
        words = " ".join(f"item {i} costs {i * 7 % 90}" for i in range(tokens))
        text = kernel.tokenizer.decode(kernel.tokenizer.encode(words)[: tokens - 60])
        asked = process.ask(text, max_tokens=8)
        held = asked.usage.prompt_tokens + asked.usage.completion_tokens
        progress(f"{model}: a window of {held} tokens")
        times, at_fork = [], 0
        for _ in range(ROUNDS):
            free = kernel.engine.pool.free
            start = time.perf_counter()
            children = process.fork(BRANCHES)
            times.append(time.perf_counter() - start)
            at_fork = max(at_fork, free - kernel.engine.pool.free)
            for child in children:
                child.close()
        progress(f"fork({BRANCHES}): {median(times) * 1e3:.2f} ms")
        watch = Held()
        engine = Engine(kernel.runner, trace=watch)
        watch.engine = engine
        window = tuple(filler(tokens - tokens % engine.pool.page + 1))
        for _ in engine.submit(Request(tokens=window, max_tokens=1)):
            pass
        shared, watch.most = (len(window) - 1) // engine.pool.page, 0
        streams = [
            engine.submit(
                Request(
                    tokens=window,
                    max_tokens=engine.pool.page - 1,
                    draft=0,
                    strategy=Sample(temperature=1.5),
                    randomness=Randomness(0, (i + 1,)),
                )
            )  # fmt: skip
            for i in range(BRANCHES)
        ]
        said = {tuple(item.id for item in stream) for stream in streams}
        engine.close()
        if len(said) < BRANCHES:
            raise RuntimeError("the branches said the same, so nothing was measured")
        extra = watch.most - shared
        values = {
            "fork8_ms": median(times) * 1e3, "pages_at_fork": at_fork, "pages_per_branch": extra / BRANCHES,
            "extra_pool_share": extra / shared, "leaked_pages": engine.pool.leaked + kernel.engine.pool.leaked,
        }  # fmt: skip
    return Figures(values, (model,), (f"a window of {held} tokens; median of {ROUNDS} forks",))
