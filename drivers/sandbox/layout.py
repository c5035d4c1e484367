"""What a sandbox looks like from inside, and how it is entered: the command lines.

What: the arguments of bubblewrap, and the shell script before it that joins the control group and, for root, gives up
    root.
Invariant: a program sees a read-only /usr, the folders of this Python read-only in their own places, and nothing else
    of the host; what it can write lies in memory and has a size. Root's rights are given up before bubblewrap starts,
    so no process in the sandbox, its first one included, has ever been root's or has seen root's environment.
Interface: `command(layout)` -> `Command`; `WORK`, the working folder inside; `NOBODY`, the user id that root becomes.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from llmos.drivers.sandbox.errors import SandboxMissing
from llmos.drivers.sandbox.limits import Limits

WORK = "/home/nobody"
NOBODY = 65534
PACKAGES = ("numpy", "pandas", "scipy", "matplotlib", "sympy")  # their folders are to be seen inside
READY = b"ready\n"  # the first line from inside; a line to it starts the program

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ETC = (
    "alternatives",
    "fonts",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "magic",
    "mime.types",
)
PASSWD = b"nobody:x:65534:65534:nobody:/home/nobody:/bin/sh\n"
GROUP = b"nogroup:x:65534:\n"
_PLACES = (
    "/mnt",
    "/media",
    "/srv",
    "/opt",
    "/home",
    "/run",
    "/var/tmp",
    "/tmp",
)  # one that no folder lies in
_PROGRAMS = {
    "bwrap": "bubblewrap", "unshare": "util-linux", "mount": "mount", "setpriv": "util-linux",
    "prlimit": "util-linux", "env": "coreutils",
}  # fmt: skip

# Joins the groups that are named up to "--", then becomes what follows.
_JOIN = """
while [ "$1" != -- ]; do echo 0 >"$1" || exit 97; shift; done; shift
exec "$@"
"""

# Root only, in a mount namespace of its own. The folders up to "--" are bound where an ordinary user can reach them
# (one below /root could not be), then the rest is done as that user.
_DROP = """
place=$1 user=$2; shift 2
mount -t tmpfs -o mode=755,size=64k,nosuid,nodev llmos "$place" || exit 98
n=0
while [ "$1" != -- ]; do
    mkdir "$place/$n" && mount --rbind "$1" "$place/$n" || exit 98
    n=$((n + 1)); shift
done; shift
exec setpriv --reuid="$user" --regid="$user" --clear-groups --inh-caps=-all --bounding-set=-all -- "$@"
"""

# The first program inside: waits for its files, then becomes the one that was asked for.
_BEGIN = 'echo ready; read -r _ && exec "$@"'


@dataclass(frozen=True, slots=True)
class Command:
    """A command line and its environment."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]


def programs() -> dict[str, str]:
    """Path of every program that a sandbox is started with; SandboxMissing names the one that is not installed."""
    found = {}
    for name, package in _PROGRAMS.items():
        path = shutil.which(name, path=_PATH)
        if path is None:
            raise SandboxMissing(
                f"the sandbox needs {name}", why="it is not installed", do=f"apt-get install {package}"
            )
        found[name] = path
    return found


@cache
def packages() -> tuple[Path, ...]:
    """The folders of the packages that are to be seen inside: what `sys.path` needs besides this Python's."""
    specs = [importlib.util.find_spec(name) for name in PACKAGES]
    folders = [Path(spec.origin).resolve().parents[1] for spec in specs if spec is not None and spec.origin]
    return tuple(dict.fromkeys(folders))


@cache
def python_folders() -> tuple[Path, ...]:
    """The folders of this Python and of those packages, without those below /usr."""
    folders = {Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), *packages()}
    outside = [f for f in folders if not f.is_relative_to("/usr") and f != Path("/")]
    return tuple(sorted(f for f in outside if not any(f != o and f.is_relative_to(o) for o in outside)))


def command(
    program: Sequence[str],
    limits: Limits,
    groups: Sequence[Path],
    *,
    filter: int,
    passwd: int,
    group: int,
    info: int,
) -> Command:
    """How to start `program` in a sandbox.

    Args:
        groups: files of the control group, to join it.
        filter, passwd, group: descriptors of files in memory.
        info: the descriptor on which bubblewrap tells who it started.
    """
    have = programs()
    folders = python_folders()
    root = os.geteuid() == 0
    place = next((p for p in _PLACES if _usable(p, folders)), None)
    if place is None:
        why = f"this Python lies below each of {', '.join(_PLACES)}, or they are not there"
        raise SandboxMissing("there is no place to begin a sandbox in", why=why, do="mkdir /mnt")
    sources = [f"{place}/{n}" if root else str(folder) for n, folder in enumerate(folders)]
    inside = _bwrap(have["bwrap"], limits, folders, sources, filter, passwd, group, info)
    start = ["/bin/sh", "-c", _BEGIN, "sh", *_rlimits(have["prlimit"], limits), *program]
    # Who was started in the background of a shell ignores Ctrl-C, and so would all that it starts.
    outside = [have["env"], "--default-signal=INT", "/bin/sh", "-c", _JOIN, "sh", *map(str, groups), "--"]
    if root:
        outside += [
            have["unshare"],
            "--mount",
            "--propagation",
            "private",
            "--",
            "/bin/sh",
            "-c",
            _DROP,
            "sh",
        ]
        outside += [place, str(NOBODY), *map(str, folders), "--"]
    return Command((*outside, *inside, *start), {"PATH": _PATH})


def _usable(place: str, folders: Sequence[Path]) -> bool:
    return Path(place).is_dir() and not any(folder.is_relative_to(place) for folder in folders)


def _bwrap(
    bwrap: str,
    limits: Limits,
    folders: Sequence[Path],
    sources: Sequence[str],
    filter: int,
    passwd: int,
    group: int,
    info: int,
) -> list[str]:
    line = [bwrap, "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
    line += ["--unshare-cgroup", "--disable-userns", "--uid", str(NOBODY), "--gid", str(NOBODY)]
    line += ["--hostname", "sandbox", "--cap-drop", "ALL", "--new-session", "--die-with-parent", "--clearenv"]
    line += ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        folder = Path("/", name)
        if folder.is_symlink():
            line += ["--symlink", str(folder.readlink()), str(folder)]
        elif folder.is_dir():
            line += ["--ro-bind", str(folder), str(folder)]
    for name in _ETC:
        line += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    line += ["--ro-bind-data", str(passwd), "/etc/passwd", "--ro-bind-data", str(group), "/etc/group"]
    line += [
        "--proc",
        "/proc",
        "--ro-bind",
        "/proc/sys",
        "/proc/sys",
        "--remount-ro",
        "/proc",
        "--dev",
        "/dev",
    ]
    for place, mode in (("/dev/shm", "1777"), ("/tmp", "1777"), (WORK, "0755")):
        line += ["--perms", mode, "--size", str(limits.disk), "--tmpfs", place]
    for folder, source in zip(folders, sources, strict=True):
        line += ["--ro-bind", source, str(folder)]
    line += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", WORK]
    for name, value in _environment(limits).items():
        line += ["--setenv", name, value]
    return [*line, "--info-fd", str(info), "--seccomp", str(filter), "--"]


def _environment(limits: Limits) -> dict[str, str]:
    """All that programs inside find in their environment."""
    threads = str(max(1, int(limits.cpus)))
    return {
        "PATH": f"{Path(sys.prefix) / 'bin'}:{_PATH}",
        "HOME": WORK,
        "LANG": "C.UTF-8",
        **({"TZ": os.environ["TZ"]} if "TZ" in os.environ else {}),
        "TERM": "dumb",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": ":".join(map(str, packages())),
        "MALLOC_ARENA_MAX": "2",  # address space is limited
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "MPLBACKEND": "agg",
        "MPLCONFIGDIR": "/tmp/.matplotlib",
        "XDG_CACHE_HOME": "/tmp/.cache",
        "XDG_CONFIG_HOME": "/tmp/.config",
        "GIT_CONFIG_COUNT": "3",
        "GIT_CONFIG_KEY_0": "user.name",
        "GIT_CONFIG_VALUE_0": "llmos",
        "GIT_CONFIG_KEY_1": "user.email",
        "GIT_CONFIG_VALUE_1": "llmos@sandbox",
        "GIT_CONFIG_KEY_2": "init.defaultBranch",
        "GIT_CONFIG_VALUE_2": "main",
    }


def _rlimits(prlimit: str, limits: Limits) -> list[str]:
    """Set inside: the number of processes is then counted in the sandbox's own user namespace."""
    return [
        prlimit,
        f"--as={limits.memory}",
        f"--data={limits.memory}",  # in place of what its app may hold
        f"--cpu={limits.cpu_seconds}",
        f"--fsize={limits.disk}",
        f"--nofile={limits.files}",
        f"--nproc={limits.processes}",
        "--core=0",
        "--memlock=0",
        "--msgqueue=0",
        "--",
    ]
