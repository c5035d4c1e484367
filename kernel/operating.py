"""`machine`, the system app of whoever runs the system for its owner in plain language.

What: look at every process of the machine, hold one, let it go on, end it.
Invariant: `proc` commands one's own descendants; this commands anybody, so the owner is asked before each act, with the
    literal pid, whatever the window has read; without somebody to ask the answer is no. Looking shows what `ps` shows.
Interface: `Machine`, one of `kernel.system.SYSTEM`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from llmos.abi.app import App, Call, Target, syscall
from llmos.abi.errors import CallDenied
from llmos.abi.events import Ask
from llmos.kernel.journal.records import Approval
from llmos.kernel.monitor import value_key
from llmos.kernel.questions import RUNNING
from llmos.kernel.systemcall import SystemCall, here

if TYPE_CHECKING:
    from llmos.abi.machine import Signal
    from llmos.kernel.kernel import Kernel

Pid = Annotated[int, Target, "of a process, as machine.ps lists it"]


class Machine(App):
    """The machine's processes: list them, stop them, end them."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    @syscall(effect="none", retry="safe")
    async def ps(self, call: Call) -> list[dict[str, Any]]:
        """All processes of the machine: pid, name, state, tokens."""
        return [
            {"pid": s.pid, "name": s.name, "state": s.state, "tokens": s.tokens} for s in self._kernel.ps()
        ]

    @syscall(effect="destroy", retry="safe")
    async def kill(self, call: Call, pid: Pid) -> str:
        """End a process of the machine."""
        return await self._act(here(call), "kill", "KILL", pid, "it would end, and what it knows with it")

    @syscall(effect="destroy", retry="safe")
    async def stop(self, call: Call, pid: Pid) -> str:
        """Hold a process where it stands."""
        return await self._act(here(call), "stop", "STOP", pid, "it would stand still until it is let go on")

    @syscall(effect="destroy", retry="safe")
    async def go_on(self, call: Call, pid: Pid) -> str:
        """Let a process go on that was stopped."""
        return await self._act(here(call), "go_on", "CONT", pid, "it would go on")

    async def _act(self, me: SystemCall, name: str, signal: Signal, pid: int, what: str) -> str:
        kernel, process, turn = self._kernel, me.process, RUNNING.get()
        found = kernel.process(pid)
        number = int(me.key.rpartition("-")[2])
        if (
            "machine." + name,
            "pid",
            value_key(pid),
        ) not in process.approved:  # else the monitor has asked just now
            doubt = Ask(
                number,
                f"machine.{name}",
                "pid",
                pid,
                f"process {pid} is {found.expert or 'agent'}: {what}",
                me.label,
            )
            if turn is not None:
                turn.put(doubt)
            allowed = await kernel.ask(doubt)
            await kernel.durable(
                process.pid,
                Approval(
                    0 if turn is None else turn.number,
                    number,
                    "pid",
                    pid,
                    allowed,
                    kernel.asker,
                    f"machine.{name}",
                ),
            )
            if not allowed:
                raise CallDenied(f"machine.{name} of process {pid} was not approved", do="leave it as it is")
            process.approved.add((f"machine.{name}", "pid", value_key(pid)))
        process.withdraw(f"machine.{name}")  # an approval is for one act
        found.signal(signal, process.pid)
        return f"{signal} was sent to process {pid}"
