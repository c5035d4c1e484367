"""A decoder that is being taught: what stands still, what learns, and both put together.

What: parameters with their layers stacked [L, ...] (one compiled layer body, scanned), split into `frozen` and
    `trained`. A student learns all of its weights (f32), or an adapter beside a base that stays as compact as it is.
Invariant: the layers are those of `kernel.model.decoder`, so what is learnt is what serves. No f32 copy of a frozen
    base ever exists. A fresh adapter changes nothing: its B is zero.
Interface: `fresh(config, seed)`, `whole(weights)`, `adapted(weights, ...)` -> `Student`; `Student.parameters`,
    `Student.adapter`; `hidden(config, parameters, batch, ops)`, `logits(...)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import NDArray

from llmos.drivers.weights.adapter import MATRICES, Adapter, LowRank
from llmos.kernel.learn.ops import Adapted, Blocks, Dense, TrainingOps, blocks_of
from llmos.kernel.model.attention import AttentionBatch, AttentionSpec
from llmos.kernel.model.config import ModelConfig
from llmos.kernel.model.decoder import Attention, FeedForward
from llmos.kernel.model.lora import named
from llmos.kernel.model.parameters import Reader
from llmos.kernel.model.rope import rope_tables

if TYPE_CHECKING:
    from llmos.drivers.weights import Tensor, Weights

Tree = dict[str, Any]
Keep = Literal["int8", "bf16", "f32"]
Remember = Literal["products", "layers"]
"""What the backward pass finds again: every product's result, or only what stood between layers (less memory, a third
more work)."""

FRESH = 0.5  # standard deviation of fresh weights, times the square root of the numbers that each sums over


@dataclass(frozen=True, slots=True)
class Student:
    """`trained` and `frozen` are trees of arrays; together, by `parameters`, a decoder's."""

    config: ModelConfig
    frozen: Tree
    trained: Tree
    scale: float = 0.0  # of the adapter; 0: all weights are trained
    base: str = ""  # name of the frozen model

    @property
    def adapts(self) -> bool:
        """Whether an adapter is learnt, and not the weights."""
        return self.scale > 0

    def parameters(self, trained: Tree, frozen: Tree) -> Tree:
        """What `hidden` and `logits` take; made inside the compiled step."""
        if not self.adapts:
            return {**frozen, **_dense(trained)}
        layers = dict(frozen["layers"])
        for name, low in trained.items():
            layers[name] = Adapted(layers[name], low["a"], low["b"], self.scale)
        return {**frozen, "layers": layers}

    def adapter(self, trained: Tree) -> Adapter:
        """The trained adapter, as it is saved and served."""
        host = jax.device_get(trained)
        rank = next(iter(host.values()))["a"].shape[1]
        layers = tuple(
            {name: LowRank(low["a"][i], low["b"][i]) for name, low in host.items()}
            for i in range(self.config.layers)
        )
        norms = jax.device_get([self.frozen["layers"][name] for name in ("attn_norm", "mlp_norm")])
        last = jax.device_get(self.frozen["final_norm"])
        weights = named(self.config, [*chain.from_iterable(zip(*norms, strict=True)), last])
        return Adapter(rank=rank, alpha=self.scale * rank, base=self.base, layers=layers, weights=weights)

    def count(self) -> tuple[int, int]:
        """Numbers that are trained, numbers in all (scales of blocks aside)."""
        trained = sum(x.size for x in jax.tree.leaves(self.trained))
        held = {k: v for k, v in self.frozen.items() if k != "ropes"}
        leaves = jax.tree.leaves(held, is_leaf=lambda x: isinstance(x, Blocks))
        return trained, trained + sum((x.values if isinstance(x, Blocks) else x).size for x in leaves)


def fresh(config: ModelConfig, seed: int, length: int) -> Student:
    """A new model with a tied head, for windows up to `length`. Random weights by what each sums over, so that a signal
    keeps its size at any width (a fixed deviation of 0.02 is right for wide models only); what joins the residual
    stream is smaller by sqrt(2 L), as in GPT-2."""
    key = iter(jax.random.split(jax.random.key(seed), 16))
    c, L = config, config.layers
    q, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
    shapes = {
        "q": (q, c.dim), "k": (kv, c.dim), "v": (kv, c.dim), "o": (c.dim, q),
        "gate": (c.ffn, c.dim), "up": (c.ffn, c.dim), "down": (c.dim, c.ffn),
    }  # fmt: skip

    def normal(shape: tuple[int, ...], size: float = FRESH) -> Array:
        deviation = size / math.sqrt(shape[-1])
        return jax.random.normal(next(key), shape, jnp.float32) * jnp.float32(deviation)

    joins = FRESH / math.sqrt(2 * L)
    layers: Tree = {
        name: normal((L, *shape), joins if name in ("o", "down") else FRESH) for name, shape in shapes.items()
    }
    layers |= {name: jnp.ones((L, c.dim), jnp.float32) for name in ("attn_norm", "mlp_norm")}
    trained = {
        "embed": normal((c.vocab, c.dim)),
        "final_norm": jnp.ones(c.dim, jnp.float32),
        "layers": layers,
    }
    return Student(config, {"head": None, **_ropes(config, length)}, trained)


def whole(weights: Weights, length: int) -> Student:
    """All weights of a model, to be trained further in f32."""
    config, tree = _read(weights, length, _as_f32)
    frozen = {"ropes": tree.pop("ropes")}
    if tree["head"] is None:
        frozen["head"] = tree.pop("head")
    return Student(config, frozen, _bare(tree))


def adapted(
    weights: Weights,
    length: int,
    *,
    rank: int = 16,
    alpha: float | None = None,
    targets: Sequence[str] = MATRICES,
    seed: int = 0,
    keep: Keep = "int8",
    start: Adapter | None = None,
) -> Student:
    """A frozen model and an adapter to be trained beside it.

    Args:
        length: tokens of the longest window.
        rank, alpha: of the adapter; alpha is 2 * rank where it is not given.
        targets: the matrices that have one, by our names.
        keep: what the frozen matrices are kept as.
        start: an adapter to go on from, instead of a fresh one.
    """
    forms: Mapping[Keep, Callable[..., Any]] = {"int8": _as_blocks, "bf16": _as_bf16, "f32": _as_f32}
    config, frozen = _read(weights, length, forms[keep])
    alpha = alpha if alpha is not None else 2.0 * rank
    if start is not None:
        trained: Tree = {
            name: {
                "a": jnp.stack([jnp.asarray(layer[name].a_RK) for layer in start.layers]),
                "b": jnp.stack([jnp.asarray(layer[name].b_NR) for layer in start.layers]),
            }
            for name in start.layers[0]
        }
        return Student(config, frozen, trained, start.scale, weights.files.name)
    trained = {}
    for i, name in enumerate(targets):
        N, K = _shape(frozen["layers"][name])
        key = jax.random.fold_in(jax.random.key(seed), i)
        bound = 1 / math.sqrt(K)  # Kaiming's uniform bound with a = sqrt(5), PEFT's choice for A
        a = jax.random.uniform(key, (config.layers, rank, K), jnp.float32, -bound, bound)
        trained[name] = {"a": a, "b": jnp.zeros((config.layers, N, rank), jnp.float32)}
    return Student(config, frozen, trained, alpha / rank, weights.files.name)


def without_adapter(student: Student) -> Student:
    """The base alone: what an adapter is compared with."""
    return replace(student, trained={})


def hidden(
    config: ModelConfig,
    parameters: Tree,
    tokens_T: Array,
    batch: AttentionBatch,
    ops: TrainingOps,
    remember: Remember = "products",
) -> Array:
    """What the last layer leaves, f32 [T, D]."""
    x_TD = ops.embed(tokens_T, parameters["embed"], batch.rows)
    if config.embed_scale != 1.0:
        x_TD = x_TD * jnp.float32(config.embed_scale)
    ropes, rope_of = parameters["ropes"], _rope_of_layer(config)
    policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable if remember == "products" else None

    def layer(x_TD: Array, p: Tree, spec: AttentionSpec, rope: tuple[Array, Array]) -> Array:
        no_pool: Any = None
        x_TD, _ = Attention(p, spec, ops)(x_TD, no_pool, batch, rope)
        return FeedForward(p, config, ops)(x_TD, batch.rows)

    specs = [AttentionSpec.of(config, i) for i in range(config.layers)]
    if len(set(specs)) == len(set(rope_of)) == 1:

        def body(x_TD: Array, p: Tree) -> tuple[Array, None]:
            return layer(x_TD, p, specs[0], ropes[0]), None

        return lax.scan(jax.checkpoint(body, policy=policy), x_TD, parameters["layers"])[0]
    for i, spec in enumerate(specs):  # layers of several kinds

        def one(x_TD: Array, p: Tree, spec: AttentionSpec = spec, i: int = i) -> Array:
            return layer(x_TD, p, spec, ropes[rope_of[i]])

        p = jax.tree.map(lambda leaf, i=i: leaf[i], parameters["layers"])
        x_TD = jax.checkpoint(one, policy=policy)(x_TD, p)
    return x_TD


def logits(config: ModelConfig, parameters: Tree, x_WD: Array, ops: TrainingOps) -> Array:
    """Logits f32 [W, V] of hidden states."""
    h_WD = ops.rms_norm(x_WD, parameters["final_norm"], jnp.int32(len(x_WD)), eps=config.norm_eps)
    logits_WV = ops.linear(h_WD, (head_of(parameters),), jnp.int32(len(x_WD)))
    if config.logit_softcap:
        logits_WV = jnp.tanh(logits_WV / config.logit_softcap) * config.logit_softcap
    return logits_WV


def head_of(parameters: Tree) -> Any:
    """The output head: the embedding where it has none of its own."""
    return parameters["embed"] if parameters["head"] is None else parameters["head"]


def _read(weights: Weights, length: int, form: Callable[..., Any]) -> tuple[ModelConfig, Tree]:
    """A model's parameters with stacked layers."""
    reader = Reader(weights, form)
    tree = reader.parameters(length)
    layers: list[Tree] = tree.pop("layers")
    stacked: Tree = {}
    for name in list(layers[0]):  # a name at a time: never two copies of everything
        stacked[name] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(p.pop(name) for p in layers))
    tree["ropes"] = [tuple(jnp.asarray(t) for t in rope) for rope in tree["ropes"]]
    del tree["rope_of_layer"]  # static: the description says it again
    tree["final_norm"] = jnp.asarray(tree["final_norm"])
    return reader.config, {**tree, "layers": stacked}


def _ropes(config: ModelConfig, length: int) -> Tree:
    bases = dict.fromkeys(
        (config.layer(i).rope_theta, config.layer(i).rope_scaling) for i in range(config.layers)
    )
    tables = [rope_tables(theta, scaling, None, config.head_dim, length) for theta, scaling in bases]
    return {"ropes": [tuple(jnp.asarray(t) for t in rope) for rope in tables]}


def _rope_of_layer(config: ModelConfig) -> list[int]:
    """Which of the tables each layer uses, in the order that `Reader` makes them."""
    bases = [(config.layer(i).rope_theta, config.layer(i).rope_scaling) for i in range(config.layers)]
    kinds = list(dict.fromkeys(bases))
    return [kinds.index(b) for b in bases]


def _rows(tensor: Tensor, rows: Any) -> NDArray[np.float32]:
    values = tensor.dequantise()
    return values if rows is None else values[rows]


def _as_f32(tensor: Tensor, shape: tuple[int, int], rows: Any) -> Dense:
    return Dense(jnp.asarray(_rows(tensor, rows), jnp.float32))


def _as_bf16(tensor: Tensor, shape: tuple[int, int], rows: Any) -> Dense:
    return Dense(jnp.asarray(_rows(tensor, rows), jnp.bfloat16))


def _as_blocks(tensor: Tensor, shape: tuple[int, int], rows: Any) -> Any:
    """int8 where it loses nothing or next to nothing: a matrix kept in four to eight bits is; one that the file keeps
    in 16 bits or more stays bf16."""
    wide = tensor.type in ("F32", "F16", "BF16") or shape[1] % 32
    return _as_bf16(tensor, shape, rows) if wide else blocks_of(_rows(tensor, rows))


def _dense(tree: Tree) -> Tree:
    """Bare arrays of matrices as weights."""
    out: Tree = {k: v for k, v in tree.items() if k != "layers"}
    out["embed"] = Dense(tree["embed"])
    if "head" in tree:
        out["head"] = Dense(tree["head"])
    out["layers"] = {k: Dense(v) if k in MATRICES else v for k, v in tree["layers"].items()}
    return out


def _bare(tree: Tree) -> Tree:
    """The reverse of `_dense`."""
    return jax.tree.map(
        lambda w: w.data if isinstance(w, Dense) else w, tree, is_leaf=lambda w: isinstance(w, Dense)
    )


def _shape(stacked: Any) -> tuple[int, int]:
    """(N, K) of a stacked weight."""
    if isinstance(stacked, Blocks):
        return int(stacked.values.shape[1]), int(stacked.values.shape[2] * stacked.values.shape[3])
    return int(stacked.data.shape[1]), int(stacked.data.shape[2])
