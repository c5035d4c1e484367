"""The tensor types of GGUF, and what their bytes mean.

What: sizes of every type that is run here, and `dequantise`, the slow plain reference that faster code is
    bound to by tests.
Invariant: one block's values depend on that block's bytes alone; the arithmetic is float32 and in the order
    that the format's definition states, so results equal the reference implementation bit for bit.
Interface: `TYPES[code]` -> BlockType; `BY_NAME`; `dequantise(data, type, count)` -> float32 [count].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_CHUNK = 1 << 20  # values expanded at a time: temporaries stay a few MiB whatever the tensor


@dataclass(frozen=True, slots=True)
class BlockType:
    """A storage type: `values` numbers are kept in `bytes` bytes."""

    name: str
    code: int
    values: int
    bytes: int


_ALL = (
    BlockType("F32", 0, 1, 4),
    BlockType("F16", 1, 1, 2),
    BlockType("Q4_0", 2, 32, 18),
    BlockType("Q4_1", 3, 32, 20),
    BlockType("Q5_0", 6, 32, 22),
    BlockType("Q5_1", 7, 32, 24),
    BlockType("Q8_0", 8, 32, 34),
    BlockType("Q4_K", 12, 256, 144),
    BlockType("Q5_K", 13, 256, 176),
    BlockType("Q6_K", 14, 256, 210),
    BlockType("BF16", 30, 1, 2),
)
TYPES = {t.code: t for t in _ALL}
BY_NAME = {t.name: t for t in _ALL}

# Names of types that exist in the format and are not run here, for messages.
OTHER_NAMES = {
    9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64",
    28: "F64", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip


def dequantise(data: Bytes, kind: BlockType, count: int) -> Floats:
    """Expand `count` values held in `data` (flat bytes, whole blocks) to a flat float32 array."""
    expand = _EXPAND[kind.name]
    blocks = data[: count // kind.values * kind.bytes].reshape(-1, kind.bytes)
    out = np.empty((len(blocks), kind.values), np.float32)
    step = max(1, _CHUNK // kind.values)
    for start in range(0, len(blocks), step):
        out[start : start + step] = expand(blocks[start : start + step])
    return out.reshape(-1)


def _half(block: Bytes, at: int) -> Floats:
    """The float16 at byte `at` of each block, as float32 [blocks, 1]."""
    return np.ascontiguousarray(block[:, at : at + 2]).view(np.float16).astype(np.float32)


def _nibbles(block: Bytes) -> Bytes:
    """[blocks, n] bytes -> [blocks, 2 n]: all low halves, then all high halves."""
    return np.concatenate((block & 15, block >> 4), axis=1)


def _fifth_bits(block: Bytes) -> Bytes:
    """[blocks, 4] bytes -> [blocks, 32]: each bit, worth 16."""
    return np.unpackbits(block, axis=1, bitorder="little") << np.uint8(4)


def _f32(b: Bytes) -> Floats:
    return np.ascontiguousarray(b).view(np.float32)


def _f16(b: Bytes) -> Floats:
    return np.ascontiguousarray(b).view(np.float16).astype(np.float32)


def _bf16(b: Bytes) -> Floats:
    return (np.ascontiguousarray(b).view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def _q4_0(b: Bytes) -> Floats:
    return _half(b, 0) * (_nibbles(b[:, 2:]).astype(np.int8) - np.int8(8)).astype(np.float32)


def _q4_1(b: Bytes) -> Floats:
    return _half(b, 0) * _nibbles(b[:, 4:]).astype(np.float32) + _half(b, 2)


def _q5_0(b: Bytes) -> Floats:
    q = _nibbles(b[:, 6:]) | _fifth_bits(b[:, 2:6])
    return _half(b, 0) * (q.astype(np.int8) - np.int8(16)).astype(np.float32)


def _q5_1(b: Bytes) -> Floats:
    q = _nibbles(b[:, 8:]) | _fifth_bits(b[:, 4:8])
    return _half(b, 0) * q.astype(np.float32) + _half(b, 2)


def _q8_0(b: Bytes) -> Floats:
    return _half(b, 0) * b[:, 2:].view(np.int8).astype(np.float32)


def _k_scales(packed: Bytes) -> tuple[Bytes, Bytes]:
    """Q4_K and Q5_K: 12 bytes hold eight 6-bit scales and eight 6-bit minima. -> two [blocks, 8]."""
    low, mid, high = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate((low & 63, (high & 15) | (low >> 6 << 4)), axis=1)
    minima = np.concatenate((mid & 63, (high >> 4) | (mid >> 6 << 4)), axis=1)
    return scales, minima


def _k_affine(b: Bytes, q: Bytes) -> Floats:
    """[blocks, 8, 32] quants with the scales and minima at the front of each 256-value block."""
    scales, minima = _k_scales(b[:, 4:16])
    factor = (_half(b, 0) * scales.astype(np.float32))[..., None]
    offset = (_half(b, 2) * minima.astype(np.float32))[..., None]
    return (factor * q.astype(np.float32) - offset).reshape(-1, 256)


def _k_nibbles(b: Bytes) -> Bytes:
    """[blocks, 128] bytes -> [blocks, 8, 32]: each 32 bytes hold 32 low halves, then 32 high halves."""
    quads = b.reshape(-1, 4, 1, 32)
    return np.concatenate((quads & 15, quads >> 4), axis=2).reshape(-1, 8, 32)


def _q4_k(b: Bytes) -> Floats:
    return _k_affine(b, _k_nibbles(b[:, 16:]))


def _q5_k(b: Bytes) -> Floats:
    bit = np.arange(8, dtype=np.uint8).reshape(1, 8, 1)
    fifth = (b[:, None, 16:48] >> bit & np.uint8(1)) << np.uint8(4)
    return _k_affine(b, _k_nibbles(b[:, 48:]) | fifth)


def _q6_k(b: Bytes) -> Floats:
    halves = b[:, :128].reshape(-1, 2, 1, 64)
    low = np.concatenate((halves & 15, halves >> 4), axis=2).reshape(-1, 8, 32)
    shift = np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1)
    high = (b[:, 128:192].reshape(-1, 2, 1, 32) >> shift & 3).reshape(-1, 8, 32)
    q = ((low | high << 4).astype(np.int8) - np.int8(32)).reshape(-1, 16, 16).astype(np.float32)
    scales = _half(b, 208) * b[:, 192:208].view(np.int8).astype(np.float32)
    return (scales[..., None] * q).reshape(-1, 256)


_EXPAND: dict[str, Callable[[Bytes], Floats]] = {
    "F32": _f32, "F16": _f16, "BF16": _bf16, "Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q5_1": _q5_1,
    "Q8_0": _q8_0, "Q4_K": _q4_k, "Q5_K": _q5_k, "Q6_K": _q6_k,
}  # fmt: skip
