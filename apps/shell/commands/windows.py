"""Memory: `/pmap`, `/mount`, `/umount`, `/pin`, `/unpin`, `/page-in`, `/page-out`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llmos.abi.errors import DocumentError
from llmos.abi.mount import Mount
from llmos.apps.shell.commands import command, unquoted, wrong
from llmos.apps.shell.pmap import draw
from llmos.apps.shell.shell import pid_of
from llmos.drivers.terminal import neutralise

if TYPE_CHECKING:
    from llmos.abi.machine import Place
    from llmos.apps.shell.shell import Shell

WORDS = {
    "pinned": "stays in every window",
    "in": "stands in the windows to come",
    "out": "is left out of them",
}


@command("[PID]")
def pmap(shell: Shell, rest: str) -> None:
    """what stands in the window, as a map"""
    pid = pid_of(rest) if rest else shell.foreground().pid
    lines = draw(shell.kernel.pmap(pid, look=True), shell.face.width, colour=shell.face.colour)
    shell.say(*(lines if shell.face.drawn else lines[1:] or lines))
    for name, place in shell.kernel.process(pid).holdings().placed.items():
        shell.say(f"{neutralise(name)} {WORDS[place]}")


@command("PATH [mine|shared]")
def mount(shell: Shell, rest: str) -> None:
    """answer from these documents too (shared: anybody's words); without PATH, list what is mounted"""
    if not rest:
        mounts = shell.foreground().process.holdings().mounts
        shell.say(
            *(f"{neutralise(str(m.path))} ({m.trust})" for m in mounts) if mounts else ["nothing is mounted"]
        )
        return
    path, _, last = rest.rpartition(" ")
    trusted = path and last in ("mine", "shared")
    name = unquoted(path if trusted else rest)
    volume = shell.config.memory.volumes.get(name)
    given = volume.mount() if volume else Mount(Path(name).expanduser())
    if trusted:
        given = Mount(given.path, last, given.readers)  # type: ignore[arg-type]  # one of the two
    if not given.path.exists():
        raise DocumentError(f"nothing to mount at {given.path}", do="check the path")
    shell.mount(given)


@command("PATH")
def umount(shell: Shell, rest: str) -> None:
    """take documents out of reach again"""
    if not rest:
        raise wrong("umount")
    name = unquoted(rest)
    volume = shell.config.memory.volumes.get(name)
    path = volume.path if volume else Path(name)
    shell.foreground().process.unmount(path)
    shell.say(f"unmounted {neutralise(str(path))}")


@command("turn N | SOURCE[, POSITION]")
def pin(shell: Shell, rest: str) -> None:
    """it stands in every window from the next question on, and never leaves"""
    _place(shell, "pin", rest, "pinned")


@command("turn N | SOURCE[, POSITION]", name="page-in")
def page_in(shell: Shell, rest: str) -> None:
    """it stands in the windows to come, whatever is asked, while there is room"""
    _place(shell, "page-in", rest, "in")


@command("turn N | SOURCE[, POSITION]", name="page-out")
def page_out(shell: Shell, rest: str) -> None:
    """it is left out of the windows to come"""
    _place(shell, "page-out", rest, "out")


@command("turn N | SOURCE[, POSITION]")
def unpin(shell: Shell, rest: str) -> None:
    """it stands where retrieval and memory put it again: undoes /pin, /page-in and /page-out"""
    _place(shell, "unpin", rest, "")


def _place(shell: Shell, name: str, rest: str, place: Place) -> None:
    if not rest:
        raise wrong(name)
    shell.foreground().process.place(rest, place)
    shell.say(f"{neutralise(rest)} {WORDS.get(place, 'stands where it is wanted')}")
