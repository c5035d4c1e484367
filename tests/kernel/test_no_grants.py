"""A process that was granted nothing makes no call, whatever its model says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llmos.abi.config import Config
from llmos.abi.events import Call, Token
from llmos.kernel.engine.batch import Batch, SampleBatch, Sampled
from llmos.kernel.engine.scripted import ScriptedRunner, byte_tokenizer, chat_template
from llmos.kernel.kernel import Kernel

PROCESSES, WORDS = 50, 2_000


class Random(ScriptedRunner):
    """Random logits: each token that may be said is as likely as another, but for the one that ends an answer."""

    def __init__(self) -> None:
        super().__init__(lambda window: "", pages=8192)
        self._rng = np.random.default_rng(0)
        self.forbidden = 0  # draws that the grammar ruled out

    def _next(self, batch: Batch, row: int) -> int:
        return 0

    def sample(self, logits: object, rows: SampleBatch) -> Sampled:
        drawn = super().sample(logits, rows)
        assert rows.mask_BW is not None, "control tokens are masked, granted or not"
        for i, mask_W in enumerate(rows.mask_BW[: len(drawn.tokens_B)]):
            allowed_V = np.unpackbits(mask_W.view(np.uint8), bitorder="little")[: self.vocab].astype(bool)
            self.forbidden += self.vocab - int(allowed_V.sum())
            allowed_V[257] = False
            drawn.tokens_B[i] = self._rng.choice(np.flatnonzero(allowed_V))
        return drawn


@pytest.mark.slow
def test_a_hundred_thousand_random_words_are_no_call(tmp_path: Path) -> None:
    runner, tokenizer = Random(), byte_tokenizer()
    config = Config.model_validate({"machine": {"state": str(tmp_path / "machine")}})
    with Kernel(config, runner, tokenizer, chat_template(), state=tmp_path / "kernel") as kernel:
        turns = [
            kernel.spawn(priority="batch").ask("go", max_tokens=WORDS, detached=True)
            for _ in range(PROCESSES)
        ]
        events = [event for turn in turns for event in turn]
    said = [event.id for event in events if isinstance(event, Token) and event.id >= 0]
    assert len(said) == PROCESSES * WORDS and runner.forbidden > 0
    assert not any(isinstance(event, Call) for event in events)
    assert not set(said) & (tokenizer.control_ids - tokenizer.eos_ids)
