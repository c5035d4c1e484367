"""What was typed, kept between sessions.

What: line editing and a history file, by `readline` where Python has it.
Invariant: the file is its owner's alone (0600), bounded, and its absence or damage never stops the shell.
Interface: `with History(path): input(...)`.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from types import ModuleType

MAX_LINES = 2000


class History:
    """Loads the history on entering and writes it on leaving; a path of None does neither."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.readline: ModuleType | None = None

    def __enter__(self) -> History:
        if self.path is None:
            return self
        try:
            import readline
        except ImportError:  # a Python built without it still talks
            return self
        self.readline = readline
        readline.set_history_length(MAX_LINES)
        with contextlib.suppress(OSError, UnicodeDecodeError):
            readline.read_history_file(self.path)
        return self

    def __exit__(self, *_: object) -> None:
        if self.readline is None or self.path is None:
            return
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_CREAT | os.O_WRONLY, 0o600))
            self.readline.write_history_file(self.path)
