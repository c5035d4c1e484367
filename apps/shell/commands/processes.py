"""Processes: `/ps`, `/top`, `/jobs`, `/fg`, `/bg`, `/kill`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmos.abi.errors import TurnRefused
from llmos.apps.shell.commands import command, wrong
from llmos.apps.shell.shell import pid_of
from llmos.apps.shell.top import head, lines
from llmos.drivers.terminal import neutralise, table

if TYPE_CHECKING:
    from llmos.apps.shell.shell import Shell

EVERY_S = 1.0
SIGNALS = ("INT", "STOP", "CONT", "TERM", "KILL")


@command()
def ps(shell: Shell, _: str) -> None:
    """what runs on this kernel; [in brackets]: apps"""
    shell.say(*lines(shell.kernel.top()))


@command()
def top(shell: Shell, _: str) -> None:
    """the same, live: tokens, pages, faults, state, class, tokens a second; Ctrl-C leaves"""
    before = now = shell.kernel.top()
    while shell.face.live([*head(now, before), *lines(now)]):
        if shell.interrupted.wait(EVERY_S):
            shell.face.live([])
            return
        before, now = now, shell.kernel.top()
    shell.say(*head(now, now), *lines(now))  # where nothing can be drawn twice: one shot


@command()
def jobs(shell: Shell, _: str) -> None:
    """the processes that this shell has to do with; * is the foreground"""
    rows = [
        (
            "*" if job is shell.job else "",
            str(job.pid),
            neutralise(job.name),
            "answering" if job.busy else "has news" if job.unread else job.process.state,
            " ".join(job.said.split())[:40] if job.busy else "",
        )
        for job in shell.jobs.values()
    ]
    shell.say(*(table(rows) if rows else ["no jobs; a plain line starts one"]))


@command("[PID]")
def fg(shell: Shell, rest: str) -> None:
    """talk to that process, and see what it has said; without PID, the last one in the background"""
    if rest:
        job = shell.find(pid_of(rest.removeprefix("%")))
    else:
        others = [job for job in shell.jobs.values() if job is not shell.job]
        if not others:
            raise TurnRefused(
                "nothing is in the background", do="/ps lists the processes; /fg PID takes one up"
            )
        job = others[-1]
    shell.say(f"you talk to process {job.pid}, {neutralise(job.name)}")
    shell.bring(job)


@command()
def bg(shell: Shell, _: str) -> None:
    """let the foreground go on behind your back; the next line talks to a new process"""
    job = shell.background()
    if job is None:
        raise TurnRefused("nothing is in the foreground")
    what = "goes on" if job.busy else "waits"
    shell.say(f"[{job.pid}] {neutralise(job.name)} {what} in the background; /fg {job.pid} takes it up")


@command("PID [INT|STOP|CONT|TERM|KILL]")
def kill(shell: Shell, rest: str) -> None:
    """signal a process (TERM: when it has answered; KILL: now; STOP and CONT hold it and let it go on)"""
    pid, _, signal = rest.partition(" ")
    name = signal.strip().upper().removeprefix("SIG") or "TERM"
    if not pid or name not in SIGNALS:
        raise wrong("kill")
    number = pid_of(pid)
    shell.kernel.process(number).signal(name)  # type: ignore[arg-type]  # one of them
    if name in ("TERM", "KILL"):
        job = shell.jobs.pop(number, None)
        if job is not None and job is shell.job:
            shell.background()
    shell.say(f"{name} to process {number}")
