"""The `/` commands: one module a group.

What: a table of commands; each is a function that takes the shell and the rest of its line.
Invariant: a command does what its line of help says, with the real thing behind it, or raises an error that says why
    not. The name nearest to one that does not exist is told.
Interface: `@command(usage)` on a function whose docstring is its help; `carry_out(shell, line)`, `table_of()`;
    `wrong(name)` and `unquoted(text)` for the commands.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from llmos.abi.errors import TurnRefused
from llmos.drivers.terminal import neutralise

if TYPE_CHECKING:
    from llmos.apps.shell.shell import Shell

GROUPS = ("processes", "forks", "windows", "people", "talk", "looking", "thinking")
Action = Callable[["Shell", str], None]
_TABLE: dict[str, Command] = {}


@dataclass(frozen=True, slots=True)
class Command:
    """One of them; `usage` is what may stand behind its name."""

    name: str
    usage: str
    help: str
    action: Action


def command(usage: str = "", *, name: str = "") -> Callable[[Action], Action]:
    """Make a function a command, called like it but for a `_` at its end."""

    def enter(action: Action) -> Action:
        called = name or action.__name__.rstrip("_").replace("_", "-")
        _TABLE[called] = Command(called, usage, (action.__doc__ or "").strip(), action)
        return action

    return enter


def table_of() -> dict[str, Command]:
    """Every command by its name, in the order of their groups."""
    for group in GROUPS:
        import_module(f"{__name__}.{group}")
    return _TABLE


def carry_out(shell: Shell, line: str) -> None:
    """Do what stands behind a `/`.

    Raises:
        TurnRefused: there is no such command.
        LLMOSError, Leave: as the command does.
    """
    name, _, rest = line.partition(" ")
    name = {"q": "quit", "exit": "quit", "?": "help"}.get(name, name)
    table = table_of()
    if name not in table:
        near = difflib.get_close_matches(name, table, n=1)
        raise TurnRefused(
            f"There is no /{neutralise(name)}",
            do=f"did you mean /{near[0]}?" if near else "/help lists the commands",
        )
    table[name].action(shell, rest.strip())


def wrong(name: str) -> TurnRefused:
    """The error of a command that was used wrongly."""
    found = table_of()[name]
    return TurnRefused(f"usage: /{name} {found.usage}", why="", do=found.help)


def unquoted(text: str) -> str:
    """A name that was typed with quotation marks around it, without them."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text
