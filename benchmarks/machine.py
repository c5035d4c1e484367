"""The machine that figures were measured on.

What: processor, its features that matter to us, cores, memory, measured read bandwidth, library versions, load.
Invariant: names no host, user or path.
Interface: `describe() -> dict`; `read_bandwidth(threads)` in bytes a second; `peak_mib()`, `resident_mib()` of this
    process.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import platform
import threading
import time
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llmos.drivers.processor import flags

FEATURES = (
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx_vnni",
    "amx_int8",
    "asimddp",
    "i8mm",
)
LIBRARIES = ("jax", "jaxlib", "flax", "numpy", "llama-cpp-python", "faiss-cpu", "tokenizers")


def peak_mib() -> float:
    """The most memory that this process has held, mapped files included; `ru_maxrss` would begin with its parent's."""
    return _status_mib("VmHWM:")


def resident_mib() -> float:
    """The memory that this process holds now, mapped files included."""
    return _status_mib("VmRSS:")


def _status_mib(field: str) -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition(field)[2].split()[0]) / 1024


def describe() -> dict[str, object]:
    """Everything a reader needs to judge a figure."""
    return {
        "cpu": _processor(),
        "features": [f for f in FEATURES if f in flags()],
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "read_gb_per_s": {str(n): round(read_bandwidth(n) / 1e9, 1) for n in (1, 2)},
        "load": [round(x, 2) for x in os.getloadavg()],
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "libraries": _versions(),
    }


def read_bandwidth(threads: int = 1, megabytes: int = 256, repeats: int = 5) -> float:
    """Bytes a second that `threads` threads together can read from memory, the best of some passes.

    Each thread looks for the largest byte of its own array, far larger than any cache and in huge pages where the
    system has them (numpy releases the lock meanwhile; a sum would be bound by arithmetic).
    """
    arrays = [_huge(megabytes << 20) for _ in range(threads)]
    best = 0.0
    for _ in range(repeats):
        workers = [threading.Thread(target=a.max) for a in arrays[1:]]
        start_s = time.perf_counter()
        for worker in workers:
            worker.start()
        arrays[0].max()
        for worker in workers:
            worker.join()
        best = max(best, sum(a.nbytes for a in arrays) / (time.perf_counter() - start_s))
    return best


def _huge(size: int) -> NDArray[np.uint8]:
    """`size` bytes that are there."""
    pages = mmap.mmap(-1, size)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            pages.madvise(mmap.MADV_HUGEPAGE)
    array = np.frombuffer(pages, np.uint8)
    array[:] = 1
    return array


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    named = (
        line
        for line in (info.read_text().splitlines() if info.exists() else ())
        if line.startswith("model name")
    )
    return next(named, "").partition(":")[2].strip() or platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
