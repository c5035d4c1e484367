"""Tiny random checkpoints of every family, with the logits that `transformers` computes from them.

What: one Hugging Face folder a family under tests/kernel/model/fixtures/, each with `reference.npz`
    (`tokens` int32 [N, T] and `logits` float32 [N, T, V]), small enough to be committed.
Invariant: weights are a function of the family's name alone, rounded to bfloat16; logits come from
    `transformers` in float32 with eager attention. Run again with the same versions, the files are the same.
Interface: `python benchmarks/reference/transformers_fixture.py FOLDER` in an environment of its own that has
    torch, transformers and safetensors (the project does not depend on them); the versions are recorded.

The scales are chosen so that a mistake shows: attention is sharp, norm weights and biases are far from
neutral, sequences are longer than every sliding window, and rotary scaling touches low and high bands.
"""

from __future__ import annotations

import functools
import json
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from transformers.models.gemma3 import modeling_gemma3

SEQUENCES, TOKENS = 2, 56  # every sliding window below is shorter

COMMON: dict[str, Any] = dict(
    vocab_size=128, hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=256, bos_token_id=None, eos_token_id=None, pad_token_id=None,
)  # fmt: skip

# family -> (configuration class, model class, configuration, bytes a shard or None for one file)
CASES: dict[str, tuple[str, str, dict[str, Any], int | None]] = {
    "llama": (  # scaled rotary bands, separate head, sharded files
        "LlamaConfig",
        "LlamaForCausalLM",
        COMMON
        | dict(
            tie_word_embeddings=False,
            rms_norm_eps=1e-5,
            rope_parameters=dict(
                rope_type="llama3",
                rope_theta=10_000.0,
                factor=8.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=32,
            ),
        ),
        100_000,
    ),  # fmt: skip
    "mistral": (  # sliding window, heads wider than hidden / heads, a vocabulary that no block divides
        "MistralConfig",
        "MistralForCausalLM",
        COMMON
        | dict(
            vocab_size=131,
            head_dim=32,
            intermediate_size=64,
            sliding_window=16,
            tie_word_embeddings=False,
            rms_norm_eps=1e-5,
            rope_parameters=dict(rope_type="default", rope_theta=1_000_000.0),
        ),
        None,
    ),  # fmt: skip
    "qwen2": (  # biases on q, k, v; tied head
        "Qwen2Config",
        "Qwen2ForCausalLM",
        COMMON
        | dict(
            tie_word_embeddings=True,
            rms_norm_eps=1e-6,
            use_sliding_window=False,
            sliding_window=None,
            rope_parameters=dict(rope_type="default", rope_theta=1_000_000.0),
        ),
        None,
    ),  # fmt: skip
    "qwen3": (  # norms on q and k, heads wider than hidden / heads, no biases, grouped four to one
        "Qwen3Config",
        "Qwen3ForCausalLM",
        COMMON
        | dict(
            head_dim=32,
            num_key_value_heads=1,
            intermediate_size=64,
            tie_word_embeddings=True,
            rms_norm_eps=1e-6,
            rope_parameters=dict(rope_type="default", rope_theta=1_000_000.0),
        ),
        None,
    ),  # fmt: skip
    "gemma3": (  # five sliding layers to one global, two rotary bases, soft caps, four norms a layer
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        COMMON
        | dict(
            num_hidden_layers=7,
            head_dim=16,
            sliding_window=12,
            query_pre_attn_scalar=24,
            intermediate_size=32,
            tie_word_embeddings=True,
            rms_norm_eps=1e-6,
            final_logit_softcapping=6.0,
            attn_logit_softcapping=4.0,
            rope_parameters=dict(
                full_attention=dict(rope_type="linear", factor=4.0, rope_theta=1_000_000.0),
                sliding_attention=dict(rope_type="default", rope_theta=10_000.0),
            ),
        ),
        None,
    ),  # fmt: skip
}


def randomise(model: torch.nn.Module, family: str) -> None:
    """Fill every parameter from the family's own seed, rounded to bfloat16."""
    generator = torch.Generator().manual_seed(zlib.crc32(family.encode()))
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        if "norm" in name:
            centre = 0.0 if family == "gemma3" else 1.0  # Gemma stores weight - 1
            value = centre + 0.3 * noise
        elif name.endswith("bias"):
            value = 0.5 * noise
        elif "embed_tokens" in name:
            value = noise / parameter.shape[1] ** 0.5 if family == "gemma3" else noise / 4
        else:
            sharp = 2.0 if ("q_proj" in name or "k_proj" in name) else 1.0
            value = sharp * noise / parameter.shape[1] ** 0.5
        parameter.data = value.to(torch.bfloat16).to(torch.float32)


def save(model: torch.nn.Module, folder: Path, shard_bytes: int | None) -> None:
    """Write the weights as bfloat16 safetensors: one file, or shards with an index."""
    tied = model.config.tie_word_embeddings
    tensors = {
        name: parameter.data.to(torch.bfloat16).contiguous()
        for name, parameter in model.named_parameters()
        if not (tied and name == "lm_head.weight")
    }
    if shard_bytes is None:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    shards: list[dict[str, torch.Tensor]] = [{}]
    for name, tensor in tensors.items():
        if shards[-1] and sum(t.numel() * 2 for t in shards[-1].values()) + tensor.numel() * 2 > shard_bytes:
            shards.append({})
        shards[-1][name] = tensor
    weight_map = {}
    for i, shard in enumerate(shards, 1):
        file = f"model-{i:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shard, file)
    total = sum(t.numel() * 2 for t in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def make(family: str, root: Path) -> None:
    config_class, model_class, settings, shard_bytes = CASES[family]
    config = getattr(transformers, config_class)(**settings)
    config._attn_implementation = "eager"
    model = getattr(transformers, model_class)(config).float().eval()
    randomise(model, family)
    model.tie_weights()
    folder = root / family
    folder.mkdir(parents=True, exist_ok=True)
    save(model, folder, shard_bytes)

    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, config.vocab_size, (SEQUENCES, TOKENS), generator=generator)
    with torch.inference_mode():
        logits = model(tokens, use_cache=False).logits
    np.savez(folder / "reference.npz", tokens=tokens.numpy().astype(np.int32), logits=logits.float().numpy())

    text = config.to_dict()
    text["architectures"], text["dtype"] = [model_class], "bfloat16"
    noise = ("id2label", "label2id", "chunk_size_feed_forward", "output_attentions", "output_hidden_states")
    kept = {k: v for k, v in text.items() if not k.startswith("_") and v is not None and k not in noise}
    (folder / "config.json").write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    for file in folder.iterdir():
        file.chmod(0o644)
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(
        f"{family:8} {size / 1e3:7.1f} kB  logits std {logits.std():.2f}, absolute max {logits.abs().max():.2f}"
    )


def main() -> None:
    root = Path(sys.argv[1])
    # transformers carries Gemma's cap on attention scores in this function but, in the versions we know,
    # does not pass it on from the configuration; the reference is its own arithmetic with the cap given.
    cap = CASES["gemma3"][2]["attn_logit_softcapping"]
    modeling_gemma3.eager_attention_forward = functools.partial(
        modeling_gemma3.eager_attention_forward, softcap=cap
    )
    torch.set_num_threads(1)
    for family in CASES:
        make(family, root)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    (root / "versions.json").write_text(json.dumps(versions) + "\n")


if __name__ == "__main__":
    main()
