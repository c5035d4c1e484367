"""The description of a decoder: everything that tells one family from another.

What: `ModelConfig`, read from a GGUF header or a Hugging Face `config.json`.
Invariant: the decoder branches on these fields only, never on a family's name.
Interface: `ModelConfig.from_metadata(source, metadata, tensors)`; `config.layer(i)` for what differs by layer.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llmos.abi.errors import CorruptWeights, UnsupportedModel

Activation = Literal["silu", "gelu_tanh"]
Metadata = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How rotary frequencies are stretched; `kind` "linear" divides them all, "llama3" only the slow ones.

    Source of "llama3": Meta's Llama 3.1 reference code (wavelength bands between two factors).
    """

    kind: Literal["linear", "llama3"]
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192


@dataclass(frozen=True, slots=True)
class LayerConfig:
    """What may differ from one layer to the next. `window` 0 means full attention."""

    window: int
    rope_theta: float
    rope_scaling: RopeScaling | None


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A decoder-only transformer with RMSNorm, rotary positions, grouped queries and a gated feed-forward."""

    family: str
    vocab: int  # V
    layers: int  # L
    dim: int  # D
    heads: int  # N = K * G
    kv_heads: int  # K
    head_dim: int  # H
    ffn: int  # F
    norm_eps: float
    rope_theta: float
    context: int
    rope_scaling: RopeScaling | None = None
    qk_norm: bool = False
    post_norms: bool = False  # a second norm after attention and feed-forward, before the residual (Gemma)
    norm_offset: float = 0.0  # added to norm weights as stored (Gemma's HF files hold w - 1)
    activation: Activation = "silu"
    embed_scale: float = 1.0
    query_scale: float = 0.0  # 0: 1 / sqrt(head_dim)
    attention_softcap: float = 0.0
    logit_softcap: float = 0.0
    sliding_window: int = 0
    global_every: int = 0  # with a sliding window: every n-th layer is global; 0: none is
    local_rope_theta: float = 0.0  # theta of sliding layers where it differs (Gemma 3)
    interleaved_rope: bool = False  # q and k rows are stored for adjacent-pair rotation (llama GGUF files)

    def __post_init__(self) -> None:
        sizes = dict(
            vocab=self.vocab, layers=self.layers, dim=self.dim, heads=self.heads, kv_heads=self.kv_heads,
            head_dim=self.head_dim, ffn=self.ffn,
        )  # fmt: skip
        for name, size in sizes.items():
            if not 0 < size < 1 << 24:
                raise CorruptWeights(f"the model's {name} is {size}", why="the header is damaged or hostile")
        if self.heads % self.kv_heads or self.head_dim % 2:
            raise CorruptWeights(
                f"{self.heads} heads over {self.kv_heads} kv heads of {self.head_dim} dimensions",
                why="query heads must divide evenly among kv heads, and rotary pairs need an even dimension",
            )
        floats = (self.norm_eps, self.rope_theta, self.embed_scale, self.query_scale)
        if not all(math.isfinite(f) for f in floats) or self.norm_eps < 0 or self.rope_theta <= 0:
            raise CorruptWeights(f"norm epsilon or rope base out of range: {floats}")

    @property
    def scale(self) -> float:
        """The factor on q · k."""
        return self.query_scale or self.head_dim**-0.5

    def layer(self, i: int) -> LayerConfig:
        """Window and rotary base of layer `i`, 0-based."""
        is_global = self.sliding_window == 0 or (self.global_every > 0 and (i + 1) % self.global_every == 0)
        if is_global:
            return LayerConfig(0, self.rope_theta, self.rope_scaling)
        if self.local_rope_theta:
            return LayerConfig(self.sliding_window, self.local_rope_theta, None)
        return LayerConfig(self.sliding_window, self.rope_theta, self.rope_scaling)

    @classmethod
    def from_metadata(cls, source: str, metadata: Metadata, tensors: Collection[str]) -> ModelConfig:
        """Read a config.

        Args:
            source: "gguf" or "hf".
            metadata: the GGUF key-values, or the parsed `config.json`.
            tensors: names of the tensors present (some flags follow from them).

        Raises:
            UnsupportedModel: an architecture or a rope scaling that the decoder does not have.
            CorruptWeights: a key is missing or out of range.
        """
        read = _from_gguf if source == "gguf" else _from_hf
        try:
            return read(metadata, tensors)
        except KeyError as e:
            raise CorruptWeights(f"the model's description lacks {e.args[0]!r}") from e
        except (TypeError, ValueError) as e:
            raise CorruptWeights("the model's description has a value of the wrong kind", why=str(e)) from e


GGUF_FAMILIES = ("llama", "qwen2", "qwen3", "gemma3")
HF_FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma3_text", "gemma3")


def _unsupported(family: object, known: Collection[str]) -> UnsupportedModel:
    return UnsupportedModel(
        f"architecture {family!r} is not supported",
        why=f"the decoder covers {', '.join(known)}",
        do="choose another model: `llmos models list`",
    )


def _from_gguf(meta: Metadata, tensors: Collection[str]) -> ModelConfig:
    family = meta["general.architecture"]
    if family not in GGUF_FAMILIES:
        raise _unsupported(family, GGUF_FAMILIES)

    def get(key: str, default: Any = None) -> Any:
        value = meta.get(f"{family}.{key}", default)
        if value is None:
            raise KeyError(f"{family}.{key}")
        return value

    heads, dim = int(get("attention.head_count")), int(get("embedding_length"))
    vocab = get("vocab_size", 0) or len(meta["tokenizer.ggml.tokens"])
    scaling = None
    if meta.get(f"{family}.rope.scaling.type", "none") not in ("none", "linear"):
        raise UnsupportedModel(f"rope scaling {meta[f'{family}.rope.scaling.type']!r} is not supported")
    if (factor := float(get("rope.scaling.factor", 0.0))) > 0:
        scaling = RopeScaling("linear", factor)
    gemma = family == "gemma3"
    return ModelConfig(
        family=family,
        vocab=int(vocab),
        layers=int(get("block_count")),
        dim=dim,
        heads=heads,
        kv_heads=int(get("attention.head_count_kv", heads)),
        head_dim=int(get("attention.key_length", dim // max(heads, 1))),
        ffn=int(get("feed_forward_length")),
        norm_eps=float(get("attention.layer_norm_rms_epsilon")),
        rope_theta=float(get("rope.freq_base", 1e6 if gemma else 1e4)),
        context=int(get("context_length")),
        rope_scaling=scaling,
        qk_norm="blk.0.attn_q_norm.weight" in tensors,
        post_norms="blk.0.post_attention_norm.weight" in tensors,
        activation="gelu_tanh" if gemma else "silu",
        embed_scale=dim**0.5 if gemma else 1.0,
        logit_softcap=float(get("final_logit_softcapping", 0.0)),
        attention_softcap=float(get("attn_logit_softcapping", 0.0)),
        sliding_window=int(get("attention.sliding_window", 0)),
        global_every=6 if gemma else 0,
        local_rope_theta=1e4 if gemma else 0.0,
        interleaved_rope=family == "llama",
    )


def _rope_scaling(raw: Any) -> RopeScaling | None:
    if not raw:
        return None
    kind = raw.get("rope_type", raw.get("type", "default"))
    if kind == "default":
        return None
    if kind == "linear":
        return RopeScaling("linear", float(raw["factor"]))
    if kind == "llama3":
        return RopeScaling(
            "llama3", float(raw["factor"]), float(raw["low_freq_factor"]), float(raw["high_freq_factor"]),
            int(raw["original_max_position_embeddings"]),
        )  # fmt: skip
    raise UnsupportedModel(f"rope scaling {kind!r} is not supported", why="only linear and llama3 are")


# What transformers takes for granted; published descriptions leave these out.
_GEMMA3_DEFAULTS: dict[str, Any] = dict(
    vocab_size=262_208, num_attention_heads=8, num_key_value_heads=4, head_dim=256, rms_norm_eps=1e-6,
    max_position_embeddings=131_072, query_pre_attn_scalar=256, sliding_window=4096, sliding_window_pattern=6,
)  # fmt: skip


def _from_hf(config: Metadata, tensors: Collection[str]) -> ModelConfig:
    family = config["model_type"]
    if family not in HF_FAMILIES:
        raise _unsupported(family, HF_FAMILIES)
    if "text_config" in config:
        config = config["text_config"]
    gemma = family.startswith("gemma3")
    if gemma:
        config = {**_GEMMA3_DEFAULTS, **config}
    heads, dim = int(config["num_attention_heads"]), int(config["hidden_size"])
    rope: dict[str, Any] = config.get("rope_parameters") or {}
    # transformers >= 5 nests rotary settings, for Gemma 3 by layer type; older files keep them flat.
    full: Metadata = rope.get("full_attention") or rope
    local: Metadata = rope.get("sliding_attention") or {}
    use_window = bool(config.get("use_sliding_window", family in ("mistral", "gemma3_text", "gemma3")))
    window = int(config.get("sliding_window") or 0) if use_window else 0
    return ModelConfig(
        family=family,
        vocab=int(config["vocab_size"]),
        layers=int(config["num_hidden_layers"]),
        dim=dim,
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or dim // max(heads, 1)),
        ffn=int(config["intermediate_size"]),
        norm_eps=float(config["rms_norm_eps"]),
        rope_theta=float(full.get("rope_theta") or config.get("rope_theta") or (1e6 if gemma else 1e4)),
        context=int(config["max_position_embeddings"]),
        rope_scaling=_rope_scaling(config.get("rope_scaling") or full),
        qk_norm=any(name.endswith("layers.0.self_attn.q_norm.weight") for name in tensors),
        post_norms=gemma,
        norm_offset=1.0 if gemma else 0.0,
        activation="gelu_tanh" if gemma else "silu",
        embed_scale=dim**0.5 if gemma else 1.0,
        query_scale=float(config.get("query_pre_attn_scalar", 0.0)) ** -0.5
        if config.get("query_pre_attn_scalar")
        else 0.0,
        logit_softcap=float(config.get("final_logit_softcapping") or 0.0),
        attention_softcap=float(config.get("attn_logit_softcapping") or 0.0),
        sliding_window=window,
        global_every=_global_every(config) if window else 0,
        local_rope_theta=float(local.get("rope_theta") or config.get("rope_local_base_freq") or 1e4)
        if gemma
        else 0.0,
    )


def _global_every(config: Metadata) -> int:
    """The period of global layers, from `layer_types` or Gemma's older `sliding_window_pattern`."""
    types = config.get("layer_types")
    if types is None:
        return int(config.get("sliding_window_pattern") or 0)
    period = types.index("full_attention") + 1 if "full_attention" in types else 0
    full = {i for i in range(len(types)) if period and (i + 1) % period == 0}
    if {i for i, kind in enumerate(types) if kind == "full_attention"} != full:
        raise UnsupportedModel("layer types without a period are not supported", why=f"found {types}")
    return period
