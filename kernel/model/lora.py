"""Adapters on a decoder: which of its products they change, and what a step is told of them.

What: `Factors`, the matrices of several adapters for one product of the decoder, a slot each; `Adapted`, one step's
    view of them. Slot 0 is nobody's: what stands there changes nothing.
Invariant: what a product becomes for a token depends on that token's slot alone. The strength of an adapter is in its
    second matrix, so nothing downstream knows of it.
Interface: `Change`, `Factors`, `Adapted`; `GROUPS`, the products and the matrices that each is made of;
    `shapes(config)`, `fingerprint(model)`, `named(config, norms)`; `part(adapter, layer, group, …)`, an adapter's share
    of a bank.

Dimension letters: S slot, M matrix of a product, R rank, K inputs, N outputs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax import Array

from llmos.kernel.model.config import ModelConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llmos.drivers.weights.adapter import Adapter
    from llmos.kernel.model.load import Model

# The decoder's products, and the matrices that stand side by side in each.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "qkv": ("q", "k", "v"), "out": ("o",), "gate_up": ("gate", "up"), "down": ("down",),
}  # fmt: skip


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class Factors:
    """What adapters add to one product: to matrix m, for slot s, (x a[s, m]ᵀ) b[m][s] over the first ranks[s, m]."""

    ranks_SM: Any  # i32, 0 where an adapter leaves a matrix alone
    a_SMRK: Any  # in the pool's type, as are those below
    b_SRN: tuple[Any, ...]  # for each matrix


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class Change:
    """`Factors` for the tokens of a step."""

    slots_T: Array  # i32
    factors: Factors


Bank = tuple[
    Mapping[str, Factors], ...
]  # for each layer, by group; groups that no adapter changes are not there


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class Adapted:
    """The adapters of a step: those that are there, and each token's."""

    slots_T: Array
    bank: Bank

    def layer(self, i: int) -> dict[str, Change]:
        """What changes in layer `i`, by group."""
        return {group: Change(self.slots_T, factors) for group, factors in self.bank[i].items()}


def shapes(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """(N out, K in) of each matrix that an adapter can change, by short name."""
    q, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
    return {
        "q": (q, config.dim), "k": (kv, config.dim), "v": (kv, config.dim), "o": (config.dim, q),
        "gate": (config.ffn, config.dim), "up": (config.ffn, config.dim), "down": (config.dim, config.ffn),
    }  # fmt: skip


def fingerprint(model: Model) -> str:
    """A name of a model's weights that every file of them has, however its matrices are quantised: a hash over its
    shapes and its norms, which no file rounds."""
    from flax import nnx  # half a second of imports, which only they pay who have an adapter

    decoder = nnx.merge(model.graph, model.state)
    norms = [
        layer.norm for pair in zip(decoder.attention, decoder.feed_forward, strict=True) for layer in pair
    ]
    return named(model.config, [norm.get_value() for norm in [*norms, decoder.final_norm]])


def named(config: ModelConfig, norms: Iterable[Any]) -> str:
    """`fingerprint` from the norms themselves: of each layer that of attention and that of the feed-forward, then the
    last one."""
    digest = hashlib.blake2b(repr((config.vocab, shapes(config))).encode(), digest_size=16)
    for norm in norms:
        digest.update(np.asarray(norm, np.float32).tobytes())
    return digest.hexdigest()


def groups_of(adapter: Adapter) -> frozenset[str]:
    """The products that it changes, in any layer."""
    return frozenset(group for group, names in GROUPS.items() if set(names) & set(adapter.matrices))


def part(
    adapter: Adapter, layer: int, group: str, rank: int, config: ModelConfig, type: Any
) -> tuple[NDArray[np.int32], Any, tuple[Any, ...]]:
    """A slot's share of `Factors`: ranks [M], a [M, R, K], b [R, N] of each matrix, in `type` (uint16: bf16 bits)."""
    names, sizes = GROUPS[group], shapes(config)
    changes = adapter.layers[layer] if layer < len(adapter.layers) else {}
    ranks = np.asarray([changes[n].rank if n in changes else 0 for n in names], np.int32)
    a_MRK = np.zeros((len(names), rank, sizes[names[0]][1]), np.float32)
    b = [np.zeros((rank, sizes[name][0]), np.float32) for name in names]
    for m, name in enumerate(names):
        if name in changes:
            a_MRK[m, : ranks[m]] = changes[name].a_RK
            b[m][: ranks[m]] = changes[name].b_NR.T * np.float32(adapter.scale)
    return ranks, _stored(a_MRK, type), tuple(_stored(b_RN, type) for b_RN in b)


def _stored(values: NDArray[np.float32], type: Any) -> Any:
    if np.dtype(type) == np.uint16:
        import ml_dtypes

        return values.astype(ml_dtypes.bfloat16).view(np.uint16)
    return values.astype(type)
