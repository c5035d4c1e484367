"""What the actions of `llmos learn` share: how gently they run, and how they say a length of time."""

from __future__ import annotations

NICENESS = 15  # of 19: whoever works beside them goes first


def clock(seconds: float) -> str:
    """A length of time, roughly."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
