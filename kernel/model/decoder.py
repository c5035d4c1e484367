"""The decoder: one for every family, described by a ModelConfig.

What: embedding, layers of (norm, attention, norm, gated feed-forward) around a residual stream, final norm,
    output head. Weights are opaque: packed blocks, bf16 or f32; only `ops` knows. A step may bring adapters: what they
    change of a product goes in with it.
Invariant: every operation works row by row, so a token's KV and logits depend on its own process alone; the
    pool is threaded through and updated in place.
Interface: `Decoder(config, parameters, ops)`; `decoder(step, pools) -> (logits, pools)`.

Dimension letters: T token, B process slot, D model, N query heads, K kv heads, G = N / K, H head dim, F ffn,
V vocab, P page, S slot in a page, L layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from llmos.kernel.model.attention import AttentionBatch, AttentionSpec
from llmos.kernel.model.config import ModelConfig
from llmos.kernel.model.lora import Adapted, Change

Weight = Any  # a pytree that the chosen ops understand: cpu.Packed or xla_ops.Dense
Parameters = Mapping[str, Any]
Changes = Mapping[
    str, Change
]  # by product: "qkv", "out", "gate_up", "down"; those that are not there stay as they are
NONE: Changes = {}


class Ops(Protocol):
    """The operations a device offers; see `xla_ops` for their meaning."""

    def embed(self, tokens_T: Array, table: Weight, rows: Array) -> Array: ...

    def rms_norm(self, x_TD: Array, weight_D: Array, rows: Array, *, eps: float) -> Array: ...

    def linear(
        self,
        x_TK: Array,
        weights: tuple[Weight, ...],
        rows: Array,
        *,
        norm: Array | None = None,
        eps: float = 0.0,
        bias: Array | None = None,
        residual: Array | None = None,
        activation: str | None = None,
        change: Change | None = None,
    ) -> Array: ...

    def attention(
        self,
        qkv_TC: Array,
        pool: Array,
        batch: AttentionBatch,
        spec: AttentionSpec,
        cos: Array,
        sin: Array,
        q_norm: Array | None = None,
        k_norm: Array | None = None,
    ) -> tuple[Array, Array]: ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class Step:
    """One step's input: T tokens of several processes, `rows` of them valid, logits wanted for `logit_rows`
    of the rows `logit_rows_B`."""

    tokens_T: Array
    attention: AttentionBatch
    logit_rows_B: Array
    logit_rows: Array
    adapted: Adapted | None = None


class Attention(nnx.Module):
    """Grouped-query attention over the page pool."""

    def __init__(self, p: Parameters, spec: AttentionSpec, ops: Ops) -> None:
        self.spec, self.ops = spec, ops
        self.norm = nnx.Param(p["attn_norm"])
        self.qkv = nnx.Param((p["q"], p["k"], p["v"]))
        self.out = nnx.Param((p["o"],))
        self.bias = _optional(p, "qkv_bias")
        self.q_norm, self.k_norm = _optional(p, "q_norm"), _optional(p, "k_norm")
        self.post_norm = _optional(p, "post_attn_norm")

    def __call__(
        self,
        x_TD: Array,
        pool: Array,
        batch: AttentionBatch,
        rope: tuple[Array, Array],
        changes: Changes = NONE,
    ) -> tuple[Array, Array]:
        ops, spec, rows = self.ops, self.spec, batch.rows
        qkv_TC = ops.linear(
            x_TD,
            self.qkv.get_value(),
            rows,
            norm=self.norm.get_value(),
            eps=spec.norm_eps,
            bias=_value(self.bias),
            change=changes.get("qkv"),
        )
        a_TC, pool = ops.attention(
            qkv_TC, pool, batch, spec, *rope, q_norm=_value(self.q_norm), k_norm=_value(self.k_norm)
        )
        out, change = self.out.get_value(), changes.get("out")
        if self.post_norm is None:
            return ops.linear(a_TC, out, rows, residual=x_TD, change=change), pool
        y_TD = ops.linear(a_TC, out, rows, change=change)
        return x_TD + ops.rms_norm(y_TD, self.post_norm.get_value(), rows, eps=spec.norm_eps), pool


class FeedForward(nnx.Module):
    """Gated feed-forward."""

    def __init__(self, p: Parameters, config: ModelConfig, ops: Ops) -> None:
        self.eps, self.activation, self.ops = config.norm_eps, config.activation, ops
        self.norm = nnx.Param(p["mlp_norm"])
        self.gate_up = nnx.Param((p["gate"], p["up"]))
        self.down = nnx.Param((p["down"],))
        self.post_norm = _optional(p, "post_mlp_norm")

    def __call__(self, x_TD: Array, rows: Array, changes: Changes = NONE) -> Array:
        ops = self.ops
        h_TF = ops.linear(
            x_TD,
            self.gate_up.get_value(),
            rows,
            norm=self.norm.get_value(),
            eps=self.eps,
            activation=self.activation,
            change=changes.get("gate_up"),
        )
        down, change = self.down.get_value(), changes.get("down")
        if self.post_norm is None:
            return ops.linear(h_TF, down, rows, residual=x_TD, change=change)
        y_TD = ops.linear(h_TF, down, rows, change=change)
        return x_TD + ops.rms_norm(y_TD, self.post_norm.get_value(), rows, eps=self.eps)


class Decoder(nnx.Module):
    """The whole model. `parameters` are as `load.load_parameters` names them."""

    def __init__(self, config: ModelConfig, parameters: Parameters, ops: Ops) -> None:
        self.config, self.ops = config, ops
        self.embedding = nnx.Param(parameters["embed"])
        layers = parameters["layers"]
        self.attention = nnx.List(
            [Attention(p, AttentionSpec.of(config, i), ops) for i, p in enumerate(layers)]
        )
        self.feed_forward = nnx.List([FeedForward(p, config, ops) for p in layers])
        self.final_norm = nnx.Param(parameters["final_norm"])
        # A tied head shares the embedding's array.
        self.head = None if parameters["head"] is None else nnx.Param((parameters["head"],))
        self.ropes = nnx.data([nnx.Param(rope) for rope in parameters["ropes"]])
        self.rope_of_layer = tuple(parameters["rope_of_layer"])

    def __call__(self, step: Step, pools: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
        """Returns logits f32 [B, V] for the rows asked for, and the pools, one a layer."""
        x_TD, pools = self.hidden(step.tokens_T, step.attention, pools, step.adapted)
        return self.logits(x_TD[step.logit_rows_B], step.logit_rows), pools

    def hidden(
        self,
        tokens_T: Array,
        batch: AttentionBatch,
        pools: tuple[Array, ...],
        adapted: Adapted | None = None,
    ) -> tuple[Array, tuple[Array, ...]]:
        """What the last layer leaves, f32 [T, D], and the pools."""
        config, ops, rows = self.config, self.ops, batch.rows
        x_TD = ops.embed(tokens_T, self.embedding.get_value(), rows)
        if config.embed_scale != 1.0:
            x_TD = x_TD * jnp.float32(config.embed_scale)
        written = []
        for i, pool in enumerate(pools):
            rope = self.ropes[self.rope_of_layer[i]].get_value()
            changes = NONE if adapted is None else adapted.layer(i)
            x_TD, pool = self.attention[i](x_TD, pool, batch, rope, changes)
            x_TD = self.feed_forward[i](x_TD, rows, changes)
            written.append(pool)
        return x_TD, tuple(written)

    def logits(self, x_BD: Array, rows: Array) -> Array:
        """Logits f32 [B, V] of hidden states, the first `rows` of which are valid."""
        config = self.config
        head = (self.embedding.get_value(),) if self.head is None else self.head.get_value()
        logits_BV = self.ops.linear(x_BD, head, rows, norm=self.final_norm.get_value(), eps=config.norm_eps)
        if config.logit_softcap:
            logits_BV = jnp.tanh(logits_BV / config.logit_softcap) * config.logit_softcap
        return logits_BV


def _optional(p: Parameters, name: str) -> nnx.Param[Any] | None:
    return nnx.Param(p[name]) if p.get(name) is not None else None


def _value(param: nnx.Param[Any] | None) -> Any:
    return None if param is None else param.get_value()
