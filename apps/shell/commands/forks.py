"""Forks of a conversation: `/fork`, `/diff`, `/pick`."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from llmos.abi.errors import TurnRefused
from llmos.apps.shell.commands import command, wrong
from llmos.apps.shell.shell import pid_of
from llmos.drivers.terminal import neutralise

if TYPE_CHECKING:
    from llmos.apps.shell.jobs import Job
    from llmos.apps.shell.shell import Shell

MOST = 8


@command("[N] [QUESTION]")
def fork(shell: Shell, rest: str) -> None:
    """N copies (1) of the foreground, which know what it knows; with QUESTION, all are asked it, each its own way"""
    head, _, more = rest.partition(" ")
    count, question = (int(head), more.strip()) if head.isdecimal() and len(head) < 4 else (1, rest)
    if not 1 <= count <= MOST:
        raise wrong("fork")
    front = shell.foreground()
    children = [shell.adopt(child, front.options) for child in front.process.fork(count)]
    shell.forks = {job.pid: _turn(job) for job in (front, *children)}
    for number, child in enumerate(children):
        child.process.keep()
        child.asked = front.asked
        if question:
            options = {"temperature": 0.7, **shell.asked(child)}
            options["seed"] = options.get("seed", 0) + number
            child.read(child.process.ask(question, **options, detached=shell.link.attached))
    pids = ", ".join(str(child.pid) for child in children)
    shell.say(f"forked: {pids}; /fg PID talks to one, /diff compares their answers, /pick PID prefers one")


@command("[PID PID]")
def diff(shell: Shell, rest: str) -> None:
    """what differs between the last answers of two forks"""
    one, other = _two(shell, rest)
    before, after = (neutralise(_answer(job)).splitlines() for job in (one, other))
    names = f"process {one.pid}", f"process {other.pid}"
    found = list(difflib.unified_diff(before, after, names[0], names[1], lineterm="", n=2))
    shell.say(*(_painted(shell, line) for line in found) if found else ["they have answered the same"])


@command("PID [PID]")
def pick(shell: Shell, rest: str) -> None:
    """that fork's answer was better than those of the others (of PID): it is kept to learn from; you go on with it"""
    names = rest.split()
    if not names or len(names) > 2:
        raise wrong("pick")
    best = shell.find(pid_of(names[0]))
    others = [shell.find(pid_of(names[1]))] if len(names) == 2 else _rivals(shell, best)
    if not others or best in others:
        raise TurnRefused(
            "there is no other answer to that question",
            do="/fork 2 QUESTION makes two; or name both: /pick PID PID",
        )
    _answer(best)
    for other in others:
        _answer(other)
    for other in others:
        best.process.prefer(_turn(best), _turn(other), of=other.pid)
    shell.say(f"noted: process {best.pid} rather than {', '.join(str(job.pid) for job in others)}")
    shell.bring(best)


def _two(shell: Shell, rest: str) -> tuple[Job, Job]:
    names = rest.split()
    if not names:
        pids = [pid for pid in shell.forks if pid in shell.jobs and shell.jobs[pid].last is not None][-2:]
    else:
        pids = [pid_of(name) for name in names]
    if len(pids) != 2:
        raise TurnRefused("two processes are compared", do="/fork 2 QUESTION, or /diff PID PID")
    return shell.find(pids[0]), shell.find(pids[1])


def _answer(job: Job) -> str:
    exchanges = job.process.conversation
    if not exchanges:
        raise TurnRefused(f"process {job.pid} has not answered anything yet")
    return exchanges[-1].answer


def _turn(job: Job) -> int:
    exchanges = job.process.conversation
    return exchanges[-1].turn if exchanges else 0


def _rivals(shell: Shell, best: Job) -> list[Job]:
    """The other forks that were asked the same question."""
    asked = best.process.conversation
    found = []
    for pid, forked in shell.forks.items():
        job = shell.jobs.get(pid)
        if job is not None and job is not best and asked and _turn(job) > forked:
            found += [job] if job.process.conversation[-1].question == asked[-1].question else []
    return found


def _painted(shell: Shell, line: str) -> str:
    if not shell.face.colour:
        return line
    colour = {"+": 32, "-": 31, "@": 36}.get(line[:1])
    return f"\x1b[{colour}m{line}\x1b[0m" if colour else line
