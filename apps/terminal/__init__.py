"""The terminal: bash, git and the usual tools, in a sandbox, on the process's working volume.

What: one syscall, `terminal.run`. Each command has a sandbox of its own, which goes with it: nothing runs on.
Invariant: commands run behind all layers of `llmos.drivers.sandbox`, or not at all; they see the working volume and a
    read-only system, and no network. What they print is bounded; what is left out is counted and said. A command that
    fails is an error result.
Interface: `Terminal`, `CommandFailed`; `run`. Configuration: the keys of `Limits`, under `apps: terminal:` in
    `llmos.yaml`.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

from llmos.abi.app import App, Call, syscall
from llmos.abi.errors import AppError, AppFailed
from llmos.abi.settings import settings
from llmos.drivers.beneath import Beneath
from llmos.drivers.sandbox import Clip, Limits, Mirror, Sandbox, SandboxEnded

__all__ = ["CommandFailed", "Terminal"]

MAX_PRINTED = 256 << 20  # bytes, after which a command is ended: it would never come to its end
MAX_FILES, MAX_NAMED = 1000, 20  # that are looked at, and that are told to a command that did not find one
POLL_S = 0.05
_SILENT = ("/bin/sh", "-c", 'exec "$@" </dev/null', "sh")  # nobody answers a command that asks


class CommandFailed(AppError):
    """A command that says by its exit status that it failed, or was ended at a limit; with all that it printed."""


class Terminal(App, settings=Limits):
    """Shell commands: bash, git, grep, sed, awk, tar and the like."""

    def __init__(self) -> None:
        self._limits = settings("terminal", Limits)

    @syscall(effect="execute", deadline=660)
    def run(
        self,
        command: Annotated[
            str,
            'for bash, such as "wc -l app.log" or "tar xf old.tar.gz"; every call begins in the same folder',
        ],
        call: Call,
    ) -> str:
        """Run a shell command: find, search, sort or pack files, count how many files there are, lines and words;
        git."""
        if call.volume is None:
            raise AppFailed("there is no folder to work in", do="call it from a process of the kernel")
        ended = run(command, call.volume, self._limits, lambda: call.cancelled)
        if ended.failed:
            raise CommandFailed(ended.text)
        return ended.text


@dataclass(frozen=True, slots=True)
class Ended:
    """What a command printed and how it ended, as a model reads it; whether it failed."""

    text: str
    failed: bool


def run(command: str, volume: Path, limits: Limits, cancelled: Callable[[], bool] = lambda: False) -> Ended:
    """Carry a command out.

    Raises:
        SandboxMissing, SandboxFull: nothing was run.
        SandboxEnded: nobody waits for it any more.
    """

    out = Clip(limits.output)
    with Sandbox([*_SILENT, "/bin/bash", "-c", command], limits) as sandbox:
        mirror = Mirror(sandbox, volume)
        try:
            mirror.push()
            sandbox.begin()
            end = time.monotonic() + limits.seconds
            stopped = ""
            while (data := sandbox.receive(POLL_S)) is not None:
                out.feed(data)
                if time.monotonic() > end:
                    stopped = f"ended after {limits.seconds:g} s"
                elif out.size + sandbox.errors.size > MAX_PRINTED:
                    stopped = f"ended after it had printed {MAX_PRINTED >> 20} MiB"
                elif cancelled():
                    raise SandboxEnded("the command was given up", do="run it again")
                if stopped:
                    break
            code = None if stopped else sandbox.wait(max(end - time.monotonic(), 1))
            if code is None and not stopped:  # it closed its output and runs on
                stopped = f"ended after {limits.seconds:g} s"
            if code:
                stopped = sandbox.hunger
            sandbox.end()
            changes = mirror.pull()
        finally:
            mirror.close()
    # 1 without a complaint is no failure: so grep and diff tell what they found.
    failed = bool(stopped or (code and (code > 1 or sandbox.errors.size)))
    there = _files(volume) if failed and "No such file" in sandbox.errors.text else ""
    return Ended(_words(out, sandbox.errors, stopped or _status(code or 0), changes.words(), there), failed)


def _files(volume: Path) -> str:
    """What files there are."""
    with Beneath(volume) as folder:
        found = [e.path for e in islice(folder.walk(), MAX_FILES) if not f"/{e.path}".count("/.")]
    more = " and more" if len(found) > MAX_NAMED else ""
    return f"the files are: {', '.join(found[:MAX_NAMED])}{more}" if found else "there are no files"


def _status(code: int) -> str:
    if code > 128 and code - 128 in set(signal.Signals):
        return f"exit status {code} ({signal.Signals(code - 128).name})"
    return f"exit status {code}" if code else ""


def _words(out: Clip, errors: Clip, *told: str) -> str:
    lines = [out.text.rstrip("\n")] if out.size else []
    if errors.size:
        lines.append(f"stderr: {errors.text.rstrip()}")
    lines += [f"[{one}]" for one in told if one]
    return "\n".join(lines) or "Done; nothing was printed."
