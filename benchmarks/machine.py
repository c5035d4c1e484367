"""The machine that figures were measured on.

What: processor, its features that matter to us, cores, memory, measured read bandwidth, library versions, load.
Invariant: names no host, user or path.
Interface: `describe() -> dict`; `read_bandwidth(threads)` in bytes a second; `peak_mib()` of this process.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from importlib import metadata
from pathlib import Path

import numpy as np

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
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def describe() -> dict[str, object]:
    """Everything a reader needs to judge a figure."""
    cpu, flags = _processor()
    return {
        "cpu": cpu,
        "features": [f for f in FEATURES if f in flags],
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "read_gb_per_s": {str(n): round(read_bandwidth(n) / 1e9, 1) for n in (1, 2)},
        "load": [round(x, 2) for x in os.getloadavg()],
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "libraries": _versions(),
    }


def read_bandwidth(threads: int = 1, megabytes: int = 256, repeats: int = 3) -> float:
    """Bytes a second that `threads` threads together can read from memory, the best of some passes.

    Each thread sums its own array, far larger than any cache (numpy releases the lock while it sums).
    """
    arrays = [np.ones(megabytes << 17, np.float64) for _ in range(threads)]
    best = 0.0
    for _ in range(repeats):
        workers = [threading.Thread(target=a.sum) for a in arrays[1:]]
        start_s = time.perf_counter()
        for worker in workers:
            worker.start()
        arrays[0].sum()
        for worker in workers:
            worker.join()
        best = max(best, sum(a.nbytes for a in arrays) / (time.perf_counter() - start_s))
    return best


def _processor() -> tuple[str, set[str]]:
    cpu, flags = platform.processor() or platform.machine(), set[str]()
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            cpu = value.strip()
        elif key.strip() in ("flags", "Features"):
            flags = set(value.split())
            break
    return cpu, flags


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
