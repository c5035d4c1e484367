"""Packed weight matrices as JAX sees them.

What: `Packed`, the pytree that kernels take as a weight.
Invariant: the array in a `Packed` is its only data, aligned to 64 bytes so that JAX takes it without a copy; format and
    shape are static, so that they are part of a compiled step's identity.
Interface: `Packed`, `pack(data, type, shape)`; see `packing` for what packing is.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import jax

from llmos.drivers.cpu.packing import PackedArray, pack_array

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Packed:
    """A weight matrix W[N, K] in the kernels' layout."""

    data: jax.Array  # uint8 [bytes]
    format: str = dataclasses.field(metadata={"static": True})
    shape: tuple[int, int] = dataclasses.field(metadata={"static": True})

    @classmethod
    def of(cls, packed: PackedArray) -> Packed:
        """The same bytes, not copied."""
        return cls(jax.device_put(packed.data, may_alias=True), packed.format, packed.shape)


def pack(data: NDArray[np.uint8], type: str, shape: tuple[int, int], *, format: str | None = None) -> Packed:
    """`packing.pack_array`, for JAX."""
    return Packed.of(pack_array(data, type, shape, format=format))
