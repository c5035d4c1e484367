"""The conversation: `/history`, `/new`, `/undo`, `/save`, `/resume`, `/good`, `/bad`, `/fix`, `/help`, `/quit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llmos.abi.errors import TurnRefused
from llmos.apps.shell.commands import command, table_of, unquoted, wrong
from llmos.apps.shell.shell import Leave
from llmos.drivers.terminal import neutralise, table, wrapped

if TYPE_CHECKING:
    from llmos.apps.shell.shell import Shell

HEAD = 200  # characters of an answer in the history


@command()
def history(shell: Shell, _: str) -> None:
    """what was asked and answered in this conversation, by turns"""
    exchanges = shell.foreground().process.conversation
    for e in exchanges:
        answer = " ".join(e.answer.split())
        more = f" … ({len(answer)} characters)" if len(answer) > HEAD else ""
        shell.say(
            f"turn {e.turn}  › {neutralise(' '.join(e.question.split())[:HEAD])}",
            f"        {neutralise(answer[:HEAD])}{more}",
        )
    if not exchanges:
        shell.say("nothing yet")


@command()
def new(shell: Shell, _: str) -> None:
    """forget this conversation and start another one; documents and grants stay"""
    job = shell.foreground()
    job.process.forget()
    job.asked = 0
    shell.say("a new conversation")


@command("[N]")
def undo(shell: Shell, rest: str) -> None:
    """take the last question and its answer back (the last N): the process knows them no more"""
    count = int(rest) if rest.isdecimal() and len(rest) < 6 else 1
    process = shell.foreground().process
    if process.current is not None:
        raise TurnRefused("it is answering", do="Ctrl-C stops it; then /undo")
    exchanges = list(process.conversation)
    if (rest and str(count) != rest) or not 0 < count <= len(exchanges):
        raise TurnRefused(f"there are {len(exchanges)} exchanges to take back", do="/history shows them")
    first = exchanges[-count]
    process.forget(since=first.turn)
    shell.say(f"taken back: {neutralise(' '.join(first.question.split())[:HEAD])}")


@command("[FILE]")
def save(shell: Shell, rest: str) -> None:
    """the foreground as it stands, in a file that /resume goes on from, here or on another machine"""
    job = shell.foreground()
    path = Path(unquoted(rest) or f"process-{job.pid}.llmos").expanduser()
    shell.say(f"saved: {neutralise(str(job.process.checkpoint(path)))}")


@command("FILE | PID")
def resume(shell: Shell, rest: str) -> None:
    """go on with what was saved, or with a process of this kernel"""
    if not rest:
        raise wrong("resume")
    if rest.isdecimal() and not Path(rest).exists():
        job = shell.find(int(rest))
    else:
        job = shell.adopt(shell.kernel.resume(Path(unquoted(rest)).expanduser()))
    shell.say(f"you talk to process {job.pid}, {neutralise(job.name)}")
    shell.bring(job)


@command()
def good(shell: Shell, _: str) -> None:
    """the last answer was good: it is kept to learn from"""
    job = shell.foreground()
    job.process.good(_last(shell))
    shell.say("noted")


@command()
def bad(shell: Shell, _: str) -> None:
    """the last answer was bad"""
    shell.foreground().process.bad(_last(shell))
    shell.say("noted")


@command("TEXT")
def fix(shell: Shell, rest: str) -> None:
    """what the last answer should have been: /fix The deadline is May 3."""
    if not rest:
        raise wrong("fix")
    shell.foreground().process.correct(_last(shell), rest)
    shell.say("noted")


@command("[COMMAND]")
def help_(shell: Shell, rest: str) -> None:
    """this list"""
    found = table_of()
    if name := rest.removeprefix("/"):
        if name not in found:
            raise wrong("help")
        shell.say(f"/{name} {found[name].usage}".rstrip(), f"  {found[name].help}")
        return
    room = max(shell.face.width - 34, 30)
    rows = [(f"/{c.name} {c.usage}".rstrip(), c.help) for c in found.values()]
    for usage, text in rows:
        lines = wrapped(" ".join(text.split()), room)
        if len(usage) > 31:
            shell.say(f"  {usage}")
            usage = ""
        shell.say(f"  {usage:<32}{lines[0]}", *(" " * 34 + line for line in lines[1:]))
    shell.say("", *table([
        ("  TEXT", "talk to the foreground process"),
        ("  @FILE", "in a line: mount it, and speak of it"),
        ("  !COMMAND   !py CODE", "bash and Python in the sandbox, on the foreground's files"),
        ("  Ctrl-C  Ctrl-Z  Ctrl-D", "stop the turn; put it in the background; leave"),
    ]))  # fmt: skip


@command()
def quit_(shell: Shell, _: str) -> None:
    """leave (Ctrl-D does too); under `llmos up` processes go on"""
    raise Leave


def _last(shell: Shell) -> int:
    turn = shell.foreground().process.holdings().turn
    if not turn:
        raise TurnRefused("nothing was answered yet", do="ask something first")
    return turn
