"""Dequantisation equals the reference implementation (the `gguf` package) bit for bit."""

import gguf
import numpy as np
import pytest
from gguf import quants

from llmos.drivers.weights.blocks import BY_NAME, TYPES, dequantise


@pytest.mark.parametrize("kind", sorted(set(BY_NAME) - {"F32"}))
def test_random_blocks_equal_the_reference(kind: str) -> None:
    t = BY_NAME[kind]
    rows = 4000 if t.values > 1 else 8000
    data = np.random.default_rng(1).integers(0, 256, (rows, t.bytes), np.uint8)
    with np.errstate(all="ignore"):  # random halves hold NaN and infinity
        ours = dequantise(data.reshape(-1), t, rows * t.values)
        theirs = quants.dequantize(data, gguf.GGMLQuantizationType[kind]).reshape(-1)
    assert np.array_equal(ours.view(np.uint32), theirs.view(np.uint32))


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "F16", "BF16"])
def test_quantised_values_come_back(kind: str) -> None:
    values = np.random.default_rng(2).standard_normal((64, 256)).astype(np.float32)
    data = quants.quantize(values, gguf.GGMLQuantizationType[kind]).view(np.uint8).reshape(-1)
    error = np.abs(dequantise(data, BY_NAME[kind], values.size).reshape(values.shape) - values).max()
    assert error < {"Q8_0": 0.03, "F16": 0.003, "BF16": 0.03}.get(kind, 0.45)


def test_float32_is_taken_as_it_is() -> None:
    values = np.random.default_rng(3).standard_normal(1000).astype(np.float32)
    assert np.array_equal(dequantise(values.view(np.uint8), BY_NAME["F32"], 1000), values)


def test_more_values_than_one_chunk() -> None:
    t = BY_NAME["Q8_0"]
    data = np.random.default_rng(4).integers(0, 256, ((3 << 20) // 32 + 5) * t.bytes, np.uint8)
    data.reshape(-1, t.bytes)[:, 1] &= 0x3B  # finite scales
    count = data.size // t.bytes * 32
    ours = dequantise(data, t, count)
    theirs = quants.dequantize(data.reshape(-1, t.bytes), gguf.GGMLQuantizationType.Q8_0).reshape(-1)
    assert np.array_equal(ours, theirs)


def test_sizes_are_the_formats() -> None:
    for code, t in TYPES.items():
        assert gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(code)] == (t.values, t.bytes)
        assert gguf.GGMLQuantizationType(code).name == t.name
