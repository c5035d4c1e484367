"""Our engine, measured as `llama.py` measures llama.cpp: same prompts, same counts, greedy, no text.

What: boots a kernel as `llmos ask` does and times decoding, prefill, batched streams through the engine's queue.
Invariant: drafting is off (a benchmark of its own measures it) and no prompt is met twice, so nothing is
    found in the prefix cache.
Interface: `Ours(model)` as a context manager: `.decode`, `.prefill`, `.streams`, the twins of `Llama`'s.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from types import TracebackType

from benchmarks.llama import filler
from llmos import connect
from llmos.kernel.engine.sequence import BlockingStream, Emitted, Request
from llmos.kernel.scheduler import Priority


class Ours:
    """A kernel with one model, in its default numeric mode unless `settings` say otherwise."""

    def __init__(self, model: str, **settings: object) -> None:
        self.kernel = connect(model=model, attach=False, **{"window": 4096, "pool": "1GiB"} | settings)
        self.kernel.runner.warm_up()
        self._seeds = itertools.count(1000)

    def _submit(self, context: int, tokens: int) -> BlockingStream:
        prompt = tuple(filler(context, seed=next(self._seeds)))
        return self.kernel.engine.submit(
            Request(tokens=prompt, max_tokens=tokens, draft=0, priority=Priority.BATCH)
        )

    def decode(self, context: int, tokens: int = 48) -> float:
        """Tokens a second of one stream, greedy, with `context` tokens before the first."""
        skipped = 4  # the prompt's own step, and what a first step may still set up
        times = [time.perf_counter() for _ in self._submit(context, tokens + skipped)]
        return tokens / (times[-1] - times[skipped - 1])

    def prefill(self, tokens: int) -> float:
        """Prompt tokens a second, up to the first token."""
        start_s = time.perf_counter()
        for _ in self._submit(tokens, 1):
            return tokens / (time.perf_counter() - start_s)
        raise RuntimeError("no token came")

    def streams(self, n: int, context: int = 64, tokens: int = 24) -> float:
        """Tokens a second of `n` streams together, greedy, each with its own `context` tokens.

        One token is taken from every stream in turn: a round takes as long as a step. Streams whose prompt
        was computed first are some steps ahead, so each is given more tokens than are counted.
        """
        ahead = 2 + n * context // self.kernel.runner.budget
        readers = [iter(self._submit(context, tokens + 2 * ahead)) for _ in range(n)]
        rounds = []
        for _ in range(ahead + tokens):
            _ = [_next(reader) for reader in readers]
            rounds.append(time.perf_counter())
        for reader in readers:
            for _ in reader:
                pass
        return n * tokens / (rounds[-1] - rounds[ahead - 1])

    def close(self) -> None:
        """Stop the kernel."""
        self.kernel.close()

    def __enter__(self) -> Ours:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _next(reader: Iterator[Emitted]) -> Emitted:
    return next(reader)
