"""What was typed, kept between sessions.

What: a file of lines, for the line editor; one entry a line, as JSON.
Invariant: the file is its owner's alone (0600), bounded, and its absence or damage never stops the shell. What is no
    text (half a character from a terminal) is mended before it is kept.
Interface: `load(path)`, `append(path, text)`, `clean(text)`.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

MAX_LINES = 2000
MAX_CHARACTERS = 20_000  # of an entry; what is pasted is not kept in a history


def clean(text: str) -> str:
    """`text` as valid UTF-8: a terminal may hand over bytes that are none."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def load(path: Path) -> list[str]:
    """The entries, the oldest first; a file that has grown too long is cut to its newest."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    if len(lines) > 2 * MAX_LINES:
        lines = lines[-MAX_LINES:]
        with contextlib.suppress(OSError):
            part = path.with_suffix(".part")
            part.touch(0o600)
            part.write_text("\n".join(lines) + "\n", encoding="utf-8")
            part.replace(path)
    found = []
    for line in lines[-MAX_LINES:]:
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, str):
                found.append(entry)
    return found


def append(path: Path, text: str) -> None:
    """Keep one more."""
    if not text.strip() or len(text) > MAX_CHARACTERS:
        return
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        with os.fdopen(file, "w", encoding="utf-8") as lines:
            lines.write(json.dumps(clean(text), ensure_ascii=False) + "\n")
