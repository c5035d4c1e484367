"""Sequences of any length in rows of one length.

What: `Example` (tokens, and how much each counts as a target) -> `Batch`, flat arrays as the decoder's ops take them.
Invariant: a sequence is never cut and never sees another's tokens: each is a segment of its row, its positions from 0.
    Where sequences go depends on their lengths and order alone. Only targets that count are given to the output head.
Interface: `pack(examples, length, rows)` -> batches; `Batch`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from numpy.typing import NDArray

I32 = NDArray[np.int32]
F32 = NDArray[np.float32]
HEAD_BUCKETS = 8  # sizes, in shares of a batch, that the output head is compiled for


@dataclass(frozen=True, slots=True)
class Example:
    """A sequence: `weights[i]` is what predicting `tokens[i]` from those before it counts. `weights[0]` is 0."""

    tokens: I32
    weights: F32

    def __len__(self) -> int:
        return len(self.tokens)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class Batch:
    """R rows of S tokens, flat [T], and the W predictions that are asked of them (padded with weight 0)."""

    tokens_T: I32
    positions_T: I32
    slots_T: I32  # which example of the batch, in its order; -1: padding
    wanted_W: I32  # tokens whose successor is predicted
    targets_W: I32
    weights_W: F32
    owners_W: I32  # the example that each prediction belongs to

    @property
    def tokens(self) -> int:
        """Tokens that are not padding."""
        return int((self.slots_T >= 0).sum())


def pack(examples: Sequence[Example], length: int, rows: int, together: int = 1) -> Iterator[Batch]:
    """Batches of `rows` rows; each example goes into the first row with room for it.

    An example does not wait for a better fit beyond the batch that is open: the order of learning stays that of the
    data, by batches.

    Args:
        together: so many examples, one behind the other, are always in one batch (a pair's two answers).
    """
    placed: list[list[int]] = [[] for _ in range(rows)]
    for at in range(0, len(examples), together):
        group = range(at, at + together)
        fitted = _fit(examples, placed, group, length)
        if fitted is None and any(placed):
            yield _batch(examples, placed, length)
            fitted = _fit(examples, [[] for _ in range(rows)], group, length)
        if fitted is None:
            sizes = [len(examples[i]) for i in group]
            raise ValueError(f"examples of {sizes} tokens do not fit {rows} rows of {length}")
        placed = fitted
    if any(placed):
        yield _batch(examples, placed, length)


def _fit(
    examples: Sequence[Example], placed: list[list[int]], group: Sequence[int], length: int
) -> list[list[int]] | None:
    """`placed` with the whole group, or None."""
    placed = [list(row) for row in placed]
    for i in group:
        room = (r for r in placed if sum(len(examples[n]) for n in r) + len(examples[i]) <= length)
        row = next(room, None)
        if row is None:
            return None
        row.append(i)
    return placed


def _batch(examples: Sequence[Example], placed: list[list[int]], length: int) -> Batch:
    T = len(placed) * length
    tokens_T, positions_T = np.zeros(T, np.int32), np.zeros(T, np.int32)
    slots_T = np.full(T, -1, np.int32)
    wanted, targets, weights, owners = list[I32](), list[I32](), list[F32](), list[I32]()
    order = sorted(i for row in placed for i in row)
    number = {example: n for n, example in enumerate(order)}
    for r, row in enumerate(placed):
        at = r * length
        for i in row:
            e, n = examples[i], len(examples[i])
            tokens_T[at : at + n] = e.tokens
            positions_T[at : at + n] = np.arange(n)
            slots_T[at : at + n] = number[i]
            counted = np.flatnonzero(e.weights[1:]).astype(np.int32)
            wanted.append(at + counted)
            targets.append(e.tokens[counted + 1])
            weights.append(e.weights[counted + 1])
            owners.append(np.full(len(counted), number[i], np.int32))
            at += n
    count = sum(map(len, wanted))
    step = -(-T // HEAD_BUCKETS)
    pad = max(step, -(-count // step) * step) - count
    return Batch(
        tokens_T,
        positions_T,
        slots_T,
        np.pad(np.concatenate(wanted, dtype=np.int32), (0, pad)),
        np.pad(np.concatenate(targets, dtype=np.int32), (0, pad)),
        np.pad(np.concatenate(weights, dtype=np.float32), (0, pad)),
        np.pad(np.concatenate(owners, dtype=np.int32), (0, pad)),
    )
