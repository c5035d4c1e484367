"""The compiled library: found, loaded and registered with XLA once.

What: `ctypes` around the shared library that `build.py` makes.
Invariant: a machine without the library (no compiler at install time, another system) is not an error: `available()` is
    False and the log says why once. Nothing is loaded before the first call.
Interface: available, isa, set_threads, tune_allocator, register; `library()` for this package's other modules.
"""

from __future__ import annotations

import ctypes
import functools
import logging

from llmos.abi.errors import EngineError
from llmos.drivers.cpu.build import library_path

TARGETS = ("linear", "low_rank", "attention", "rms_norm", "embed", "sample", "empty")

_log = logging.getLogger(__name__)


@functools.cache
def _load() -> ctypes.CDLL | None:
    path = library_path()
    if not path.exists():
        _log.warning("CPU kernels are not built (%s is missing): using plain JAX, which is slower", path.name)
        return None
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        _log.warning("CPU kernels cannot be loaded (%s): using plain JAX, which is slower", error)
        return None
    i32, i64, pointer = ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p
    library.llmos_pack.argtypes = [i32, i32, i64, i64, pointer, i64, pointer]
    library.llmos_pack.restype = i32
    library.llmos_packed_bytes.argtypes = [i32, i64, i64]
    library.llmos_packed_bytes.restype = i64
    library.llmos_isa.restype = ctypes.c_char_p
    library.llmos_warning.restype = ctypes.c_char_p
    library.llmos_set_threads.argtypes = [i32]
    library.llmos_set_threads.restype = None
    library.llmos_threads.restype = i32
    library.llmos_tune_allocator.restype = None
    if warning := library.llmos_warning().decode():
        _log.warning("CPU kernels stepped down to %s (%s)", library.llmos_isa().decode(), warning)
    return library


def library() -> ctypes.CDLL:
    """The loaded library.

    Raises:
        EngineError: it is not available.
    """
    loaded = _load()
    if loaded is None:
        raise EngineError(
            "the CPU kernels are not available",
            why="the library was not built, or cannot be loaded here",
            do="run `python -m llmos.drivers.cpu.build` with a C++17 compiler installed, or use the plain JAX path",
        )
    return loaded


def available() -> bool:
    """Whether the kernels can be used on this machine; says why not, once, in the log."""
    return _load() is not None


def isa() -> str:
    """The instruction set in use: "avx512vnni", "avx2" or "portable"; part of a numeric mode's identity."""
    name: bytes = library().llmos_isa()
    return name.decode()


def threads() -> int:
    """Threads that one kernel call may use, the caller's included."""
    return int(library().llmos_threads())


def set_threads(n: int) -> None:
    """Sets `threads()`; results do not depend on it."""
    library().llmos_set_threads(n)


def tune_allocator() -> None:
    """Raises glibc's mmap and trim thresholds for this process, so that large temporaries keep their pages."""
    library().llmos_tune_allocator()


@functools.cache
def register() -> None:
    """Makes the kernels known to XLA as `llmos_<name>` on the CPU platform."""
    import jax

    for name in TARGETS:
        handler = getattr(library(), f"llmos_{name}")
        jax.ffi.register_ffi_target(f"llmos_{name}", jax.ffi.pycapsule(handler), platform="cpu")
