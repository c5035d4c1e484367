"""Asking a person whether an expert may have what it wants.

What: shows the grants, the gravest first, and reads yes or no at the terminal.
Invariant: drawn by us, never by the expert; what came from its file reaches the terminal neutralised. Anything but a
    clear yes is a no; without a terminal nobody is asked, and the answer is no.
Interface: `at_terminal()` -> `Consent` or None; `always(notes)` shows and agrees; `grant_lines(wants)`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from llmos.apps.experts.grants import Consent, Wanted, lines
from llmos.drivers.terminal import neutralise, table

if TYPE_CHECKING:
    from llmos.apps.experts.expert import Expert

WORDS = {
    "none": "computes", "read": "reads", "execute": "runs programs", "fetch": "reaches the network", "write": "writes",
    "send": "SENDS", "pay": "PAYS", "destroy": "DESTROYS", "admin": "CHANGES WHAT OTHERS MAY",
}  # fmt: skip


def grant_lines(wants: Sequence[Wanted]) -> list[str]:
    """One line a grant: the syscall, what it does to the world, what it is."""
    return (
        table([(f"  {grant}", WORDS[effect], about) for grant, effect, about in lines(wants)])
        if wants
        else []
    )


def at_terminal() -> Consent | None:
    """Asks the person at the terminal, if there is one."""
    return _ask if sys.stdin.isatty() and sys.stderr.isatty() else None


def always(notes: TextIO) -> Consent:
    """Agrees, and says to what."""

    def agree(expert: Expert, missing: Sequence[Wanted], agreed: Sequence[Wanted]) -> bool:
        _show(notes, expert, missing, agreed)
        return True

    return agree


def _ask(expert: Expert, missing: Sequence[Wanted], agreed: Sequence[Wanted]) -> bool:
    _show(sys.stderr, expert, missing, agreed)
    sys.stderr.write("  Agree? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _show(notes: TextIO, expert: Expert, missing: Sequence[Wanted], agreed: Sequence[Wanted]) -> None:
    more = "also " if agreed else ""
    notes.write(f"\n  {neutralise(expert.name)} {expert.manifest.version} {more}wants to call:\n")
    notes.write("\n".join(f"  {line}" for line in grant_lines(missing)) + "\n")
    if agreed:
        notes.write(f"  (you have agreed to {len(agreed)} before)\n")
    notes.flush()
