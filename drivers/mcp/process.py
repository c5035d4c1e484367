"""A server's process under its supervisor.

What: starts a program whose stdin and stdout are pipes to us and whose stderr is kept, the last of it, in memory.
Invariant: `kill` returns when no process of the tree is left; a killed kernel closes the lifeline by dying. The
    child inherits only the environment that it is given. What it wrote to stderr never reaches a disk.
Interface: `await Child.start(program, env, folder, memory)`; `child.stdin`, `.stdout`, `.pid`, `.memory()`,
    `.private()`, `.words()`;
    `await child.wait()`, `await child.kill()`.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from pathlib import Path

from llmos.abi.errors import AppUnavailable
from llmos.abi.limits import MAX_APP_BYTES

KEPT_BYTES = 16 << 10  # of a process's stderr: enough for one traceback
_UNKILLABLE = 5.0  # seconds; a process in the kernel's hands (a dead network drive) is left to its supervisor
_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_INHERITED = ("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER")


class Child:
    """A running program and its supervisor."""

    def __init__(self, process: Process, lifeline: int) -> None:
        assert process.stdin and process.stdout and process.stderr
        self.stdin, self.stdout, self._stderr = process.stdin, process.stdout, process.stderr
        self._process, self._lifeline = process, lifeline
        self._words = bytearray()
        self._listener = asyncio.ensure_future(self._listen())

    @classmethod
    async def start(
        cls,
        program: Sequence[str],
        env: Mapping[str, str],
        folder: Path | None = None,
        memory: int = MAX_APP_BYTES,
    ) -> Child:
        """Start `program` with `env` laid over the few variables that every child gets; `memory` is what it, and each
        program that it starts, may hold, in bytes of private memory."""
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment = {**inherited, **env}
        if shutil.which(program[0], path=environment.get("PATH")) is None:
            raise AppUnavailable(
                f"there is no program {program[0]!r}", do="install it, or correct the command in llmos.yaml"
            )
        ours, theirs = os.pipe2(os.O_CLOEXEC)[::-1]
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", str(_SUPERVISOR), str(theirs), str(memory), *program,
                stdin=PIPE, stdout=PIPE, stderr=PIPE,
                env=environment, cwd=folder, pass_fds=(theirs,), start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            os.close(ours)
            raise AppUnavailable(f"{program[0]} cannot be started", why=str(error)) from None
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        return cls(process, ours)

    async def _listen(self) -> None:
        while part := await self._stderr.read(4096):
            self._words += part
            del self._words[:-KEPT_BYTES]

    @property
    def pid(self) -> int:
        """The program's own pid, or its supervisor's while it is being started."""
        below = _children(self._process.pid)
        return below[0] if below else self._process.pid

    @property
    def code(self) -> int | None:
        """The exit status, None while it runs."""
        return self._process.returncode

    def memory(self) -> int:
        """Resident bytes of the whole tree, supervisor and shared pages included."""
        total, waiting = 0, [self._process.pid]
        while waiting:
            pid = waiting.pop()
            try:
                pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            except (OSError, IndexError, ValueError):
                continue
            total += pages * os.sysconf("SC_PAGE_SIZE")
            waiting += _children(pid)
        return total

    def private(self) -> int:
        """Bytes of the program's own private memory: what its limit counts."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            return 0
        found = re.search(r"^VmData:\s+(\d+) kB$", status, re.MULTILINE)
        return int(found[1]) << 10 if found else 0

    def words(self) -> str:
        """The last that it wrote to stderr."""
        return self._words.decode(errors="replace").strip()

    async def wait(self) -> int:
        """Until program and supervisor have ended; the exit status."""
        return await self._process.wait()

    async def kill(self, grace: float = 0.0) -> None:
        """End it with all its children; with `grace` seconds to leave by itself once its stdin is closed."""
        try:
            self.stdin.close()
            if grace and self._process.returncode is None:
                await asyncio.wait([asyncio.ensure_future(self._process.wait())], timeout=grace)
        finally:
            if self._lifeline >= 0:
                os.close(self._lifeline)
                self._lifeline = -1
            await asyncio.shield(asyncio.ensure_future(self._gone()))

    async def _gone(self) -> None:
        await asyncio.wait([asyncio.ensure_future(self._process.wait())], timeout=_UNKILLABLE)
        await asyncio.wait([self._listener], timeout=1)
        self._listener.cancel()
        self._process._transport.close()  # type: ignore[attr-defined]  # a leaked pipe end keeps it open


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (OSError, ValueError):
        return []
