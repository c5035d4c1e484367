"""A kernel that runs elsewhere on this machine.

What: the methods of `kernel.Kernel` over its socket, and what only a running kernel has: `shutdown`, `records`.
Invariant: closing it lets go of the connection, never of the kernel. Processes that were spawned through it end with
    it, unless they were asked something `detached`.
Interface: `attach(state)`; `RemoteKernel` as `abi.machine.Machine` has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from llmos.abi import wire
from llmos.abi.config import Config
from llmos.abi.errors import ConfigError
from llmos.abi.machine import AdapterStat, Filling, Passed, Region, Replay, Stat, Top, Why
from llmos.abi.mount import Mount, as_mount
from llmos.abi.progress import Progress, silent
from llmos.attach.connection import Connection
from llmos.attach.process import RemoteProcess, absolute, reported
from llmos.attach.turn import Asker

if TYPE_CHECKING:
    from llmos.abi.manifest import Syscall


def attach(
    state: Path, *, asker: Asker | None = None, progress: Progress | None = None
) -> RemoteKernel | None:
    """The kernel that runs on that state folder of a machine; None where none does.

    Args:
        asker: approves the values that the monitor asks about, for the turns that are read through it.
        progress: told about mounting.

    Raises:
        ProcessError: it belongs to another user.
        ConfigError: it is of another version.
    """
    connection = Connection.open(wire.socket_path(state), approves=asker is not None)
    return None if connection is None else RemoteKernel(connection, asker, progress or silent)


class RemoteKernel:
    """Made by `attach`. A context manager; any thread may call any method."""

    def __init__(
        self, connection: Connection, asker: Asker | None = None, progress: Progress = silent
    ) -> None:
        hello = connection.hello
        self.config = Config.model_validate(hello["config"])
        self.window: int = hello["window"]
        self.boot_s: float = hello["boot_s"]
        self.pid: int = hello["pid"]  # of the operating system
        self.weights: str = hello["weights"]
        self._connection, self._asker, self._progress = connection, asker, progress

    def check(self, wanted: Config) -> None:
        """Whether this kernel is what somebody wants.

        Raises:
            ConfigError: a key of `kernel:` was given and differs.
        """
        for key in sorted(wanted.kernel.model_fields_set):
            here, asked = getattr(self.config.kernel, key), getattr(wanted.kernel, key)
            if here != asked and not (key == "model" and _same_file(here, asked)):
                raise ConfigError(
                    f"the kernel that runs here has {key} {here}, not {asked}",
                    why=f"it runs as process {self.pid} on {self.config.machine.state}",
                    do=f"leave {key} out, stop it (`llmos down`), or have one of your own: another state folder "
                    "(LLMOS_STATE), or connect(attach=False)",
                    key=f"kernel.{key}",
                )

    def __enter__(self) -> RemoteKernel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the kernel, which runs on. Idempotent."""
        self._connection.close()

    def spawn(
        self,
        mounts: Iterable[Mount | str | Path] = (),
        *,
        grants: Sequence[str] = (),
        instructions: str = "",
        expert: str = "",
        user: str = "",
        priority: str = "interactive",
        quotas: Mapping[str, float] | None = None,
        seed: int = 0,
        fidelity: Literal["exact", "blend"] = "exact",
        work: str | Path | None = None,
        model: str = "",
        adapter: str | Path | None = None,
        progress: Progress | None = None,
    ) -> RemoteProcess:
        """A new process; see `Kernel.spawn`."""
        named = self._connection.collect(
            "spawn",
            reported(progress or self._progress),
            mounts=[absolute(as_mount(mount)) for mount in mounts],
            grants=list(grants),
            instructions=instructions,
            expert=expert,
            user=user,
            priority=priority,
            quotas=None if quotas is None else dict(quotas),
            seed=seed,
            fidelity=fidelity,
            work=None if work is None else str(Path(work).expanduser().absolute()),
            model=model,
            adapter=None if adapter is None else whole_path(adapter),
        )
        return RemoteProcess(self._connection, named, self._asker)

    @cached_property
    def adapters(self) -> RemoteAdapters:
        """Who runs with which adapter; see `kernel.adapters.Adapters`."""
        return RemoteAdapters(self._connection)

    def process(self, pid: int) -> RemoteProcess:
        """The process with that pid; NoSuchProcess."""
        return RemoteProcess(self._connection, self._connection.call("process", pid=pid), self._asker)

    def ps(self) -> list[Stat]:
        """Every process, by pid."""
        return [wire.load(Stat, line) for line in self._connection.call("ps")]

    def stat(self, pid: int) -> Stat:
        """One process's line of `ps`; NoSuchProcess."""
        return self.process(pid).stat()

    def pmap(self, pid: int, *, look: bool = False) -> list[Region]:
        """What stands in a process's window; see `Kernel.pmap`."""
        return [wire.load(Region, region) for region in self._connection.call("pmap", pid=pid, look=look)]

    def fill(self, pid: int, budget: int, *, look: bool = False, progress: Progress = silent) -> Filling:
        """Compute ahead of need what the windows of a process are put together of; see `Kernel.fill`."""
        given = {"pid": pid, "budget": budget, "look": look}
        found: Filling = wire.load(Filling, self._connection.collect("fill", reported(progress), **given))
        return found

    def top(self) -> Top:
        """The whole machine at this moment."""
        top: Top = wire.load(Top, self._connection.call("top"))
        return top

    def passed(self, pid: int) -> list[Passed]:
        """The last turn of a process as the model read and wrote it."""
        return [wire.load(Passed, one) for one in self._connection.call("passed", pid=pid)]

    def why(self, pid: int, *, call: bool = False, progress: Progress = silent) -> Why:
        """What the last answer of a process stood on, or its last call; see `Kernel.why`."""
        found: Why = wire.load(Why, self._connection.collect("why", reported(progress), pid=pid, call=call))
        return found

    def next_distribution(self, text: str, k: int = 10, pid: int = 0) -> list[tuple[str, float]]:
        """The `k` likeliest next tokens after `text`, with their probabilities; see `Kernel.next_distribution`."""
        rows = self._connection.call("next_distribution", text=text, k=k, pid=pid)
        return [(token, share) for token, share in rows]

    @property
    def syscalls(self) -> Mapping[str, Syscall]:
        """Every syscall of this machine by its full name."""
        from llmos.abi.manifest import Syscall

        found = [Syscall.model_validate(one) for one in self._connection.call("syscalls")]
        return {syscall.name: syscall for syscall in found}

    def replay(self, pid: int) -> Replay:
        """Run a process again from the journal; see `Kernel.replay`."""
        report: Replay = wire.load(Replay, self._connection.call("replay", pid=pid))
        return report

    def resume(self, path: str | Path) -> RemoteProcess:
        """A new process from a checkpoint, which stays when this program goes; see `Kernel.resume`."""
        named = self._connection.call("resume", path=str(Path(path).absolute()))
        return RemoteProcess(self._connection, named, self._asker)

    def records(
        self,
        take: Callable[[int, float, int, str, Mapping[str, Any]], None],
        pid: int | None = None,
        *,
        after: int = 0,
        follow: bool = False,
    ) -> None:
        """Give every record of the journal to `take`: number, time, pid, kind and body as JSON.

        Args:
            pid: of one process only.
            follow: also what is to come, until `take` raises.
        """
        self._connection.collect("journal", lambda part: take(*part), pid=pid, after=after, follow=follow)

    def shutdown(self, now: bool = False) -> None:
        """Stop the kernel: when the turns under way are answered, or at once. Returns when it takes no more."""
        self._connection.call("shutdown", now=now)

    def gone(self, timeout: float | None = None) -> bool:
        """Wait until the kernel has closed the connection; whether it has."""
        return self._connection.gone(timeout)


class RemoteAdapters:
    """The adapters of a kernel that runs elsewhere on this machine."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def list(self) -> Sequence[AdapterStat]:
        """The adapters that are kept, and who runs with them."""
        return [wire.load(AdapterStat, stat) for stat in self._connection.call("adapters")]

    def use(self, target: int | str, path: str | Path | None) -> str:
        """Have a process or an expert run with an adapter from the next turn on; its version."""
        name = None if path is None else whole_path(path)
        version: str = self._connection.call("adapt", target=target, path=name)
        return version

    def back(self, target: int | str) -> str:
        """Go back to what stood before the last `use`; the version that is in use then."""
        version: str = self._connection.call("unadapt", target=target)
        return version


def whole_path(path: str | Path) -> str:
    """A path as the kernel finds it, whose folder is another; what is no path here is a version that it keeps."""
    there = Path(path).expanduser().absolute()
    return str(there) if there.exists() else str(path)


def _same_file(one: str, other: str) -> bool:
    paths = [Path(name).expanduser() for name in (one, other)]
    return all(path.exists() for path in paths) and paths[0].samefile(paths[1])
