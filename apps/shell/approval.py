"""Asking a person: a value that the monitor does not let pass by itself.

What: says what is asked, the literal value and where it came from.
Invariant: drawn by us, never by the model; whatever the value holds reaches the terminal neutralised, whole, and
    without blanks or line ends that hide something. Anything but a clear yes is a no; without a terminal nobody is
    asked, and the answer is no.
Interface: `at_terminal(policy)` -> whoever approves, or None; `lines_of(doubt)`, `QUESTION` for those who draw
    themselves.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

from llmos.abi.events import Ask
from llmos.abi.labels import Integrity
from llmos.drivers.terminal import neutralise

_WORDS = {Integrity.UNTRUSTED: "untrusted", Integrity.STORE: "from your documents", Integrity.USER: "yours"}
QUESTION = "  Allow this value? [y/N] "


def at_terminal(policy: str) -> Callable[[Ask], bool] | None:
    """Asks the person at the terminal, if the policy says so and there is one."""
    return _ask if policy == "shell" and sys.stdin.isatty() and sys.stderr.isatty() else None


def lines_of(doubt: Ask) -> list[str]:
    """What has to be known before one says yes."""
    value = doubt.value if isinstance(doubt.value, str) else json.dumps(doubt.value, ensure_ascii=False)
    shown = neutralise(value).split("\n")
    whose = _WORDS[doubt.label.integrity]
    return [
        "",
        f"  {neutralise(doubt.syscall)} wants to use this as `{neutralise(doubt.argument)}`:",
        *(f"    │ {line}" for line in shown),
        f"  It is {whose}; {neutralise(doubt.why)}.",
    ]


def _ask(doubt: Ask) -> bool:
    sys.stderr.write("\n".join(lines_of(doubt)) + "\n" + QUESTION)
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
