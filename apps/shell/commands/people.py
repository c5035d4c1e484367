"""Who answers, and what they may: `/experts`, `/use`, `/apps`, `/grant`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmos.apps.shell.commands import command, wrong
from llmos.drivers.terminal import neutralise, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmos.apps.experts.expert import Expert
    from llmos.apps.experts.grants import Wanted
    from llmos.apps.shell.shell import Shell

MOST = 60  # characters of a description


@command()
def experts(shell: Shell, _: str) -> None:
    """the experts of this machine"""
    from llmos.apps.experts.shelf import Shelf

    rows = [
        (one.name, one.origin, one.expert.manifest.description if one.expert else f"broken: {one.error}")
        for one in Shelf(shell.config).listed()
    ]
    shell.say(
        *table([(name, origin, _short(about)) for name, origin, about in rows]), "", "/use NAME talks to one"
    )


@command("EXPERT | nobody")
def use(shell: Shell, rest: str) -> None:
    """talk to that expert, in a process of its own; `nobody` is the bare model"""
    from llmos.abi.specialist import Specialist
    from llmos.apps.experts.launch import check_base, prepare
    from llmos.apps.experts.shelf import Shelf

    if not rest:
        raise wrong("use")
    if rest == "nobody":
        job = shell.spawn(Specialist(), mounts=shell.start.mounts)
        shell.say(f"you talk to process {job.pid}")
        return
    expert, ready = prepare(Shelf(shell.config), rest, lambda *asked: _agree(shell, *asked))
    check_base(expert, shell.kernel.config.kernel.model)
    job = shell.spawn(ready, mounts=shell.start.mounts)
    shell.say(f"you talk to process {job.pid}, {neutralise(expert.name)}: {neutralise(ready.description)}")
    for starter in expert.manifest.starters:
        shell.say(f"  {neutralise(starter)}")


def _agree(shell: Shell, expert: Expert, missing: Sequence[Wanted], agreed: Sequence[Wanted]) -> bool:
    from llmos.apps.experts.agreeing import grant_lines

    more = "also " if agreed else ""
    head = f"  {neutralise(expert.name)} {expert.manifest.version} {more}wants to call:"
    return shell.face.confirm(["", head, *grant_lines(missing)], "  Agree? [y/N] ")


@command("[APP]")
def apps(shell: Shell, rest: str) -> None:
    """the apps of this machine, or the syscalls of one"""
    found: dict[str, list[tuple[str, str, str]]] = {}
    for name, syscall in shell.kernel.syscalls.items():
        about = syscall.description.partition("\n")[0]
        found.setdefault(name.partition(".")[0], []).append((name, syscall.effect, about))
    if not rest:
        rows = [
            (app, str(len(calls)), ", ".join(sorted({effect for _, effect, _ in calls})))
            for app, calls in sorted(found.items())
        ]
        what = "/apps NAME shows its syscalls, /grant NAME lets the foreground call them"
        shell.say(*table([("APP", "SYSCALLS", "EFFECTS"), *rows]), "", what)
    elif rest in found:
        shell.say(*table([(name, effect, _short(about)) for name, effect, about in sorted(found[rest])]))
    else:
        raise wrong("apps")


@command("[SYSCALL ... | -SYSCALL ...]")
def grant(shell: Shell, rest: str) -> None:
    """let the foreground call an app (calculator), a syscall (files.read) or a part (mail.send(to=*@example.org));
    `-` takes back; without any, list them"""
    process = shell.foreground().process
    grants = list(process.holdings().grants)
    for name in _split(rest):
        if name.startswith("-"):
            if name[1:] not in grants:
                raise wrong("grant")
            grants.remove(name[1:])
        elif name not in grants:
            grants.append(name)
    if rest:
        process.grant(grants)
    shell.say("may call " + (", ".join(map(neutralise, grants)) if grants else "nothing"))


def _split(text: str) -> list[str]:
    """Words, but for blanks in brackets."""
    words, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character.isspace() and depth <= 0:
            words.append("")
        else:
            words[-1] += character
    return [word for word in words if word]


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MOST else text[: MOST - 1] + "…"
