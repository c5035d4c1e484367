"""A tensor as it lies in a file.

What: name, shape, type and a view of the mapped bytes.
Invariant: `data` is a read-only view of the file; making a `Tensor` copies nothing. Shapes are row-major,
    outermost axis first, whatever order the file writes them in.
Interface: `Tensor.dequantise()` gives float32; `forget()` lets go of the memory that reading it took.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass

import numpy as np

from llmos.abi.errors import UnsupportedModel
from llmos.drivers.weights.blocks import BY_NAME, Bytes, Floats, dequantise


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """`data` is flat uint8: rows of whole blocks of `type` (see `blocks`), in the order of `shape`."""

    name: str
    shape: tuple[int, ...]
    type: str
    data: Bytes

    def dequantise(self) -> Floats:
        """The values as a new float32 array of `shape`.

        Raises:
            UnsupportedModel: a type that is no weight's (an integer buffer beside the weights).
        """
        if self.type not in BY_NAME:
            raise UnsupportedModel(
                f"tensor {self.name!r} is {self.type}",
                why=f"what runs here is {', '.join(BY_NAME)}",
                do="use another file of the model",
            )
        count = int(np.prod(self.shape, dtype=np.int64))
        return dequantise(self.data, BY_NAME[self.type], count).reshape(self.shape)

    def forget(self) -> None:
        """Give the mapped pages back to the operating system; reading `data` again maps them again.

        Whoever converts a model tensor by tensor calls it behind each one, and never holds the file twice.
        """
        base: object = self.data
        while isinstance(base, np.ndarray | memoryview):
            base = base.base if isinstance(base, np.ndarray) else base.obj
        if not isinstance(base, mmap.mmap) or not hasattr(base, "madvise"):
            return
        start = self.data.ctypes.data - np.frombuffer(base, np.uint8).ctypes.data
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        size = start + self.data.nbytes - first
        if size > 0:
            base.madvise(mmap.MADV_DONTNEED, first, size)
