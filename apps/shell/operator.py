"""The operator: who runs the machine in plain language.

What: sees to it that there is one; on a fresh kernel it is process 1.
Invariant: it has what its file says and no more: it may look at all processes, and asks before it touches one.
    A machine whose experts are broken has none, and the shell works all the same.
Interface: `ensure(kernel, config)`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from llmos.abi.errors import LLMOSError

if TYPE_CHECKING:
    from llmos.abi.config import Config
    from llmos.abi.machine import Machine

NAME = "operator"


def ensure(kernel: Machine, config: Config) -> None:
    """Spawn it, where no process of that name is there."""
    from llmos.apps.experts.launch import specialist
    from llmos.apps.experts.shelf import Shelf

    if any(line.name == NAME and line.state != "zombie" for line in kernel.ps()):
        return
    with suppress(LLMOSError):
        shelf = Shelf(config)
        expert = shelf.find(NAME)
        if expert.origin == "shipped":  # somebody's own of that name is for /use, and asks for what it wants
            grants = [name for name in kernel.syscalls if name.startswith(("machine.", "proc."))]
            specialist(expert, grants, shelf.state).spawn(kernel).keep()
