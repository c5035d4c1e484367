"""The decoder's operations on a GPU: those of `xla_ops`, attention by larger blocks.

What: XLA compiles everything; only the number of pages read in one loop step differs, so that a long window is
    a handful of kernels a layer and not one a page.
Invariant: the names and the meaning of `xla_ops`.
Not tested on hardware yet: the step is lowered for CUDA, and runs on CPU, in tests.
"""

from __future__ import annotations

from functools import partial

from llmos.kernel.model import xla_ops
from llmos.kernel.model.xla_ops import embed, linear, rms_norm

__all__ = ["attention", "embed", "linear", "rms_norm"]

PAGES = 32  # 512 tokens at 16 a page: 64 MiB of gathered keys and values at 256 rows of the default model

attention = partial(xla_ops.attention, pages=PAGES)
