"""What the processor can do.

What: the features that the operating system tells of it.
Invariant: asked once; where nothing is told nothing is claimed.
Interface: `flags()`.
"""

from __future__ import annotations

import functools
from pathlib import Path


@functools.cache
def flags() -> frozenset[str]:
    """Names of features as Linux gives them ("avx2", "avx512_bf16", "asimd"); empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line for line in lines if line.startswith(("flags", "Features"))), "").split())
