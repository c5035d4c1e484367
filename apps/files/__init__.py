"""The files app: reading and changing files in a process's working volume and the folders its owner has opened.

What: syscalls over `volumes` (which folder a path means), `text` (lines and search) and `history` (what a file said
    before a change).
Invariant: no path leads out of its volume (`drivers.beneath`). A change is made whole or not at all, once for each
    key, and what stood there before is kept: nothing is replaced that could not be brought back.
Interface: `Files`, `Settings`.
"""

from __future__ import annotations

from llmos.apps.files.app import Files
from llmos.apps.files.volumes import Settings

__all__ = ["Files", "Settings"]
