"""What may stand at the cursor: commands, paths, experts, syscalls, pids.

What: looks at the line and proposes its next word.
Invariant: looking costs the person nothing: it happens on a thread, asks no kernel that is not there, and an error
    in it proposes nothing.
Interface: `Words(shell)`, a completer of prompt_toolkit; `proposals(shell, line)` -> (word, what it replaces) pairs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompt_toolkit.completion import Completer, Completion
from prompt_toolkit.document import Document

from llmos.apps.shell.commands import table_of

if TYPE_CHECKING:
    from llmos.apps.shell.shell import Shell

PATHS = ("mount", "umount", "save", "resume")
PIDS = ("fg", "kill", "pmap", "diff", "pick", "resume")
SOURCES = ("pin", "unpin", "page-in", "page-out")
MOST = 200


class Words(Completer):
    """See the module."""

    def __init__(self, shell: Callable[[], Shell | None]) -> None:
        self._shell = shell

    def get_completions(self, document: Document, complete_event: Any) -> Iterable[Completion]:
        shell = self._shell()
        if shell is None:
            return
        try:
            for word, typed in proposals(shell, document.text_before_cursor):
                yield Completion(word, start_position=-len(typed))
        except Exception:  # a guess is not worth a message in the middle of a line
            return


def proposals(shell: Shell, line: str) -> Iterator[tuple[str, str]]:
    """(word, the typed text that it replaces), in order."""
    if line.startswith("/") and " " not in line:
        yield from ((f"/{name}", line) for name in table_of() if name.startswith(line[1:]))
        return
    last = line.rpartition(" ")[2]
    if last.startswith("@"):
        yield from ((f"@{path}", last) for path in paths(last[1:]))
    if not line.startswith("/"):
        return
    name, _, rest = line[1:].partition(" ")
    typed = rest.rpartition(" ")[2] if name not in SOURCES else rest
    yield from ((word, typed) for word in _words(shell, name) if word.startswith(typed))
    if name in PATHS:
        yield from ((path, typed) for path in paths(typed))


def paths(typed: str) -> Iterator[str]:
    """Files and folders that begin like that; hidden ones where a dot was typed."""
    folder, name = os.path.split(typed)
    where = Path(folder or ".").expanduser()
    if not where.is_dir():
        return
    found = sorted(entry.name + "/" * entry.is_dir() for entry in os.scandir(where))
    for entry in found[:5000]:
        if entry.startswith(name) and (name.startswith(".") or not entry.startswith(".")):
            yield f"{folder.rstrip(chr(47))}/{entry}" if folder else entry


def _words(shell: Shell, name: str) -> list[str]:
    if name == "help":
        return list(table_of())
    if name == "use":
        from llmos.apps.experts.shelf import Shelf

        return [one.name for one in Shelf(shell.config).listed()]
    if not shell.link.ready:
        return []
    if name in ("grant", "apps"):
        calls = list(shell.kernel.syscalls)
        names = sorted({call.partition(".")[0] for call in calls})
        return names if name == "apps" else [*names, *calls]
    if name in PIDS:
        return [str(stat.pid) for stat in shell.kernel.ps()]
    if name in SOURCES and shell.job is not None:
        turns = [f"turn {e.turn}" for e in shell.job.process.conversation]
        sources = [r.source for r in shell.kernel.pmap(shell.job.pid) if r.kind == "knowledge" and r.source]
        return [*turns, *dict.fromkeys(sources)][:MOST]
    return []
