"""Where a model looks: how the words that it wrote spread their attention over its window.

What: takes some tokens of a sequence through the first layers once more, for their queries in a layer of the middle,
    and weighs with them the keys that the pool holds there: the mean over the layer's heads and these tokens.
Invariant: the pool holds afterwards what it held before, bit for bit. A few tokens and a part of the layers, once a
    turn at most: less than a word costs. It says where a model looked, which is a hint at what it used and no proof
    of it: for that, `kernel.why` masks a stretch and asks again.
Interface: `Gaze(model, page, window)`, `Gaze.fits(model)`; `gaze.shares(runner, tokens, looking, pages, adapter)`. The
    engine thread's own; the first call compiles.
Source: heads of the middle layers fetch what is copied into an answer (Wu et al. 2024, arXiv 2404.15574); the first
    tokens take what attention has no use for (Xiao et al. 2023, arXiv 2309.17453), so the very first, and of each other
    what all that look give it alike, is left out of account.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from numpy.typing import NDArray

from llmos.kernel.model import xla_ops
from llmos.kernel.model.attention import AttentionBatch, AttentionSpec
from llmos.kernel.model.load import Model
from llmos.kernel.model.lora import Adapted, Bank
from llmos.kernel.model.rope import widened

if TYPE_CHECKING:
    from llmos.drivers.weights.adapter import Adapter
    from llmos.kernel.engine.runner import ModelRunner

Shares = NDArray[np.float32]
"""For each token of a window its share of the attention, [T]; they sum to 1."""

LOOKING = 4  # tokens that look, spread over those that may
ROWS = 16  # of the program that computes their queries: the narrowest that rounds as every other
DEPTH = 0.7  # how far up the layer lies; docs/log.md says what others see


class _Queries:
    """A layer's operations that go as far as its queries, and keep them."""

    def __init__(self, ops: Any) -> None:
        self._ops = ops
        self.q_TNH: Array | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ops, name)

    def attention(
        self,
        qkv_TC: Array,
        pool: None,
        batch: AttentionBatch,
        spec: AttentionSpec,
        cos: Array,
        sin: Array,
        q_norm: Array | None = None,
        k_norm: Array | None = None,
    ) -> tuple[Array, None]:
        self.q_TNH = xla_ops.rotated(qkv_TC, jnp.float32, batch, spec, cos, sin, q_norm, k_norm)[0]
        return jnp.zeros_like(qkv_TC[:, : spec.heads * spec.head_dim]), pool


class Gaze:
    """Of one model."""

    def __init__(self, model: Model, *, page: int, window: int) -> None:
        """`window`: tokens that one sequence may have."""
        c = model.config
        whole = [i for i in range(c.layers) if not c.layer(i).window] or list(range(c.layers))
        self._layer = layer = min(whole, key=lambda i: abs(i - DEPTH * (c.layers - 1)))
        self._spec = AttentionSpec.of(c, layer)
        arrays, structure = jax.tree.flatten(model.state)
        self._arrays = tuple(arrays)
        self._tables_BP = np.zeros((2, window // page), np.int32)  # of the one sequence, and of padding

        def queries(
            arrays: tuple[Array, ...],
            pools: tuple[Array, ...],
            ids_XT: Array,
            tables_BP: Array,
            rows: Array,
            bank: Bank,
        ) -> tuple[Array, tuple[Array, ...]]:
            decoder = nnx.merge(model.graph, jax.tree.unflatten(structure, arrays))
            asked = decoder.attention[layer].ops = _Queries(decoder.attention[layer].ops)
            batch = AttentionBatch(ids_XT[1], ids_XT[2], tables_BP, rows)
            adapted = Adapted(ids_XT[3], bank) if bank else None
            _, pools = decoder.hidden(ids_XT[0], batch, (*pools, None), adapted)
            assert asked.q_TNH is not None
            return asked.q_TNH, pools[:-1]  # nobody asks for what is computed behind them: XLA leaves it out

        self._queries = jax.jit(queries, donate_argnums=1)

    @staticmethod
    def fits(model: Model) -> bool:
        """Whether its pages have the form that is read here; some devices have one of their own."""
        c = model.config
        return tuple(model.slot_shape) == (c.kv_heads, 2, c.head_dim)

    def shares(
        self,
        runner: ModelRunner,
        tokens: Sequence[int],
        looking: range,
        pages: Sequence[int],
        adapter: Adapter | None = None,
    ) -> Shares:
        """How the tokens at `looking` (some of them, evenly spread) attend to `tokens`, whose KV is in `pages`."""
        at_W = np.unique(np.linspace(looking[0], looking[-1], min(LOOKING, len(looking))).astype(np.int32))
        touched = sorted({pages[at // runner.page] for at in at_W.tolist()})
        before = runner.read_pages(touched)
        q_WNH = self._asked(runner, tokens, at_W, pages, adapter)
        runner.write_pages(touched, before)
        kv = runner.read_layer(self._layer, pages).reshape(-1, self._spec.kv_heads, 2, self._spec.head_dim)
        given_WT = attention(q_WNH, widened(kv[: len(tokens), :, 0]), at_W, self._spec)
        shares_T = given_WT.mean(0)
        if len(given_WT) > 1:
            shares_T -= given_WT.min(0)
        shares_T[0] = 0.0
        total = float(shares_T.sum())
        return shares_T / total if total else shares_T

    def _asked(
        self,
        runner: ModelRunner,
        tokens: Sequence[int],
        at_W: NDArray[np.int32],
        pages: Sequence[int],
        adapter: Adapter | None,
    ) -> NDArray[np.float32]:
        """The queries of the tokens at these places, f32 [W, N, H], scaled by nothing yet."""
        ids_XT = np.zeros((3 if adapter is None else 4, ROWS), np.int32)
        ids_XT[0, : len(at_W)] = [tokens[at] for at in at_W]
        ids_XT[1, : len(at_W)] = at_W
        ids_XT[2, len(at_W) :] = 1
        bank: Bank = ()
        if adapter is not None:
            ids_XT[3] = runner.bank.slots([adapter])[0]
            bank = runner.bank.factors
        self._tables_BP[0] = 0
        self._tables_BP[0, : len(pages)] = pages
        below, above = runner.pools[: self._layer], runner.pools[self._layer :]
        q_TNH, below = self._queries(self._arrays, below, ids_XT, self._tables_BP, np.int32(len(at_W)), bank)
        runner.pools = (*below, *above)
        return np.asarray(q_TNH)[: len(at_W)]


def attention(
    q_WNH: NDArray[np.float32], k_TKH: NDArray[np.float32], at_W: NDArray[np.int32], spec: AttentionSpec
) -> NDArray[np.float32]:
    """What each of W tokens gives to each of T, the mean over all heads: f32 [W, T], rows sum to 1.

    Args:
        q_WNH, k_TKH: rotated.
        at_W: the places of those that look; they see nothing behind themselves.
    """
    W, (T, K, H) = len(q_WNH), k_TKH.shape
    q_KRH = q_WNH.reshape(W, K, -1, H).swapaxes(0, 1).reshape(K, -1, H) * np.float32(spec.scale)
    score = (q_KRH @ k_TKH.transpose(1, 2, 0)).reshape(K, W, -1, T)
    if spec.softcap:
        score = np.tanh(score / spec.softcap) * spec.softcap
    here, there = at_W[:, None], np.arange(T, dtype=np.int32)[None, :]
    seen_WT = there <= here
    if spec.window:
        seen_WT &= there > here - spec.window
    score = np.where(seen_WT[None, :, None, :], score, -np.inf)
    weight = np.exp(score - score.max(-1, keepdims=True))
    weight /= weight.sum(-1, keepdims=True)
    return weight.mean((0, 2), dtype=np.float32)
