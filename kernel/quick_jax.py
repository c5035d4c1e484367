"""The import of JAX, a tenth of a second sooner.

What: while it is imported, JAX parses the metadata of every package that is installed to see whether one is called
    `jax-rocm…-plugin`: 115 ms of processor time for 160 packages. The names of their folders say as much.
Invariant: where such a package is installed, nothing differs; whoever else asks what is installed is told.
Interface: `import_jax()`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

_ASKS = "jax._src.numpy.array_constructors"


def import_jax() -> None:
    """Import JAX."""
    if any(any(Path(folder or ".").glob("jax[-_]rocm*")) for folder in sys.path):
        import_module("jax")
        return
    distributions = metadata.distributions

    def found(**context: Any) -> Iterable[metadata.Distribution]:
        asks = sys._getframe(1).f_globals.get("__name__")
        return () if asks == _ASKS else distributions(**context)

    metadata.distributions = found
    try:
        import_module("jax")
    finally:
        metadata.distributions = distributions
