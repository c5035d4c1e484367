"""Tensor names: what each format calls the decoder's parameters.

What: one map for GGUF, one for Hugging Face, both onto our own short names.
Interface: `tensor_name(source, family, ours, layer)` gives the file's name of our parameter.
"""

from __future__ import annotations

_GGUF = {
    "embed": "token_embd.weight",
    "final_norm": "output_norm.weight",
    "head": "output.weight",
    "rope_factors": "rope_freqs.weight",
    "attn_norm": "attn_norm.weight",
    "q": "attn_q.weight",
    "k": "attn_k.weight",
    "v": "attn_v.weight",
    "o": "attn_output.weight",
    "q_bias": "attn_q.bias",
    "k_bias": "attn_k.bias",
    "v_bias": "attn_v.bias",
    "q_norm": "attn_q_norm.weight",
    "k_norm": "attn_k_norm.weight",
    "post_attn_norm": "post_attention_norm.weight",
    "mlp_norm": "ffn_norm.weight",
    "gate": "ffn_gate.weight",
    "up": "ffn_up.weight",
    "down": "ffn_down.weight",
    "post_mlp_norm": "post_ffw_norm.weight",
}

_HF = {
    "embed": "model.embed_tokens.weight",
    "final_norm": "model.norm.weight",
    "head": "lm_head.weight",
    "rope_factors": "",  # Hugging Face writes them as a formula in config.json
    "attn_norm": "input_layernorm.weight",
    "q": "self_attn.q_proj.weight",
    "k": "self_attn.k_proj.weight",
    "v": "self_attn.v_proj.weight",
    "o": "self_attn.o_proj.weight",
    "q_bias": "self_attn.q_proj.bias",
    "k_bias": "self_attn.k_proj.bias",
    "v_bias": "self_attn.v_proj.bias",
    "q_norm": "self_attn.q_norm.weight",
    "k_norm": "self_attn.k_norm.weight",
    "post_attn_norm": "",
    "mlp_norm": "post_attention_layernorm.weight",  # named for where it stands: after attention
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
    "post_mlp_norm": "",
}

_HF_GEMMA = _HF | {
    "post_attn_norm": "post_attention_layernorm.weight",
    "mlp_norm": "pre_feedforward_layernorm.weight",
    "post_mlp_norm": "post_feedforward_layernorm.weight",
}


def tensor_name(source: str, family: str, ours: str, layer: int | None = None) -> str:
    """The file's name of our parameter `ours`, in layer `layer` or outside all; "" where there is none."""
    names = _GGUF if source == "gguf" else _HF_GEMMA if family.startswith("gemma3") else _HF
    name = names[ours]
    if layer is not None and name:
        name = f"blk.{layer}.{name}" if source == "gguf" else f"model.layers.{layer}.{name}"
    if source == "hf" and family == "gemma3" and name:  # the text half of a multimodal checkpoint
        name = f"language_model.{name}"
    return name
