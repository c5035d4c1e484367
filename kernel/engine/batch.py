"""What one step sends to the device, and what comes back: plain numpy arrays.

What: `Batch` (the tokens of one forward pass, flat, of several sequences), `SampleBatch` (one row a sequence
    that reached its last token), `Sampled` (the answers).
Invariant: arrays hold the valid rows only; padding to a shape bucket is the runner's business.
Interface: `Batch.build`, `empty_tables`, `SampleBatch.build`, `Sampled.emitted`.
"""

from __future__ import annotations

from collections.abc import Sequence as Rows
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmos.kernel.engine.sequence import Emitted, Sequence

if TYPE_CHECKING:
    from llmos.drivers.weights.adapter import Adapter
    from llmos.kernel.engine.engine import Runner

I32 = NDArray[np.int32]
F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Work:
    """`count` tokens of `sequence` to compute in this step, and a draft to check behind them."""

    sequence: Sequence
    count: int
    draft: Rows[int] = ()

    @property
    def catches_up(self) -> bool:
        """Whether the step reaches the sequence's last token, so that it samples. (Ask before `advance`.)"""
        return self.count == self.sequence.behind


def empty_tables(runner: Runner) -> I32:
    """Page tables [processes + 1, pages of a window] that point at the page that nobody owns."""
    return np.zeros((runner.processes + 1, runner.window // runner.page), np.int32)


@dataclass(frozen=True, slots=True)
class Batch:
    """The tokens of one forward pass: [T] flat, each with its position, its slot, and page tables by slot."""

    tokens_T: I32
    positions_T: I32
    slots_T: I32
    tables_BP: I32  # and one row more, of page 0: padding tokens are in that slot
    logit_rows_B: I32  # which of the T tokens want logits
    adapters: Rows[Adapter | None] = ()  # by slot; those that are not there have none

    @classmethod
    def build(cls, work: Rows[Work], runner: Runner) -> Batch:
        """Lay out `work`, one slot a sequence; logits for the last token of each sequence that catches up, and
        for every token of its draft."""
        tokens: list[list[int]] = []
        positions, slots = list[I32](), list[I32]()
        logit_rows: list[int] = []
        tables_BP = empty_tables(runner)
        at = 0
        for slot, item in enumerate(work):
            s, count = item.sequence, item.count + len(item.draft)
            tokens.append([*s.tokens[s.computed : s.computed + item.count], *item.draft])
            positions.append(np.arange(s.computed, s.computed + count, dtype=np.int32))
            slots.append(np.full(count, slot, np.int32))
            tables_BP[slot, : len(s.pages)] = s.pages
            at += count
            if item.catches_up:
                logit_rows += range(at - len(item.draft) - 1, at)
        return cls(
            np.concatenate(tokens, dtype=np.int32),
            np.concatenate(positions),
            np.concatenate(slots),
            tables_BP,
            np.asarray(logit_rows, np.int32),
            [item.sequence.request.adapter for item in work],
        )


RECENT = 256  # tokens that the repetition penalty looks back on


@dataclass(frozen=True, slots=True)
class SampleBatch:
    """One row a token to sample (a sequence has one, and one more for each token of its draft): parameters,
    random number, allowed tokens, recent tokens."""

    temperature_B: F32
    top_k_B: I32
    top_p_B: F32
    min_p_B: F32
    penalty_B: F32
    uniform_B: F32
    recent_BR: I32  # padded with -1
    mask_BW: NDArray[np.uint32] | None  # W = ceil(V / 32); None where no row has a grammar
    top: int  # alternatives wanted, of all rows the most

    @classmethod
    def build(cls, work: Rows[Work], mask_BW: NDArray[np.uint32] | None) -> SampleBatch:
        """The rows of `work`, in order, with the tokens that grammars allow."""
        rows = [item.sequence.request.strategy.row() for item in work for _ in range(1 + len(item.draft))]
        uniform_B, recent_BR = np.zeros(len(rows), np.float32), np.full((len(rows), RECENT), -1, np.int32)
        at = 0
        for item in work:
            s = item.sequence
            for ahead in range(1 + len(item.draft)):
                uniform_B[at] = s.request.randomness.uniform(len(s.tokens) + ahead)
                if rows[at].repetition_penalty != 1.0:
                    last = [*s.tokens[-RECENT:], *item.draft[:ahead]][-RECENT:]
                    recent_BR[at, : len(last)] = last
                at += 1
        return cls(
            np.asarray([r.temperature for r in rows], np.float32),
            np.asarray([r.top_k for r in rows], np.int32),
            np.asarray([r.top_p for r in rows], np.float32),
            np.asarray([r.min_p for r in rows], np.float32),
            np.asarray([r.repetition_penalty for r in rows], np.float32),
            uniform_B,
            recent_BR,
            mask_BW,
            max(item.sequence.request.top for item in work),
        )


@dataclass(frozen=True, slots=True)
class Sampled:
    """The sampler's answers, one row a sequence. `top_*_BN` are empty where no alternatives were asked for."""

    tokens_B: I32
    logprobs_B: F32
    top_ids_BN: I32
    top_logprobs_BN: F32

    def emitted(self, row: int, top_n: int) -> Emitted:
        """Row `row` as the stream's item, with `top_n` alternatives."""
        top = zip(self.top_ids_BN[row].tolist(), self.top_logprobs_BN[row].tolist(), strict=True)
        return Emitted(int(self.tokens_B[row]), float(self.logprobs_B[row]), tuple(top)[:top_n])
