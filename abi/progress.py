"""How long work tells its watcher where it stands.

What: the one shape of a progress callback, from a download to the indexing of a volume.
Invariant: `done` never shrinks within a task, and a task's last call has `done == total`.
Interface: pass a `Progress`, or `silent`. Drawing it is `llmos.drivers.terminal`'s part.
"""

from __future__ import annotations

from typing import Literal, Protocol

Unit = Literal["items", "bytes"]


class Progress(Protocol):
    """Called as `progress(task, done, total, unit)`: `total` is 0 while it is not known."""

    def __call__(self, task: str, done: int, total: int, unit: Unit = "items", /) -> None: ...


def silent(task: str, done: int, total: int, unit: Unit = "items", /) -> None:
    """A watcher that does not look."""
