"""What a long benchmark has found so far: one that was broken off goes on where it was.

What: outcomes by name, in a file of JSON lines, each on the disk before the next is looked for.
Invariant: they are of this very setting, and of the last day, or the file is begun anew; a line that was cut off is
    none. A benchmark that came to its end leaves no file: the next one measures.
Interface: `Kept(file, setting)`: `.get(name)`, `.put(name, outcome)`, `.before` (how many there were), `.notes` (what a
    reader of the result should know of that), `.done()`.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

DAY_S = 86_400


class Kept:
    """See the module."""

    def __init__(self, file: Path, setting: str) -> None:
        """`setting`: all that outcomes depend on, as text."""
        self._file = file
        self._found = dict(_read(file, setting))
        self.before = len(self._found)
        if not self.before:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(setting) + "\n", encoding="utf-8")

    def get(self, name: str) -> Any:
        """The outcome of that name; None where there is none."""
        return self._found.get(name)

    def put(self, name: str, outcome: Any) -> None:
        """Keep an outcome (JSON, not null)."""
        self._found[name] = outcome
        with self._file.open("a", encoding="utf-8") as file:
            file.write(
                "\n" + json.dumps([name, outcome]) + "\n"
            )  # a line of its own, whatever was cut off before

    @property
    def notes(self) -> list[str]:
        """Whether this is a whole run's result."""
        if not self.before:
            return []
        return [f"{self.before} outcomes are of a run that was broken off; `seconds` are of its last part"]

    def done(self) -> None:
        """All was found."""
        self._file.unlink(missing_ok=True)


def _read(file: Path, setting: str) -> list[tuple[str, Any]]:
    try:
        if time.time() - file.stat().st_mtime > DAY_S:
            return []
        first, *lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except (OSError, ValueError):
        return []
    values = list(map(_parsed, lines)) if _parsed(first) == setting else []
    return [(value[0], value[1]) for value in values if isinstance(value, list) and len(value) == 2]


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
