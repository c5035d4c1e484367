"""Weight matrices in the kernels' layout, as bytes of the host.

What: turns the blocks of a GGUF tensor (or plain floats) into the layout that the kernels read (formats.h).
Invariant: nothing here needs JAX, and the work is C++ that holds no lock: a boot packs while it imports JAX. Bytes are
    aligned to 64, so that JAX takes them without a copy.
Interface: `pack_array(data, type, shape)` -> `PackedArray`; `FORMATS`, `SOURCES`, `NATIVE`.
"""

from __future__ import annotations

import contextlib
import mmap
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llmos.abi.errors import CorruptWeights, UnsupportedModel
from llmos.drivers.cpu.library import library

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HUGE, _BLOCK = 2 << 20, 32 << 20
FORMATS = ("q4", "q4m", "q4k", "q5", "q5m", "q5k", "q6", "q8", "bf16", "f32")  # in the order of formats.h
SOURCES = {  # GGUF's numbers
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14,
    "BF16": 30,
}  # fmt: skip
NATIVE = {
    "F32": "f32", "F16": "f32", "BF16": "bf16", "Q4_0": "q4", "Q4_1": "q4m", "Q4_K": "q4k", "Q5_0": "q5", "Q5_1": "q5m",
    "Q5_K": "q5k", "Q6_K": "q6", "Q8_0": "q8",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class PackedArray:
    """A weight matrix W[N, K] in the kernels' layout: uint8 [bytes]."""

    data: NDArray[np.uint8]
    format: str
    shape: tuple[int, int]


def pack_array(
    data: NDArray[np.uint8], type: str, shape: tuple[int, int], *, format: str | None = None
) -> PackedArray:
    """Packs one matrix.

    Args:
        data: the tensor's bytes as GGUF stores them (for F32 any float32 array will do).
        type: GGUF's name of the tensor type.
        shape: (N outputs, K inputs).
        format: None for the type's own; "f32" or "bf16" to dequantise; "q8" to quantise floats to blocks of 8 bits.

    Raises:
        UnsupportedModel: a tensor type that is not read.
        CorruptWeights: the bytes do not make whole blocks of that shape.
        ValueError: a type that cannot become that format.
    """
    if type not in SOURCES:
        raise UnsupportedModel(
            f"tensor type {type}", why="the CPU kernels do not read it", do="use another file"
        )
    n, k = shape
    name = format or NATIVE[type]
    if name not in FORMATS:
        raise ValueError(f"unknown packed format {name!r}, expected one of {FORMATS}")
    source = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    out = _memory.take(library().llmos_packed_bytes(FORMATS.index(name), n, k))
    code = library().llmos_pack(
        SOURCES[type], FORMATS.index(name), n, k, source.ctypes.data, source.nbytes, out.ctypes.data
    )
    if code == -3:
        raise ValueError(f"a {type} tensor cannot be packed as {name}")
    if code:
        raise CorruptWeights(
            f"a {type} tensor of shape {shape} cannot be packed",
            why=f"{source.nbytes} bytes or {k} columns do not make whole blocks",
            do="check the file's hash and fetch it again",
        )
    return PackedArray(out, name, (n, k))


class _HugePages:
    """Memory on 64-byte boundaries, untouched until written, in huge pages where the system has them: a step reads
    every weight once, so it would miss the translation cache on every small page. Small matrices share a block."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # a boot packs in several threads
        self._block, self._used = np.empty(0, np.uint8), 0

    def take(self, size: int) -> NDArray[np.uint8]:
        """`size` bytes."""
        if size >= _BLOCK:
            return self._fresh(size)[:size]
        with self._lock:
            begin = -(-self._used // 64) * 64
            if begin + size > len(self._block):
                self._block, begin = self._fresh(_BLOCK), 0
            self._used = begin + size
            return self._block[begin : self._used]

    @staticmethod
    def _fresh(size: int) -> NDArray[np.uint8]:
        mapped = mmap.mmap(-1, -(-size // _HUGE) * _HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with contextlib.suppress(OSError):  # a kernel without them
                mapped.madvise(mmap.MADV_HUGEPAGE)
        return np.frombuffer(mapped, np.uint8)


_memory = _HugePages()
