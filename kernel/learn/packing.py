"""Sequences of any length in rows of one length.

What: `Example` (tokens, and how much each counts as a target) -> `Batch`, flat arrays as the decoder's ops take them.
Invariant: a sequence is never cut and never sees another's tokens: each is a segment of its row, its positions from 0.
    Where sequences go depends on them and their order alone. Only targets that count are given to the output head.
    With `share` a sequence that begins like another one of its row stands there from where it differs, and sees the
    other's beginning: what comes out is the same, and the beginning is computed once.
Interface: `pack(examples, length, rows)` -> batches; `Batch`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np
from numpy.typing import NDArray

I32 = NDArray[np.int32]
F32 = NDArray[np.float32]
HEAD_BUCKETS = 8  # sizes, in shares of a batch, that the output head is compiled for
LEAST = 8  # tokens of a beginning that is worth sharing


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
    hosts_T: I32 | None = None  # the example whose first `shared_T` tokens a token sees too
    shared_T: I32 | None = None

    @property
    def tokens(self) -> int:
        """Tokens that are not padding."""
        return int((self.slots_T >= 0).sum())


@dataclass(frozen=True, slots=True)
class _Placed:
    """An example in a row, without its first `shared` tokens, which are those of `host`."""

    example: int
    host: int = -1
    shared: int = 0


Rows = list[list[_Placed]]


def pack(
    examples: Sequence[Example], length: int, rows: int, together: int = 1, share: bool = False
) -> Iterator[Batch]:
    """Batches of `rows` rows; each example goes into the first row with room for it, or with `share` into that of them
    whose beginning it has most of.

    An example does not wait for a better fit beyond the batch that is open: the order of learning stays that of the
    data, by batches.

    Args:
        together: so many examples, one behind the other, are always in one batch (a pair's two answers).
    """
    placed: Rows = [[] for _ in range(rows)]
    for at in range(0, len(examples), together):
        group = range(at, at + together)
        fitted = _fit(examples, placed, group, length, share)
        if fitted is None and any(placed):
            yield _batch(examples, placed, length, share)
            fitted = _fit(examples, [[] for _ in range(rows)], group, length, share)
        if fitted is None:
            sizes = [len(examples[i]) for i in group]
            raise ValueError(f"examples of {sizes} tokens do not fit {rows} rows of {length}")
        placed = fitted
    if any(placed):
        yield _batch(examples, placed, length, share)


def _fit(
    examples: Sequence[Example], placed: Rows, group: Sequence[int], length: int, share: bool
) -> Rows | None:
    """`placed` with the whole group, or None."""
    placed = [list(row) for row in placed]
    for i in group:
        offers = [(row, _offer(examples, row, i) if share else _Placed(i)) for row in placed]
        offers = [
            (row, offer)
            for row, offer in offers
            if sum(len(examples[p.example]) - p.shared for p in (*row, offer)) <= length
        ]
        if not offers:
            return None
        row, offer = max(offers, key=lambda o: o[1].shared)
        row.append(offer)
    return placed


def _offer(examples: Sequence[Example], row: Sequence[_Placed], i: int) -> _Placed:
    """Example `i` as it would stand in a row: behind the longest beginning of its own that is there."""
    best = _Placed(i)
    mine = examples[i].tokens
    for host in (p.example for p in row if p.host < 0):
        most = min(len(mine) - 1, len(examples[host]))  # a token of its own at least
        differs = np.flatnonzero(mine[:most] != examples[host].tokens[:most])
        shared = int(differs[0]) if len(differs) else most
        if shared >= max(LEAST, best.shared + 1):
            best = _Placed(i, host, shared)
    return best


def _batch(examples: Sequence[Example], placed: Rows, length: int, share: bool) -> Batch:
    T = len(placed) * length
    tokens_T, positions_T = np.zeros(T, np.int32), np.zeros(T, np.int32)
    slots_T, hosts_T, shared_T = (np.full(T, value, np.int32) for value in (-1, -1, 0))
    wanted, targets, weights, owners = list[I32](), list[I32](), list[F32](), list[I32]()
    order = sorted(p.example for row in placed for p in row)
    number = {example: n for n, example in enumerate(order)}
    begins: dict[int, int] = {}
    for r, row in enumerate(placed):
        at = r * length
        for p in row:
            e, own = examples[p.example], slice(at, at + len(examples[p.example]) - p.shared)
            begins[p.example] = at
            tokens_T[own] = e.tokens[p.shared :]
            positions_T[own] = np.arange(p.shared, len(e))
            slots_T[own] = number[p.example]
            hosts_T[own], shared_T[own] = number.get(p.host, -1), p.shared
            counted = np.flatnonzero(e.weights[1:]).astype(np.int32)
            inside = begins.get(p.host, 0) + counted, at - p.shared + counted
            wanted.append(np.where(counted < p.shared, *inside).astype(np.int32))
            targets.append(e.tokens[counted + 1])
            weights.append(e.weights[counted + 1])
            owners.append(np.full(len(counted), number[p.example], np.int32))
            at = own.stop
    count = sum(map(len, wanted))
    step = -(-T // HEAD_BUCKETS)
    pad = max(step, -(-count // step) * step) - count
    batch = Batch(
        tokens_T,
        positions_T,
        slots_T,
        np.pad(np.concatenate(wanted, dtype=np.int32), (0, pad)),
        np.pad(np.concatenate(targets, dtype=np.int32), (0, pad)),
        np.pad(np.concatenate(weights, dtype=np.float32), (0, pad)),
        np.pad(np.concatenate(owners, dtype=np.int32), (0, pad)),
    )
    return replace(batch, hosts_T=hosts_T, shared_T=shared_T) if share else batch
