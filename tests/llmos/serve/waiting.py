"""Waiting for what another thread does."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(met: Callable[[], bool], seconds: float = 10) -> None:
    """Return when `met()` is true; fail after so many seconds."""
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
