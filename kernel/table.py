"""The process table: every process by pid, and the tree that they form.

What: gives out pids, keeps who is whose child, adopts orphans, forgets who was reaped.
Invariant: a pid is given once. Open processes and generations are bounded, so nobody can fork the machine to death.
Interface: `ProcessTable(first_pid)`: `admit(parent)`, `add`, `get`, `children`, `adopt`, `reap`; iterate for `ps`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from llmos.abi.errors import NoSuchProcess, ProcessError
from llmos.abi.limits import MAX_DEPTH, MAX_OPEN

if TYPE_CHECKING:
    from llmos.kernel.process import Process


class ProcessTable:
    """Any thread may call any method."""

    def __init__(self, first_pid: int = 1) -> None:
        self._next = first_pid
        self._processes: dict[int, Process] = {}
        self._lock = threading.RLock()

    def __iter__(self) -> Iterator[Process]:
        with self._lock:
            return iter(sorted(self._processes.values(), key=lambda p: p.pid))

    def admit(self, parent: int = 0) -> int:
        """A pid for a new process of `parent`.

        Raises:
            ProcessError: there are too many, or too many generations.
        """
        with self._lock:
            if len(self._processes) >= MAX_OPEN:
                raise ProcessError(
                    f"{MAX_OPEN} processes are open", why="a kernel holds no more", do="end some of them"
                )
            depth, above = 0, parent
            while above in self._processes:
                depth, above = depth + 1, self._processes[above].parent
            if depth >= MAX_DEPTH:
                raise ProcessError(
                    f"a process of generation {depth + 1}", why=f"{MAX_DEPTH} generations are the limit",
                    do="let the parent do the work, or an older one spawn",
                )  # fmt: skip
            pid, self._next = self._next, self._next + 1
            return pid

    def add(self, process: Process) -> None:
        """Enter a process under its pid."""
        with self._lock:
            self._processes[process.pid] = process

    def get(self, pid: int) -> Process:
        """The process with that pid, zombies too; NoSuchProcess."""
        with self._lock:
            try:
                return self._processes[pid]
            except KeyError:
                raise NoSuchProcess(f"there is no process {pid}", do="`ps` lists those there are") from None

    def children(self, pid: int) -> list[Process]:
        """The children of a process, oldest first."""
        with self._lock:
            return [p for p in self if p.parent == pid]

    def descends(self, pid: int, ancestor: int) -> bool:
        """Whether `pid` is a child of `ancestor`, or a child's child."""
        with self._lock:
            while pid in self._processes:
                pid = self._processes[pid].parent
                if pid == ancestor:
                    return True
            return False

    def adopt(self, parent: int) -> list[Process]:
        """Hand the children of a process that ended to the kernel; they are returned."""
        orphans = self.children(parent)
        for orphan in orphans:
            orphan.parent = 0
        return orphans

    def reap(self, pid: int) -> bool:
        """Forget a process; whether it was there."""
        with self._lock:
            return self._processes.pop(pid, None) is not None
