"""A runner that computes nothing: the next token is a function of the last one and its position."""

from __future__ import annotations

import threading

import numpy as np

from llmos.kernel.engine.batch import Batch, SampleBatch, Sampled


def following(token: int, position: int, vocab: int = 97) -> int:
    """What the scripted model says after `token` at `position`."""
    return (token * 31 + position * 7 + 3) % vocab


def continuation(tokens: list[int], count: int) -> list[int]:
    """The scripted model's greedy continuation."""
    out = list(tokens)
    for _ in range(count):
        out.append(following(out[-1], len(out) - 1))
    return out[len(tokens) :]


class ScriptedRunner:
    """Keeps what it was given, refuses what a real device could not do."""

    def __init__(
        self, pages: int = 64, page: int = 4, window: int = 64, processes: int = 32, budget: int = 32
    ):
        self.pages, self.page, self.window = pages, page, window
        self.vocab, self.processes, self.budget, self.latency_budget = 97, processes, budget, budget
        self.identity = "scripted"
        self.batches: list[Batch] = []
        self.written: dict[tuple[int, int], tuple[int, int]] = {}  # (page, slot in it) -> (token, position)
        self.gate = threading.Event()
        self.gate.set()

    following = staticmethod(following)

    def forward(self, batch: Batch) -> Batch:
        self.gate.wait()
        assert len(batch.tokens_T) <= self.budget
        for token, position, slot in zip(batch.tokens_T, batch.positions_T, batch.slots_T, strict=True):
            page = int(batch.tables_BP[slot, position // self.page])
            assert page != 0, "the padding page was handed out"
            self.written[page, int(position) % self.page] = (int(token), int(position))
        for row in batch.logit_rows_B:  # attention would read every earlier position: it must be there
            slot, position = batch.slots_T[row], int(batch.positions_T[row])
            for p in range(position + 1):
                page = int(batch.tables_BP[slot, p // self.page])
                assert self.written[page, p % self.page][1] == p
        self.batches.append(batch)
        return batch

    def read_pages(self, pages: list[int]) -> np.ndarray:
        slots = [[self.written.get((page, i), (-1, -1)) for i in range(self.page)] for page in pages]
        return np.asarray(slots, np.int32)

    def write_pages(self, pages: list[int], data: np.ndarray) -> None:
        for page, slots in zip(pages, data.tolist(), strict=True):
            self.written |= {(page, i): tuple(slot) for i, slot in enumerate(slots)}

    def poison(self, pages: list[int]) -> None:
        for page in pages:
            self.written |= {(page, i): (-1, -1) for i in range(self.page)}

    def sample(self, handle: object, rows: SampleBatch) -> Sampled:
        assert isinstance(handle, Batch)
        last = handle.logit_rows_B
        assert len(last) == len(rows.temperature_B)
        tokens = [self.following(int(handle.tokens_T[r]), int(handle.positions_T[r])) for r in last]
        if rows.mask_BW is not None:
            for i, token in enumerate(tokens):
                allowed = [t for t in range(self.vocab) if rows.mask_BW[i, t // 32] >> (t % 32) & 1]
                tokens[i] = token if token in allowed else allowed[0]
        empty = np.zeros((len(tokens), 0))
        return Sampled(
            np.asarray(tokens, np.int32), np.zeros(len(tokens), np.float32), empty.astype(np.int32), empty
        )
