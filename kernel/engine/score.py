"""Teacher forcing: the model's logits at every position of a given text.

What: for perplexity, parity and quality figures; not for serving. Uses the runner alone, without an engine.
Interface: `position_logits(runner, tokens)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from llmos.abi.errors import EngineError
from llmos.kernel.engine.batch import Batch, empty_tables
from llmos.kernel.engine.runner import ModelRunner


def position_logits(
    runner: ModelRunner, tokens: Sequence[int], chunk: int = 16
) -> Iterator[NDArray[np.float32]]:
    """Logits f32 [n, V] after each token, `chunk` positions at a time, computed as decoding would.

    The runner must be idle: pages are used from the first on.

    Raises:
        EngineError: more tokens than the window or the pool holds.
    """
    held = min(runner.window, (runner.pages - 1) * runner.page)
    if len(tokens) > held:
        raise EngineError(f"{len(tokens)} tokens to score, {held} fit", do="score a shorter text")
    tables_BP = empty_tables(runner)
    used = -(-len(tokens) // runner.page)
    tables_BP[0, :used] = np.arange(1, used + 1)
    for start in range(0, len(tokens), chunk):
        ids = np.asarray(tokens[start : start + chunk], np.int32)
        n = len(ids)
        batch = Batch(
            ids,
            np.arange(start, start + n, dtype=np.int32),
            np.zeros(n, np.int32),
            tables_BP,
            np.arange(n, dtype=np.int32),
        )
        yield np.asarray(runner.forward(batch))[:n]
