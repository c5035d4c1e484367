"""CPU kernels: block-quantised products, paged attention, norms, embedding rows and sampling, in C++ through XLA's FFI.

What: the public face of the floor's kernels; the C++ beside this file is compiled by `build.py`.
Invariant: importing this package imports no jax and loads nothing; every op has a twin of the same signature in
    `reference.py` that defines what it means.
Interface: available, isa, set_threads, tune_allocator, register (library.py); Packed, pack (packed.py); linear,
    low_rank, attention, rms_norm, embed, sample (ops.py).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmos.drivers.cpu.library import available, isa, register, set_threads, tune_allocator
    from llmos.drivers.cpu.ops import attention, embed, empty, linear, low_rank, rms_norm, sample
    from llmos.drivers.cpu.packed import Packed, pack

_HOME = {
    "available": "library",
    "isa": "library",
    "register": "library",
    "set_threads": "library",
    "tune_allocator": "library",
    "Packed": "packed",
    "pack": "packed",
    "attention": "ops",
    "embed": "ops",
    "empty": "ops",
    "linear": "ops",
    "low_rank": "ops",
    "rms_norm": "ops",
    "sample": "ops",
}

__all__ = [
    "Packed",
    "attention",
    "available",
    "embed",
    "empty",
    "isa",
    "linear",
    "low_rank",
    "pack",
    "register",
    "rms_norm",
    "sample",
    "set_threads",
    "tune_allocator",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
