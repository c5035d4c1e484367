"""A kernel with a scripted model that takes its time, so that a test can stop it in the middle of a turn.

Interface: `slowed(kernel)`.
"""

from __future__ import annotations

import time
from typing import Any

from llmos.kernel.kernel import Kernel


def slowed(kernel: Kernel, step_s: float = 0.005) -> Kernel:
    """The kernel, each of whose steps takes so long at least."""
    runner: Any = kernel.runner
    forward = runner.forward

    def late(batch: Any) -> Any:
        time.sleep(step_s)
        return forward(batch)

    runner.forward = late
    return kernel
