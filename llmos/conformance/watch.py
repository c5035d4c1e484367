"""What an app does to the world while it is called: `python -m llmos.conformance.watch APP` (a program of its own).

What: runs calls in this process under Python's audit hook (PEP 578) and tells what they opened for writing, changed,
    connected to or started.
Invariant: it sees what goes by Python's own calls: an extension in C that writes by itself is not seen (the suite
    looks at the working volume besides). What is under the folder for temporary files does not count.
Interface: stdin: JSON, `[{"syscall", "arguments", "seconds", "meta"}]`; stdout: JSON, for each `[[what, on what]]`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from llmos.abi.app import syscalls_of
from llmos.abi.errors import AppError, AskRefused
from llmos.abi.loading import load
from llmos.abi.signature import Signature
from llmos.drivers.mcp.call import RunningCall
from llmos.drivers.mcp.meta import CallMeta

MAX_SEEN = 20  # things that one call is told to have done
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = frozenset(
    f"os.{name}" for name in "remove rename rmdir mkdir link symlink truncate chmod chown".split()
)
_PROGRAMS = frozenset(("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn"))
_LOOKUPS = frozenset(("socket.getaddrinfo", "socket.gethostbyname"))
_SENDS = frozenset(("socket.connect", "socket.sendto", "socket.sendmsg"))


class Watch:
    """What has happened since `seen` was cleared, as (what, on what)."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[tuple[str, str]] = []
        self._temporary = os.path.realpath(tempfile.gettempdir()) + os.sep
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & _WRITES and not isinstance(path, int):
                self._add("writes", path)
        elif event in _CHANGES:
            self._add("writes", arguments[0])
        elif event == "sqlite3.connect":
            if ":memory:" not in str(arguments[0]) and "mode=ro" not in str(arguments[0]):
                self._add("writes", arguments[0])
        elif event in _PROGRAMS:
            self._add("programs", arguments[0])
        elif event in _LOOKUPS:
            self._add("network", arguments[0])
        elif event in _SENDS and isinstance(arguments[1], tuple):  # a path is a socket of this machine
            self._add("network", arguments[1])

    def _add(self, what: str, place: Any) -> None:
        text = os.fsdecode(place) if isinstance(place, (str, bytes, os.PathLike)) else repr(place)
        real = os.path.realpath(text) + os.sep
        if what == "writes" and (text.startswith("/dev/") or real.startswith(self._temporary)):
            return
        if (what, text) not in self.seen and len(self.seen) < MAX_SEEN:
            self.seen.append((what, text))


async def _refuse(*_: Any) -> str:
    raise AskRefused("nobody answers questions here")


async def _nothing(*_: Any) -> None:
    return None


async def watched(name: str, calls: list[Mapping[str, Any]]) -> list[list[tuple[str, str]]]:
    """What each call did."""
    kind = load(name)
    signatures = {}
    for method, _ in syscalls_of(kind):
        signature = Signature.read(kind.app_name, getattr(kind, method))
        signatures[signature.name] = (method, signature)
    app = kind()
    watch, told = Watch(), []
    for call in calls:
        method, signature = signatures[call["syscall"]]
        running = RunningCall(CallMeta.model_validate(call["meta"]), kind.secrets, _nothing, _refuse)
        watch.seen = []
        watch.on = True
        try:
            async with asyncio.timeout(call["seconds"]):
                await signature.invoke(getattr(app, method), call["arguments"], running)
        except (AppError, TimeoutError):
            pass  # whether it fails is looked at elsewhere
        finally:
            running.cancelled = True
            watch.on = False
        told.append(list(watch.seen))
    return told


def main() -> None:
    """Watch the calls that stdin names, tell on stdout, and end, whatever still runs."""
    sys.dont_write_bytecode = True
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the app prints is not part of the answer
    told = asyncio.run(watched(sys.argv[1], json.load(sys.stdin)))
    json.dump(told, out)
    out.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
