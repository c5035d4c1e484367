"""Random tensors in GGUF's block formats, for the tests beside this file."""

from __future__ import annotations

import gguf
import numpy as np
from gguf import GGMLQuantizationType, quants
from numpy.typing import NDArray

TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K")
QUANTISED = TYPES[3:]


def random_tensor(rng: np.random.Generator, type: str, n: int, k: int) -> NDArray[np.uint8]:
    """The bytes [n, row bytes] of a tensor whose weights are of about the size of a model's."""
    if type in ("F32", "F16", "BF16"):
        values = (rng.standard_normal((n, k)) * 0.05).astype(np.float32)
        if type == "F16":
            return values.astype(np.float16).view(np.uint8)
        if type == "BF16":
            return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
        return values.view(np.uint8)
    elements, size = gguf.GGML_QUANT_SIZES[GGMLQuantizationType[type]]
    blocks = rng.integers(0, 256, (n, k // elements, size), dtype=np.uint8)
    scales = (208,) if type == "Q6_K" else (0, 2) if type in ("Q4_1", "Q5_1", "Q4_K", "Q5_K") else (0,)
    for at in scales:
        value = rng.uniform(-0.01, 0.01, (n, k // elements, 1)).astype(np.float16)
        blocks[:, :, at : at + 2] = value.view(np.uint8).reshape(n, k // elements, 2)
    return blocks.reshape(n, -1)


def dense(raw: NDArray[np.uint8], type: str) -> NDArray[np.float32]:
    """The weights by the `gguf` package's own decoder."""
    if type == "F32":
        return raw.view(np.float32)
    if type == "F16":
        return raw.view(np.float16).astype(np.float32)
    return np.asarray(quants.dequantize(raw, GGMLQuantizationType[type]), np.float32)
