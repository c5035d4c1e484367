"""Weights with an adapter put into them.

What: a model's weights as they would be had the adapter always been part of them, for who wants to try it in a kernel
    of its own without serving it beside the model.
Invariant: the files are not touched; a matrix that the adapter does not change is the mapped one. What was kept in
    blocks is rounded to int8 blocks again, which is finer than an adapter's own noise but not bit-equal to serving it.
Interface: `merged(weights, adapter) -> Weights`.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from llmos.drivers.weights.tensor import Tensor
from llmos.kernel.model.config import ModelConfig
from llmos.kernel.model.names import tensor_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llmos.drivers.weights import Weights
    from llmos.drivers.weights.adapter import Adapter, LowRank

BLOCK = 32  # numbers that share a scale in Q8_0


def merged(weights: Weights, adapter: Adapter) -> Weights:
    """Raises AdapterMismatch where the adapter is for other weights."""
    config = ModelConfig.from_metadata(weights.source, weights.metadata, weights.tensors.keys())
    heads = {"q": config.heads, "k": config.kv_heads}
    q, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
    shapes = {
        "q": (q, config.dim), "k": (kv, config.dim), "v": (kv, config.dim), "o": (config.dim, q),
        "gate": (config.ffn, config.dim), "up": (config.ffn, config.dim), "down": (config.dim, config.ffn),
    }  # fmt: skip
    adapter.check(shapes, config.layers)
    tensors = dict(weights.tensors)
    for i, layer in enumerate(adapter.layers):
        for ours, change in layer.items():
            name = tensor_name(weights.source, config.family, ours, i)
            interleaved = config.interleaved_rope and ours in heads
            tensors[name] = _changed(tensors[name], change, adapter.scale, heads[ours] if interleaved else 0)
    made = replace(weights, tensors=tensors)
    made._identity = hashlib.sha256(f"{weights.identity} {adapter.version}".encode()).hexdigest()[:32]
    return made


def _changed(tensor: Tensor, change: LowRank, scale: float, heads: int) -> Tensor:
    """One matrix. `heads`: of rows that the file keeps with rotary pairs side by side; 0 where it does not."""
    delta = (change.b_NR @ change.a_RK) * np.float32(scale)
    if heads:  # half-split rows to adjacent pairs
        N, K = delta.shape
        delta = delta.reshape(heads, 2, N // heads // 2, K).swapaxes(1, 2).reshape(N, K)
    values = tensor.dequantise() + delta
    tensor.forget()
    if tensor.type in ("F32", "F16", "BF16") or values.shape[1] % BLOCK:
        return Tensor(tensor.name, tensor.shape, "F32", values.view(np.uint8).reshape(-1))
    return Tensor(tensor.name, tensor.shape, "Q8_0", _q8(values))


def _q8(values_NK: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Blocks of GGUF's Q8_0: an f16 scale, then 32 int8."""
    grouped = values_NK.reshape(-1, BLOCK)
    scales = np.abs(grouped).max(1, keepdims=True) / np.float32(127)
    inverse = np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales > 0)
    whole = np.rint(grouped * inverse).astype(np.int8)
    return np.concatenate([scales.astype(np.float16).view(np.uint8), whole.view(np.uint8)], axis=1).reshape(
        -1
    )
