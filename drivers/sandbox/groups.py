"""A control group for one sandbox: what all its processes use together.

What: finds where this user may make groups, in version 2 or 1 of cgroups, makes one with limits, and removes it.
Invariant: memory, processes and processors are limited, or there is no group. A user's group lies below this program's
    own, so limits that hold for us hold for it, or at the top in one that root makes for itself or, in version 1, for
    a user.
Interface: `Group(limits)`: `files` (each takes the pid of who joins), `out_of_memory`, `remove`; `hierarchies()`.
    Errors: SandboxMissing.
"""

from __future__ import annotations

import errno
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from llmos.drivers.sandbox.errors import SandboxMissing
from llmos.drivers.sandbox.limits import Limits

CONTROLLERS = ("memory", "pids", "cpu")
PERIOD_US = 100_000  # of the processor's share
SHARED = "llmos-user-{}"  # the group at the top that root makes for a user id, its own included
LEAF = "llmos-others"  # where processes go that stood where version 2 allows none
PATIENCE_S = 5.0  # for the last process of a group to go

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted tree of groups: its folder, the folder of our own group, and the controllers that it has."""

    top: Path
    own: Path
    controllers: tuple[str, ...]
    unified: bool


class Group:
    """One group in each hierarchy that is needed."""

    def __init__(self, limits: Limits) -> None:
        self._folders: list[Path] = []
        name = f"llmos-{os.getpid()}-{next(_numbers)}"
        try:
            for hierarchy in hierarchies():
                folder = _make(hierarchy, name)
                self._folders.append(folder)
                _limit(folder, hierarchy, limits)
        except OSError as error:
            self.remove()
            raise _missing(f"{error.filename}: {error.strerror}") from None
        except BaseException:
            self.remove()
            raise

    @property
    def files(self) -> list[Path]:
        """Who writes 0 into each of these files joins the group."""
        return [folder / "cgroup.procs" for folder in self._folders]

    @property
    def out_of_memory(self) -> bool:
        """Whether a process was ended because the group had used up its memory."""
        for folder in self._folders:
            for name in ("memory.events", "memory.oom_control"):
                with suppress(OSError):
                    for line in (folder / name).read_text().splitlines():
                        if line.startswith("oom_kill ") and line.split()[1] != "0":
                            return True
        return False

    def remove(self) -> None:
        """Remove it; its processes have been ended, and are gone at once or soon."""
        end = time.monotonic() + PATIENCE_S
        for folder in self._folders:
            while True:
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    pass
                except OSError as error:
                    if error.errno == errno.EBUSY and time.monotonic() < end:
                        time.sleep(0.002)
                        continue
                break
        self._folders = []


def hierarchies() -> list[Hierarchy]:
    """Those that have the controllers; SandboxMissing where one is in none."""
    found = list(_mounted())
    chosen = [h for h in found if h.unified and set(CONTROLLERS) <= set(h.controllers)][:1]
    if not chosen:
        for controller in CONTROLLERS:
            here = next((h for h in found if controller in h.controllers), None)
            if here is None:
                raise _missing(f"no mounted hierarchy has the controller {controller!r}")
            if here not in chosen:
                chosen.append(here)
    return chosen


def _mounted() -> Iterator[Hierarchy]:
    owns = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            owns[name] = path
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place, _, kind = line.partition(" - ")
        root, mount = place.split()[3:5]
        type_, _, options = kind.split()[:3]
        if type_ == "cgroup2":
            top = Path(mount)
            with suppress(OSError):
                controllers = tuple((top / "cgroup.controllers").read_text().split())
                yield Hierarchy(top, _below(top, root, owns.get("", "/")), controllers, True)
        elif type_ == "cgroup":
            controllers = tuple(name for name in CONTROLLERS if name in options.split(","))
            if controllers:
                top = Path(mount)
                yield Hierarchy(top, _below(top, root, owns.get(controllers[0], "/")), controllers, False)


def _below(top: Path, root: str, own: str) -> Path:
    """Where our own group is to be seen, below a mount that shows the tree from `root` on."""
    if root != "/" and (own == root or own.startswith(f"{root}/")):
        own = own[len(root) :]
    folder = top / own.lstrip("/")
    return folder if folder.is_dir() else top


def _make(hierarchy: Hierarchy, name: str) -> Path:
    """A new group in the first place where one can be made."""
    own, shared = hierarchy.own, hierarchy.top / SHARED.format(os.geteuid())
    if own.name == LEAF:
        own = own.parent
    places = [own, shared]
    if os.geteuid() == 0:  # our own group may be in somebody else's hands (systemd's), the top is root's
        with suppress(OSError):
            if hierarchy.unified:
                _delegate(hierarchy.top, evict=False)
            shared.mkdir(exist_ok=True)
        places.reverse()
    trouble: list[str] = []
    for place in places:
        try:
            if hierarchy.unified:
                _delegate(place, evict=True)
            _sweep(place)
            folder = place / name
            folder.mkdir()
            return folder
        except OSError as error:
            trouble.append(f"{error.filename or place}: {error.strerror}")
    raise _missing("; ".join(trouble))


def _delegate(place: Path, *, evict: bool) -> None:
    """Let groups below `place` have the controllers (version 2), if need be by moving its processes into a leaf."""
    switch = place / "cgroup.subtree_control"
    lacking = [name for name in CONTROLLERS if name not in switch.read_text().split()]
    if not lacking:
        return
    words = " ".join(f"+{name}" for name in lacking)
    try:
        switch.write_text(words)
    except OSError as error:
        if (
            error.errno != errno.EBUSY or not evict
        ):  # it holds processes, which version 2 allows in leaves only
            raise
        leaf = place / LEAF
        leaf.mkdir(exist_ok=True)
        for pid in (place / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                (leaf / "cgroup.procs").write_text(pid)
        switch.write_text(words)


def _sweep(place: Path) -> None:
    """Remove what programs left that were killed: a group that still holds a process cannot be removed."""
    for folder in place.glob("llmos-[0-9]*-[0-9]*"):
        if not Path("/proc", folder.name.split("-")[1]).exists():
            with suppress(OSError):
                folder.rmdir()


def _limit(folder: Path, hierarchy: Hierarchy, limits: Limits) -> None:
    quota = round(limits.cpus * PERIOD_US)
    if hierarchy.unified:
        wanted: Sequence[tuple[str, object]] = (
            ("memory.max", limits.memory), ("memory.swap.max", 0), ("memory.oom.group", 1),
            ("pids.max", limits.processes), ("cpu.max", f"{quota} {PERIOD_US}"),
        )  # fmt: skip
    else:
        wanted = (
            ("memory.limit_in_bytes", limits.memory), ("memory.memsw.limit_in_bytes", limits.memory),
            ("pids.max", limits.processes), ("cpu.cfs_quota_us", quota),
        )  # fmt: skip
    for name, value in wanted:
        if name.partition(".")[0] not in hierarchy.controllers:
            continue
        file = folder / name
        if "sw" in name and not file.exists():  # this machine counts no swap
            continue
        file.write_text(str(value))


def _missing(why: str) -> SandboxMissing:
    user = os.geteuid()
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        do = "run llmos under `systemd-run --user --scope -p Delegate=yes`"
    else:
        folders = [f"/sys/fs/cgroup/{name}/{SHARED.format(user)}" for name in CONTROLLERS]
        names = " ".join(folders)
        do = f"as root: mkdir -p {names} && chown -R {user} {names}"
    return SandboxMissing("the sandbox has no control group", why=why, do=do)
