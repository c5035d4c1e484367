"""`!` and `!py`: code of the person's own, in the sandbox.

What: bash and Python on the files of the foreground process.
Invariant: it runs behind all layers of `llmos.drivers.sandbox`, or not at all; the model does not see it, but for the
    files that it leaves. Python keeps its variables, one session a process. Ctrl-C ends what runs.
Interface: `run(shell, rest)`, with what stands behind the `!`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llmos.abi.errors import TurnRefused
from llmos.drivers.terminal import neutralise

if TYPE_CHECKING:
    from llmos.apps.interpreter.session import Session
    from llmos.apps.shell.shell import Shell
    from llmos.drivers.sandbox import Limits

_SESSIONS: dict[tuple[int, int], Session] = {}  # of (a shell, a pid)


def run(shell: Shell, rest: str) -> None:
    """Run it, and say what it printed.

    Raises:
        TurnRefused: there is nothing to run.
        SandboxMissing: there is no sandbox on this machine; nothing was run.
        SandboxEnded: it was ended.
    """
    python = rest == "py" or rest.startswith(("py ", "py\n"))
    code = rest[2:].strip() if python else rest.strip()
    if not code:
        raise TurnRefused("there is nothing to run", do="!ls -l runs bash, !py 2 ** 100 runs Python")
    work = Path(shell.foreground().process.holdings().work)
    if python:
        text = _python(shell, code, work)
    else:
        from llmos.apps.terminal import run as bash

        text = bash(code, work, limits(shell, "terminal"), shell.interrupted.is_set).text
    shell.say(*neutralise(text).split("\n"))


def close(shell: Shell) -> None:
    """The shell ends, and its Pythons with it."""
    for key in [key for key in _SESSIONS if key[0] == id(shell)]:
        _SESSIONS.pop(key).close()


def limits(shell: Shell, app: str) -> Limits:
    """What an app may use here, as llmos.yaml says."""
    from pydantic import TypeAdapter

    from llmos.drivers.sandbox import Limits

    entry = shell.config.apps.get(app)
    given: Limits = TypeAdapter(Limits).validate_python(dict(entry.settings) if entry is not None else {})
    return given


def _python(shell: Shell, code: str, work: Path) -> str:
    from llmos.apps.interpreter.session import Session

    key = id(shell), shell.foreground().pid
    session = _SESSIONS.get(key)
    if session is None or session.ended:
        session = _SESSIONS[key] = Session(limits(shell, "interpreter"), work)
    cell = session.run(code, shell.interrupted.is_set)
    lines = [cell.output.rstrip("\n")] if cell.output.strip() else []
    lines += [text for text in (cell.error, cell.value) if text]
    if cell.stopped:
        lines.append("(stopped; variables are kept)")
    if told := cell.changes.words():
        lines.append(f"[{told}]")
    return "\n".join(lines) or "(nothing was printed)"
