"""What an owner does to a process between its turns: what lies within its reach, what it may call, how it did.

What: mounts, grants and approvals, places of what stands in a window, adapters, a conversation that is forgotten; and
    what the user thought of a turn.
Invariant: whatever is changed is in the journal first. Nobody is granted more than its parent.
Interface: `Owned`, the base of `Process`: `mount`, `unmount`, `grant`, `withdraw`, `place`, `adapters`, `adapter`,
    `adapt`, `forget`; `correct`, `prefer`, `good`, `bad`; `holdings`, `keep`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmos.abi.errors import ProcessError, TurnRefused
from llmos.abi.machine import Holdings, Place
from llmos.abi.progress import Progress, silent
from llmos.kernel.grants import Grant, check
from llmos.kernel.journal.records import Adapted, Approval, Feedback, Forgot, Granted, Mounted, Placed

if TYPE_CHECKING:
    from llmos.abi.mount import Mount
    from llmos.kernel.journal.records import Spawned
    from llmos.kernel.journal.state import Exchange
    from llmos.kernel.kernel import Kernel
    from llmos.kernel.questions import Questions
    from llmos.kernel.view import View


class Owned:
    """A process as its owner has it."""

    kernel: Kernel
    pid: int
    parent: int
    spawned: Spawned
    mounts: list[Mount]
    grants: tuple[Grant, ...]
    approved: set[tuple[str, str, str]]
    conversation: list[Exchange]
    questions: Questions
    view: View

    def mount(self, mount: Mount, progress: Progress = silent) -> None:
        """Put a body of documents within this process's reach."""
        self.kernel.library.mount(mount, progress)
        self._mounted([*self.mounts, mount])

    def unmount(self, path: str | Path) -> None:
        """Take a body of documents out of this process's reach. ProcessError: it was not within it."""
        gone = Path(path).expanduser().resolve()
        left = [mount for mount in self.mounts if mount.path.resolve() != gone]
        if len(left) == len(self.mounts):
            names = ", ".join(str(mount.path) for mount in self.mounts) or "nothing"
            raise ProcessError(f"{path} is not mounted", why=f"mounted is {names}", do="name one of these")
        self._mounted(left)

    def _mounted(self, mounts: list[Mount]) -> None:
        dumped = tuple(known.dump() for known in mounts)
        self.kernel.append(self.pid, Mounted(dumped))
        self.mounts, self.spawned = mounts, self.spawned.mounting(dumped)

    def grant(self, grants: Sequence[str]) -> None:
        """Change what this process may call: to this, by its owner's word. Children keep what they have.

        Raises:
            ConfigError: a grant that no syscall answers to.
            ProcessError: its parent, which is an agent, may not do that itself.
            TurnRefused: a turn is running.
        """
        self._between_turns("grant")
        parsed = tuple(map(Grant.parse, grants))
        if parsed:
            check(parsed, self.kernel.syscalls)
        if self.parent and not self.kernel.process(self.parent).may_grant(parsed):
            raise ProcessError(
                f"process {self.pid} cannot be granted that", why=f"its parent {self.parent} has less",
                do="grant it to the parent first",
            )  # fmt: skip
        self.kernel.append(self.pid, Granted(tuple(grants)))
        self.grants, self.spawned = parsed, replace(self.spawned, grants=tuple(grants))

    def withdraw(self, syscall: str = "") -> None:
        """Take back what has been approved for a syscall, or for all of them: from here on it is asked about again."""
        for name, argument, value in sorted(self.approved):
            if syscall in ("", name):
                self.approved.discard((name, argument, value))
                self.kernel.append(self.pid, Approval(0, 0, argument, json.loads(value), False, syscall=name))

    def place(self, reference: str, place: Place) -> None:
        """Say where something stands from the next question on: `pinned` in every window, `in` every window that has
        room, `out` of all, or "" wherever retrieval and memory put it.

        Args:
            reference: `turn 3`, a document's name as the window's map shows it, or its name and a position.

        Raises:
            ProcessError: nothing of that name is within its reach.
        """
        if place and not self.view.knows(reference):
            raise ProcessError(
                f"there is no {reference!r} within the reach of process {self.pid}",
                why="it is no turn of its conversation, and nothing that its mounts hold",
                do="take a source that `pmap` shows, or `turn N` of its history",
            )
        self.kernel.append(self.pid, Placed(reference, place))
        self.spawned = self.spawned.placing(reference, place)

    @property
    def adapters(self) -> tuple[str, ...]:
        """Versions of the adapters that it was given, the last one in use; "" is the model alone."""
        return tuple(self.spawned.settings.get("adapters", ()))

    @property
    def adapter(self) -> str:
        """The version of the adapter that its next turn begins with; "" for none."""
        return (self.adapters or ("",))[-1]

    def adapt(self, adapters: Sequence[str]) -> None:
        """Be given these, of which the last is in use from the next turn on. See `Kernel.adapters` for who decides."""
        self.kernel.journal.wait(self.kernel.append(self.pid, Adapted(tuple(adapters))))
        self.spawned = self.spawned.adapting(adapters)

    def forget(self, since: int = 0) -> None:
        """Empty the conversation, from turn `since` on; mounts stay."""
        self.conversation[:] = [exchange for exchange in self.conversation if exchange.turn < since]
        self.kernel.append(self.pid, Forgot(since))

    def correct(self, turn: int, text: str) -> None:
        """What turn `turn` should have answered. ProcessError: there was no such turn."""
        self._feedback(Feedback(turn, "correct", text))

    def prefer(self, turn: int, over: int, of: int = 0) -> None:
        """The answer of `turn` was better than that of `over`, a turn of process `of` or of this one."""
        self._feedback(Feedback(turn, "prefer", over=over, of=0 if of == self.pid else of))

    def good(self, turn: int) -> None:
        """The answer of `turn` was good."""
        self._feedback(Feedback(turn, "good"))

    def bad(self, turn: int) -> None:
        """The answer of `turn` was bad."""
        self._feedback(Feedback(turn, "bad"))

    def _feedback(self, feedback: Feedback) -> None:
        judged = [(self, feedback.turn)]
        if feedback.over is not None:
            judged.append((self.kernel.process(feedback.of) if feedback.of else self, feedback.over))
        for process, turn in judged:
            if not 0 < turn <= process.questions.count:
                raise ProcessError(
                    f"process {process.pid} has had no turn {turn}", why=f"it has had {process.questions.count}",
                    do="name one by its number (`turn.number`)",
                )  # fmt: skip
        self.kernel.journal.wait(self.kernel.append(self.pid, feedback))

    def keep(self) -> None:
        """It does not end with the program that spawned it; one of a kernel in this process ends with the kernel."""

    def holdings(self) -> Holdings:
        """What its owner has given it, and where."""
        return Holdings(
            grants=self.spawned.grants, mounts=tuple(self.mounts), work=str(self.kernel.workspace(self.pid)),
            placed=dict(self.spawned.settings.get("placed", {})), turn=self.questions.count,
        )  # fmt: skip

    def _between_turns(self, what: str) -> None:
        if not self.questions.idle:
            raise TurnRefused(f"process {self.pid} is answering", do=f"{what} between two turns")
