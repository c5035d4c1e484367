"""The device side of the engine: pool bytes, compiled steps, shape buckets.

What: `ModelRunner` holds the decoder's arrays and one KV pool a layer, and runs padded batches through two
    compiled functions: forward, and sample (apart, so that grammar masks are made while forward runs).
Invariant: a program is compiled for each token bucket only (plain XLA has one), never for a count, and once more
    where some token has an adapter: who has none never pays for those of others. Pools are
    donated and updated in place, so step time does not grow with the pool. Padding rows point at page 0, which
    nobody owns.
Interface: `ModelRunner(model, pages=…, page=…, window=…)`; `forward`, `sample`, `read_pages`, `read_layer`,
    `write_pages`, `poison`, `attention`, `check`, `adapt`, `warm_up`, `compilations`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax
from jax.sharding import Mesh, use_abstract_mesh

from llmos.abi.limits import LATENCY_BUDGET, MAX_PROCESSES, PAGE_TOKENS, TOKEN_BUDGET
from llmos.drivers import cpu
from llmos.kernel.engine.bank import AdapterBank, Form
from llmos.kernel.engine.batch import Batch, SampleBatch, Sampled, empty_tables
from llmos.kernel.engine.gaze import Gaze, Shares
from llmos.kernel.engine.sampler import sample
from llmos.kernel.engine.transfer import Pages, Transfer
from llmos.kernel.model.attention import AttentionBatch
from llmos.kernel.model.decoder import Decoder, Step
from llmos.kernel.model.load import Model
from llmos.kernel.model.lora import Adapted, Bank
from llmos.kernel.model.mesh import POOL, TOKENS, Layout

if TYPE_CHECKING:
    from llmos.drivers.weights.adapter import Adapter

# Token buckets. The CPU kernels skip padding rows, so few buckets cost nothing; accelerators compute them.
BUCKETS = (16, 64, TOKEN_BUDGET)
# Plain XLA on CPU rounds differently at each width. There a step of any size is a loop over blocks of this many
# tokens: one program, one rounding, and only the blocks that hold tokens are computed.
BLOCK = 16


def compute(
    graph: Any,
    state: Any,
    pools: tuple[Array, ...],
    ids_XT: Array,
    tables_BP: Array,
    tail: Array,
    bank: Bank = (),
    *,
    block: int = 0,
) -> tuple[Array, tuple[Array, ...]]:
    """One step of a decoder, the function that is compiled: logits f32 [B, V], and the pools.

    Args:
        graph, state: the decoder's halves.
        pools: one [pages, S, *slot_shape] a layer.
        ids_XT: i32 tokens, positions and slots; with a bank, each token's slot in that too.
        tables_BP: page tables by slot.
        tail: i32 [2 + B]: valid tokens, valid logit rows, and which tokens these rows are.
        bank: the adapters of these tokens; without one none has any.
        block: 0 computes all tokens at once; else so many at a time.
    """
    decoder = nnx.merge(graph, state)
    if block:
        return _by_blocks(decoder, pools, ids_XT, tables_BP, tail, bank, block)
    batch = AttentionBatch(ids_XT[1], ids_XT[2], tables_BP, tail[0])
    logits_BV, pools = decoder(Step(ids_XT[0], batch, tail[2:], tail[1], _adapted(ids_XT, bank)), pools)
    return logits_BV, pools


def _adapted(ids_XT: Array, bank: Bank) -> Adapted | None:
    return Adapted(ids_XT[3], bank) if bank else None


def _by_blocks(
    decoder: Decoder,
    pools: tuple[Array, ...],
    ids_XT: Array,
    tables_BP: Array,
    tail: Array,
    bank: Bank,
    block: int,
) -> tuple[Array, tuple[Array, ...]]:
    """`compute` as a loop over the valid tokens, `block` at a time: one program, whatever the step holds."""
    rows = tail[0]

    def body(i: Array, carry: tuple[Array, tuple[Array, ...]]) -> tuple[Array, tuple[Array, ...]]:
        x_TD, pools = carry
        ids_XB = lax.dynamic_slice_in_dim(ids_XT, i * block, block, axis=1)
        batch = AttentionBatch(ids_XB[1], ids_XB[2], tables_BP, jnp.clip(rows - i * block, 0, block))
        x_BD, pools = decoder.hidden(ids_XB[0], batch, pools, _adapted(ids_XB, bank))
        return lax.dynamic_update_slice_in_dim(x_TD, x_BD, i * block, axis=0), pools

    x_TD = jnp.zeros((ids_XT.shape[1], decoder.config.dim), jnp.float32)
    x_TD, pools = lax.fori_loop(0, -(-rows // block), body, (x_TD, pools))
    return decoder.logits(x_TD[tail[2:]], tail[1]), pools


def block_of(model: Model, budget: int) -> int:
    """The block that `compute` takes for a model on one device, in steps of `budget` tokens."""
    return BLOCK if model.backend == "xla" and budget % BLOCK == 0 else 0


class ModelRunner:
    """Runs one model. Not thread-safe: the engine thread's own."""

    def __init__(
        self,
        model: Model,
        *,
        pages: int,
        page: int = PAGE_TOKENS,
        window: int,
        processes: int = MAX_PROCESSES,
        budget: int = TOKEN_BUDGET,
        mesh: Mesh | None = None,
    ) -> None:
        """`mesh` (of `kernel.model.mesh.make_mesh`) spreads model and pool over its devices."""
        c = model.config
        self.pages, self.page, self.window = pages, page, window
        self.vocab, self.processes, self.budget = c.vocab, processes, budget
        # On a CPU a step takes as long as it has tokens; an accelerator's small step is as long as a large one.
        self.latency_budget = min(budget, LATENCY_BUDGET if jax.default_backend() == "cpu" else budget)
        self.identity = f"{model.identity}/page{page}"
        block = 0 if mesh is not None else block_of(model, budget)
        self.buckets = (budget,) if block else tuple(b for b in BUCKETS if b < budget) + (budget,)
        self.compilations = 0
        layout = None if mesh is None else Layout.of(model, mesh, math.gcd(*self.buckets))
        options: dict[str, Any] = {}
        with_bank: dict[str, Any] = {}
        state, pool_at = model.state, None
        self.bank = AdapterBank(model)
        if layout is not None:
            self.identity += layout.identity
            state, pool_at = layout.place(state), layout.sharding(POOL)
            whole, pools_at = layout.sharding(), (pool_at,) * c.layers
            arrays_at = tuple(jax.tree.leaves(layout.of_state(state)))
            given = (arrays_at, pools_at, layout.sharding(TOKENS), whole, whole)
            options = dict(in_shardings=given, out_shardings=(whole, pools_at))
            with_bank = options | dict(in_shardings=(*given, whole))
            self.bank = AdapterBank(model, lambda arrays: jax.device_put(arrays, whole))
        arrays, structure = jax.tree.flatten(state)
        self._arrays = tuple(arrays)
        shape = (pages, page, *model.slot_shape)
        # Our attention kernel never reads a slot that was not written; plain XLA multiplies what it masks by 0.
        make = cpu.empty if model.backend == "cpu" else partial(jnp.zeros, device=pool_at)
        self.pools = tuple(make(shape, model.pool_type) for _ in range(c.layers))
        self._transfer = Transfer(self.pools)
        self._masks_junk = model.backend == "cpu"

        def forward(arrays: tuple[Array, ...], *rest: Any) -> tuple[Array, tuple[Array, ...]]:
            self.compilations += 1  # runs when traced, not when executed
            with nullcontext() if layout is None else use_abstract_mesh(layout.mesh.abstract_mesh):
                return compute(model.graph, jax.tree.unflatten(structure, arrays), *rest, block=block)

        self._forward = jax.jit(forward, donate_argnums=1, **options)
        self._adapted = jax.jit(forward, donate_argnums=1, **with_bank)
        self._warm: set[Form | None] = set()
        gazes = layout is None and Gaze.fits(model)
        self._new_gaze = partial(Gaze, model, page=page, window=window) if gazes else None

    @staticmethod
    def page_bytes(model: Model, page: int = PAGE_TOKENS) -> int:
        """Bytes of one page over all layers."""
        c = model.config
        return c.layers * page * math.prod(model.slot_shape) * jnp.dtype(model.pool_type).itemsize

    def forward(self, batch: Batch) -> Array:
        """Logits f32 [bucket, V], the batch's rows first; computed asynchronously."""
        count, wanted = len(batch.tokens_T), len(batch.logit_rows_B)
        return self._run(
            next(b for b in self.buckets if b >= count and min(b, self.processes) >= wanted), batch
        )

    def _run(self, bucket: int, batch: Batch) -> Array:
        count, wanted = len(batch.tokens_T), len(batch.logit_rows_B)
        adapted = any(adapter is not None for adapter in batch.adapters)
        ids_XT = np.zeros((4 if adapted else 3, bucket), np.int32)
        ids_XT[0, :count], ids_XT[1, :count] = batch.tokens_T, batch.positions_T
        ids_XT[2] = self.processes  # padding's slot
        ids_XT[2, :count] = batch.slots_T
        tail = np.zeros(2 + min(bucket, self.processes), np.int32)
        tail[0], tail[1] = count, wanted
        tail[2 : 2 + wanted] = batch.logit_rows_B
        given = (self._arrays, self.pools, ids_XT, batch.tables_BP, tail)
        if adapted:
            in_bank = np.zeros(self.processes + 1, np.int32)
            in_bank[: len(batch.adapters)] = self.bank.slots(batch.adapters)
            ids_XT[3] = in_bank[ids_XT[2]]
            logits, self.pools = self._adapted(*given, self.bank.factors)
        else:
            logits, self.pools = self._forward(*given)
        return logits

    def check(self, adapter: Adapter) -> None:
        """AdapterMismatch where `adapter` was made for other weights. Any thread."""
        self.bank.check(adapter)

    def adapt(self, adapter: Adapter) -> None:
        """Have `adapter` on the device, and compiled what steps with it need, before somebody waits for its words."""
        self.bank.slots([adapter])
        if self.bank.form not in self._warm:
            self._warm.add(self.bank.form)
            for bucket in self.buckets:
                self._run(bucket, self._empty(adapter))

    def sample(self, logits: object, rows: SampleBatch) -> Sampled:
        """One token for each of the first rows of `logits`; waits."""
        assert isinstance(logits, Array)
        return sample(logits, rows)

    def read_pages(self, pages: Sequence[int]) -> Pages:
        """What `pages` hold, verbatim: a host array [P, L, S, *slot_shape]. Waits for the step under way."""
        return self._transfer.read(self.pools, pages)

    def read_layer(self, layer: int, pages: Sequence[int]) -> Pages:
        """What `pages` hold of one layer: [P, S, *slot_shape]."""
        return self._transfer.layer(self.pools[layer], pages)

    def write_pages(self, pages: Sequence[int], data: Pages) -> None:
        """Put what `read_pages` gave into `pages`, of this runner or of one with the same identity."""
        self.pools = self._transfer.write(self.pools, pages, data)

    def attention(
        self, tokens: Sequence[int], looking: range, pages: Sequence[int], adapter: Adapter | None
    ) -> Shares | None:
        """How much of the attention of the tokens at `looking` each of `tokens` has, whose KV is in `pages`: f32 [T];
        None on devices whose pages cannot be read so. The first call compiles."""
        return None if self._gaze is None else self._gaze.shares(self, tokens, looking, pages, adapter)

    @cached_property
    def _gaze(self) -> Gaze | None:
        return None if self._new_gaze is None else self._new_gaze()

    def poison(self, pages: Sequence[int]) -> None:
        """Fill `pages` with NaN, so that whoever still reads them is caught. Nothing on devices whose attention
        multiplies what it masks by 0, where a NaN would reach those who may read."""
        if self._masks_junk:
            t = self._transfer
            junk = np.full((len(pages), t.page_bytes), 0xFF, np.uint8)  # in bf16, f16 and f32
            self.write_pages(pages, junk.view(t.type).reshape(-1, *t.shape))

    def warm_up(self) -> None:
        """Compile every bucket now, on batches without a valid row."""
        for bucket in self.buckets:
            self._run(bucket, self._empty())

    def _empty(self, adapter: Adapter | None = None) -> Batch:
        none = np.zeros(0, np.int32)
        return Batch(none, none, none, empty_tables(self), none, (adapter,))
