"""A tiny model with adapters that PEFT made, and the logits that `peft` and `transformers` compute from them.

What: fixtures/peft/: `base` (a Hugging Face folder), `plain` and `patterned` (adapters as PEFT saves them; the second
    with rsLoRA and ranks and strengths of its own for some modules), `reference.npz` (`tokens` int32 [N, T]; `base`,
    `plain`, `patterned` float32 [N, T, V]).
Invariant: all is a function of the seeds; logits are float32 with eager attention. What `write_adapter` writes is
    loaded by PEFT here and must give the same.
Interface: `PYTHONPATH=. python tests/kernel/model/make_peft_fixture.py FOLDER` in an environment of its own that has
    torch, transformers, peft and numpy (the project does not depend on them); the versions are recorded.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
import transformers
from safetensors.torch import save_file

SEQUENCES, TOKENS = 2, 24
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTERS: dict[str, dict[str, Any]] = {
    "plain": dict(r=4, lora_alpha=8, target_modules=MODULES),
    "patterned": dict(
        r=2, lora_alpha=3, use_rslora=True, target_modules=["q_proj", "v_proj", "down_proj"],
        rank_pattern={"layers.1.self_attn.q_proj": 5}, alpha_pattern={"down_proj": 1}, layers_to_transform=[1],
    ),
}  # fmt: skip


def fill(model: torch.nn.Module, seed: int, only: str = "") -> None:
    """Random values for the parameters whose names hold `only`, large enough for a mistake to show."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        if only in name:
            scale = 0.1 if parameter.ndim == 1 else 1.5 / parameter.shape[-1] ** 0.5
            mean = 1.0 if name.endswith("norm.weight") else 0.0
            parameter.data = mean + scale * torch.randn(parameter.shape, generator=generator)


def logits(model: Any, tokens: torch.Tensor) -> np.ndarray:
    """float32 [N, T, V]."""
    with torch.no_grad():
        found: np.ndarray = model(tokens).logits.float().numpy()
    return found


def main(out: Path) -> None:
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False, attn_implementation="eager",
        bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    tokens = torch.randint(0, 64, (SEQUENCES, TOKENS), generator=torch.Generator().manual_seed(0))

    def base() -> Any:
        model = transformers.LlamaForCausalLM(config).float().eval()
        fill(model, 1)
        return model

    (out / "base").mkdir(parents=True, exist_ok=True)
    model = base()
    save_file(
        {name: p.contiguous() for name, p in model.state_dict().items() if "inv_freq" not in name},
        out / "base" / "model.safetensors", metadata={"format": "pt"},
    )  # fmt: skip
    described = config.to_dict() | {"architectures": ["LlamaForCausalLM"], "dtype": "float32"}
    (out / "base" / "config.json").write_text(json.dumps(described, indent=2, sort_keys=True, default=str))
    found = {"tokens": tokens.numpy().astype(np.int32), "base": logits(model, tokens)}
    for seed, (name, settings) in enumerate(ADAPTERS.items(), 2):
        adapted = peft.get_peft_model(base(), peft.LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
        fill(adapted, seed, "lora_")
        adapted.base_model.model.config._name_or_path = "tiny"
        adapted.peft_config["default"].base_model_name_or_path = "tiny"
        adapted.save_pretrained(out / name)
        (out / name / "README.md").unlink(missing_ok=True)
        found[name] = logits(adapted, tokens)
        check_ours(out / name, base(), tokens, found[name])
    np.savez_compressed(out / "reference.npz", **found)
    versions = {module.__name__: module.__version__ for module in (torch, transformers, peft)}
    (out / "versions.json").write_text(json.dumps(versions, indent=2) + "\n")


def check_ours(folder: Path, model: Any, tokens: torch.Tensor, want: np.ndarray) -> None:
    """What we write of an adapter is the same adapter to PEFT."""
    import tempfile

    from llmos.drivers.weights.adapter import read_adapter, write_adapter

    with tempfile.TemporaryDirectory() as scratch:
        ours = write_adapter(read_adapter(folder), Path(scratch) / "ours")
        again = peft.PeftModel.from_pretrained(model, ours).eval()
        np.testing.assert_allclose(logits(again, tokens), want, atol=1e-4)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
