"""The kernel's own apps: the model at the controls.

What: `proc`, processes that make and lead processes, and `results`, long results read piece by piece; `memory` is in
    `recall`, `experts` in `experts`, `machine` in `operating`, `remote` in `remotes`.
Invariant: a process commands its descendants only, and gives them at most what it was granted. What it reads from
    them carries their labels.
Interface: `SYSTEM`, the classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from llmos.abi.app import App, Call, syscall
from llmos.abi.errors import CallDenied, NoSuchProcess
from llmos.kernel.experts import Experts
from llmos.kernel.grants import Grant
from llmos.kernel.journal.records import Result
from llmos.kernel.operating import Machine
from llmos.kernel.recall import Memory
from llmos.kernel.remotes import Remotes
from llmos.kernel.syscalls import error_text, result_text
from llmos.kernel.systemcall import here

if TYPE_CHECKING:
    from llmos.kernel.kernel import Kernel
    from llmos.kernel.process import Process

PIECE = 4000  # characters of a long result that one call reads


class Proc(App):
    """Processes: give work to others and wait for what they say."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    @syscall(effect="none", retry="never")
    async def spawn(self, call: Call, task: str, grants: list[str] | None = None) -> int:
        """Start a process with a task of its own; it may use `grants`, at most yours. Returns its pid."""
        me = here(call)
        wanted = tuple(grants or ())
        if not me.process.may_grant(map(Grant.parse, wanted)):
            raise CallDenied(
                f"a child cannot be granted {', '.join(wanted)}", why="you were not granted it yourself",
                do="spawn it with less",
            )  # fmt: skip
        child = me.process.child(grants=wanted)
        await child.aask(task, label=me.label, detached=True)
        return child.pid

    @syscall(effect="none", retry="never")
    async def fork(self, call: Call, task: str) -> int:
        """Start a copy of yourself, which knows this conversation, with a task of its own. Returns its pid."""
        me = here(call)
        child = me.process.branch()
        await child.aask(task, label=me.label, detached=True)
        return child.pid

    @syscall(effect="none", retry="never")
    async def send(self, call: Call, pid: int, message: str) -> str:
        """Send a message to a process."""
        me = here(call)
        await me.process.asend(pid, message, me.label, timeout=20)
        return "sent"

    @syscall(effect="none", retry="never")
    async def receive(self, call: Call, seconds: Annotated[float, Field(ge=0, le=25)] = 10) -> dict[str, Any]:
        """Wait for the next message that was sent to you."""
        me = here(call)
        mail = await me.process.areceive(seconds)
        me.read.append(mail.label)
        return {"from": mail.sender, "message": mail.content}

    @syscall(effect="none", retry="safe", deadline=600)
    async def wait(self, call: Call, pid: int) -> str:
        """Wait until a process that you started has answered; returns its answer."""
        me = here(call)
        child = self._child(me.process, pid)
        exchange = await child.asettled()
        child.signal("TERM", me.process.pid)
        if exchange is None:
            return ""
        me.read.append(exchange.label)
        return exchange.answer

    @syscall(effect="none", retry="safe")
    async def ps(self, call: Call) -> list[dict[str, Any]]:
        """The processes that you started: pid, state, tokens."""
        mine = [p for p in self._kernel.table if self._kernel.table.descends(p.pid, here(call).process.pid)]
        return [{"pid": s.pid, "state": s.state, "tokens": s.tokens} for s in (p.stat() for p in mine)]

    @syscall(effect="none", retry="safe")
    async def kill(self, call: Call, pid: int) -> str:
        """End a process that you started."""
        me = here(call)
        self._child(me.process, pid).signal("KILL", me.process.pid)
        return "ended"

    def _child(self, process: Process, pid: int) -> Process:
        if not self._kernel.table.descends(pid, process.pid):
            raise NoSuchProcess(
                f"you have not started a process {pid}", do="`proc.ps` lists those that you have"
            )
        return self._kernel.process(pid)


class Results(App):
    """Long results, piece by piece."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    @syscall(effect="none", retry="safe")
    async def read(self, call: Call, number: int, start: Annotated[int, Field(ge=0)] = 0) -> str:
        """Read on in the result of call `number`, from character `start`."""
        me = here(call)
        for record in self._kernel.journal.records(me.process.pid, kinds=[Result]):
            body = record.body
            if isinstance(body, Result) and body.call == number:
                me.read.append(body.label)
                text = error_text(body.error) if body.error is not None else result_text(body.value)
                rest = len(text) - start - PIECE
                more = f"\n[{rest} characters more, from {start + PIECE}]" if rest > 0 else ""
                return text[start : start + PIECE] + more
        raise CallDenied(f"you have made no call {number}", do="name one whose result you have seen")


SYSTEM: tuple[type[Any], ...] = (Proc, Results, Memory, Experts, Machine, Remotes)
