"""Asking at the terminal: a value that the monitor does not let pass by itself.

What: draws what is asked, the literal value and where it came from, and reads yes or no.
Invariant: drawn by us, never by the model; whatever the value holds reaches the terminal neutralised. Anything but a
    clear yes is a no; without a terminal nobody is asked, and the answer is no.
Interface: `at_terminal(policy)` -> whoever approves, or None.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

from llmos.abi.events import Ask
from llmos.abi.labels import Integrity
from llmos.drivers.terminal import neutralise

_WORDS = {Integrity.UNTRUSTED: "untrusted", Integrity.STORE: "from your documents", Integrity.USER: "yours"}


def at_terminal(policy: str) -> Callable[[Ask], bool] | None:
    """Asks the person at the terminal, if the policy says so and there is one."""
    return _ask if policy == "shell" and sys.stdin.isatty() and sys.stderr.isatty() else None


def _ask(doubt: Ask) -> bool:
    value = doubt.value if isinstance(doubt.value, str) else json.dumps(doubt.value)
    sys.stderr.write(
        f"\n  {doubt.syscall} wants to use this as `{doubt.argument}`:\n"
        f"    {neutralise(value)}\n"
        f"  It is {_WORDS[doubt.label.integrity]}; {neutralise(doubt.why)}.\n"
        f"  Allow this value? [y/N] "
    )
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
