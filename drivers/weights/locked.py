"""One process at a time.

What: an advisory lock on a file, which the operating system lets go when its holder dies.
Invariant: the lock file is never deleted while it may be held: two processes would then hold two different
    ones.
Interface: `with locked(path, waiting): ...`
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_PAUSE = 0.1  # seconds between two tries


@contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock at `path`; `waiting` is called each time it is found taken."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as f:
        while True:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waiting()
                time.sleep(_PAUSE)
        yield  # closing the file lets the lock go
