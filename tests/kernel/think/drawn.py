"""A model that draws among answers: for tests of thinking, where one that always says the same leaves no choice."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from math import log

import numpy as np

from llmos.kernel.engine.batch import Batch, SampleBatch, Sampled
from llmos.kernel.engine.scripted import ScriptedRunner

END = 257
Replies = Callable[[str], Sequence[str]]
"""From the window as text, up to the opening of the answer, to the answers that it may give, the likeliest first. One
that stands twice is twice as likely."""


class DrawnRunner(ScriptedRunner):
    """Goes on with one of the answers that begin with what it has said: the first where it is greedy, else by the
    random bits of the position."""

    def __init__(self, replies: Replies, *, step_s: float = 0.0, **more: int) -> None:
        super().__init__(lambda _: "", **more)
        self._replies, self._step_s = replies, step_s

    def forward(self, batch: Batch) -> list[list[int]]:  # type: ignore[override]
        """What may come next in each row that wants logits, once for each answer that goes on so."""
        time.sleep(self._step_s)
        pages = batch.tables_BP[batch.slots_T, batch.positions_T // self.page]
        self._kept[pages, batch.positions_T % self.page] = batch.tokens_T
        return [self._options(batch, int(row)) for row in batch.logit_rows_B]

    def _options(self, batch: Batch, row: int) -> list[int]:
        length = int(batch.positions_T[row]) + 1
        pages = batch.tables_BP[batch.slots_T[row], : -(-length // self.page)]
        window = self._kept[pages].reshape(-1)[:length].tolist()
        starts = [i + 1 + len("assistant\n") for i, token in enumerate(window) if token == 256]
        opening, said = starts[-1], window[starts[-1] :]
        answers = [self._tokenizer.encode_control(r) for r in self._replies(self._text(window[:opening]))]
        going = [a for a in answers if a[: len(said)] == said]
        return [a[len(said)] if len(a) > len(said) else END for a in going] or [END]

    def sample(self, logits: object, rows: SampleBatch) -> Sampled:
        """One of them; its log-probability and the likeliest are those of the answers."""
        assert isinstance(logits, list)
        count, top = len(logits), rows.top
        tokens, logprobs = np.zeros(count, np.int32), np.zeros(count, np.float32)
        ids, beside = np.zeros((count, top), np.int32), np.full((count, top), -50.0, np.float32)
        for i, options in enumerate(logits):
            at = int(rows.uniform_B[i] * len(options)) if rows.temperature_B[i] > 0 else 0
            tokens[i], share = options[at], {t: options.count(t) / len(options) for t in options}
            if rows.mask_BW is not None and not rows.mask_BW[i, tokens[i] // 32] >> (tokens[i] % 32) & 1:
                bits = np.unpackbits(rows.mask_BW[i].view(np.uint8), bitorder="little")
                tokens[i] = int(np.argmax(bits))
            logprobs[i] = log(share.get(int(tokens[i]), 1e-3))
            for n, (token, p) in enumerate(sorted(share.items(), key=lambda pair: -pair[1])[:top]):
                ids[i, n], beside[i, n] = token, log(p)
        return Sampled(tokens, logprobs, ids, beside)
