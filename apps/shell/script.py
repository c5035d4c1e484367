"""Lines from a file or a pipe, one after the other.

What: gives a shell its lines and waits for each answer: `llmos run`, `llmos shell` without a terminal, and `--plain`.
Invariant: the next line begins when the one before is done. A script ends at the first line that fails, and names it;
    a conversation goes on. Lines are UTF-8; what is none is refused in a script, mended in a conversation.
Interface: `read(path)`, `follow(shell, path, lines, arguments) -> exit code`; `converse(shell, prompt) -> exit code`.
"""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from llmos.abi.errors import ConfigError, LLMOSError
from llmos.apps.shell.history import clean
from llmos.apps.shell.shell import Leave

if TYPE_CHECKING:
    from llmos.apps.shell.shell import Shell

MAX_BYTES = 4 << 20  # of a script
PROMPT = "› "
_ARGUMENT = re.compile(r"\$(\d|\{\d\}|@)")


def read(path: Path) -> list[tuple[int, str]]:
    """The steps of a script, with their lines' numbers.

    Raises:
        ConfigError: it cannot be read, or is no text.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(
                f"the script {path} is too large", why=f"the limit is {MAX_BYTES >> 20} MiB", do="split it"
            )
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(
            f"the script {path} cannot be read", why=error.strerror or "", do="check the path"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"the script {path} is not UTF-8",
            why=f"byte {error.start} cannot be decoded",
            do="convert it to text",
        ) from None
    return list(steps(text.splitlines()))


def follow(shell: Shell, path: Path, lines: Sequence[tuple[int, str]], arguments: Sequence[str] = ()) -> int:
    """Carry the steps of a script out; 0 where all of them were.

    Raises:
        LLMOSError: what a line failed with; the line is named before it.
    """
    for number, line in lines:
        try:
            _do(shell, given(line, arguments))
            if (failed := _failure(shell)) is not None:
                raise failed
        except Leave:
            return 0
        except (LLMOSError, KeyboardInterrupt):
            shell.say(f"{path}:{number}: {line.splitlines()[0][:100]}")
            raise
    return 0


def steps(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """(number of its first line, text) of each step: comments and blank lines are none, a backslash at the end goes on
    with the next line, and three quotes alone on a line begin and end a long one."""
    begun, parts, quoted = 0, list[str](), False
    for number, line in enumerate(lines, 1):
        if line.strip() == '"""':
            if quoted:
                yield begun, "\n".join(parts)
                parts = []
            else:
                begun = number
            quoted = not quoted
        elif quoted:
            parts.append(line)
        elif not parts and (not line.strip() or line.lstrip().startswith("#")):
            continue
        else:
            begun = begun if parts else number
            parts.append(line.removesuffix("\\"))
            if not line.endswith("\\"):
                yield begun, "\n".join(parts)
                parts = []
    if quoted:
        raise ConfigError(f"the quotes of line {begun} are not closed", do='end it with a line of """')
    if parts:
        yield begun, "\n".join(parts)


def given(line: str, arguments: Sequence[str]) -> str:
    """The line with `$1` to `$9`, `$@` for all. ConfigError: one was not given."""

    def put(match: re.Match[str]) -> str:
        name = match[1].strip("{}")
        if name == "@":
            return " ".join(arguments)
        if not 0 < int(name) <= len(arguments):
            raise ConfigError(f"the script wants an argument {match[0]}", do="llmos run SCRIPT ARGUMENT ...")
        return arguments[int(name) - 1]

    return _ARGUMENT.sub(put, line) if arguments or "$1" in line else line


def converse(shell: Shell, *, prompt: bool = False) -> int:
    """Lines from standard input until its end; an error is told, and the next line read. With a `prompt` there is
    somebody who presses Ctrl-C as often as they like: the first ends what runs, and the others are not heard."""
    stoppable = _stoppable if prompt else nullcontext
    while True:
        try:
            with stoppable():
                line = _read(PROMPT if prompt else "")
        except EOFError:
            return 0
        except KeyboardInterrupt:
            shell.say("")
            continue
        try:
            with stoppable():
                _do(shell, clean(line))
        except Leave:
            return 0
        except Exception as error:
            shell.complain(error)
        except KeyboardInterrupt:
            shell.interrupt()
            _patiently(shell)
            shell.say("(stopped)")


@contextmanager
def _stoppable() -> Iterator[None]:
    """Ctrl-C is a KeyboardInterrupt in here, once; one that came while the first is seen to would end the shell."""

    def once(*_: object) -> None:
        signal.signal(signal.SIGINT, unheard)
        raise KeyboardInterrupt

    def unheard(*_: object) -> None:
        """Not SIG_IGN, which programs that are started meanwhile would inherit."""

    signal.signal(signal.SIGINT, once)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, unheard)


def _do(shell: Shell, line: str) -> None:
    """One line, to its end."""
    try:
        shell.line(line)
        shell.settle()
    except KeyboardInterrupt:
        shell.interrupt()
        _patiently(shell)
        raise


def _patiently(shell: Shell) -> None:
    """A turn that was stopped is over soon; who is impatient does not make it last longer."""
    while True:
        try:
            shell.settle()
            return
        except KeyboardInterrupt:
            continue


def _failure(shell: Shell) -> LLMOSError | None:
    """What the foreground's last turn failed with, where it did."""
    job = shell.job
    return job.failure if job is not None else None


def _read(prompt: str) -> str:
    """A line; half characters of a terminal come as they may."""
    if prompt:
        sys.stderr.write(prompt)
        sys.stderr.flush()
    line = sys.stdin.buffer.readline()
    if not line:
        raise EOFError
    return line.decode("utf-8", "surrogateescape").rstrip("\n")
