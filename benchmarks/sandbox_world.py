"""The world around hostile programs: what they look for, and the judge of what they got.

What: plants secrets and listeners on this machine, runs each snippet in a sandbox of its own, and looks at what came
    of it: at what was printed, at files, connections and processes. Runs all of it again as an ordinary user.
Invariant: a snippet counts as contained only if it has ended in time, nothing of it lives on, the world is as it was,
    and its result holds neither a secret nor a sign that could mislead a reader.
Interface: `World(folder)`: `judge(snippet)` -> `Verdict`, `bare(snippet)`; `as_user(names)`; `python -m
    benchmarks.sandbox_world NAME...` prints verdicts as JSON.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import secrets
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.sandbox_corpus import PRELUDE, SNIPPETS, Snippet
from llmos.abi.errors import LLMOSError
from llmos.apps.interpreter.session import Session
from llmos.apps.terminal import run as run_command
from llmos.drivers.sandbox import Limits
from llmos.drivers.sandbox.groups import SHARED, hierarchies
from llmos.drivers.sandbox.layout import python_folders

LIMITS = Limits(
    seconds=2.0, memory=256 << 20, disk=32 << 20, processes=40, files=128, output=16_000, cpu_seconds=60
)
ROOT = Path(__file__).resolve().parent.parent
USER = 51234  # an ordinary user, who needs no name
PATIENCE_S = 20.0  # that a snippet may take beyond its limit on a busy machine
_MISLEADING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a snippet; `why` is empty where it was contained."""

    title: str
    why: str
    seconds: float


class World:
    """Things to steal, to break and to reach.

    Args:
        folder: an empty folder that everybody may enter.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._closing = ExitStack()
        self._token = secrets.token_hex(16)
        self._open, self._volume = folder / "open", folder / "volume"
        home, sockets = folder / "home", folder / "sockets"
        for place in (self._open, self._volume, home, sockets):
            place.mkdir()
            place.chmod(0o777)
        for place in (folder, home):
            (place / "llmos-secret").write_text(self._token)
        shared = Path("/dev/shm", f"llmos-secret-{os.getpid()}")
        shared.write_text(self._token)
        self._closing.callback(shared.unlink)
        self._inherited = os.open(folder / "llmos-secret", os.O_RDONLY)
        os.set_inheritable(self._inherited, True)
        self._closing.callback(os.close, self._inherited)
        os.environ["LLMOS_WORLD_SECRET"] = self._token
        self._closing.callback(os.environ.pop, "LLMOS_WORLD_SECRET")
        self._bystander = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", "import time; time.sleep(3600)", self._token], cwd=folder
        )
        self._closing.callback(self._bystander.wait)
        self._closing.callback(self._bystander.kill)
        self._listeners = self._listen(sockets)
        self._where = {
            "tcp": self._listeners[0].getsockname()[1],
            "udp": self._listeners[1].getsockname()[1],
            "unix": str(sockets / "socket"),
            "abstract": f"llmos-{self._token[:8]}",
            "secret_file": str(folder / "llmos-secret"),
            "home": str(home),
            "host_dir": str(self._open),
            "pid": self._bystander.pid,
            "launcher": os.getpid(),
            "shm": shared.name,
            "ipc": self._system_v(),
            "hostname": os.uname().nodename,
        }

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def judge(self, snippet: Snippet) -> Verdict:
        """Run a snippet in a sandbox, and look at what came of it."""
        volume = self._volume / secrets.token_hex(4)
        volume.mkdir()
        began = time.monotonic()
        said, told = self._confined(snippet, volume)
        seconds = time.monotonic() - began
        why = self._harm(said, told)
        if seconds > LIMITS.seconds + PATIENCE_S:
            why += f"it took {seconds:.0f} s; "
        why += _alive() + _carried(volume)
        shutil.rmtree(volume)
        return Verdict(snippet.title, why, seconds)

    def bare(self, snippet: Snippet) -> str:
        """Run a snippet without a sandbox, and say what it got: so the judge can be judged."""
        folder = self._volume / secrets.token_hex(4)
        folder.mkdir()
        environment = {**os.environ, "HOME": str(folder), **self._variables()}
        command = ["/bin/bash", "-c", snippet.code]
        if snippet.language == "python":
            command = [sys.executable, "-c", self._program(snippet, bare=True)]
        try:
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, timeout=20, check=False,
                stdin=subprocess.DEVNULL, pass_fds=(self._inherited,),
            )  # fmt: skip
            said = done.stdout.decode(errors="replace")
        except subprocess.TimeoutExpired as error:
            said = (error.stdout or b"").decode(errors="replace")
        return self._harm(said, "")

    def _confined(self, snippet: Snippet, volume: Path) -> tuple[str, str]:
        """What the program printed, and all that a reader is shown."""
        try:
            if snippet.language == "bash":
                lines = "".join(f"{name}='{value}'; " for name, value in self._variables().items())
                shown = run_command(lines + snippet.code, volume, LIMITS).text
                return shown, shown
            session = Session(LIMITS, volume)
            try:
                cell = session.run(self._program(snippet, bare=False))
                shown = f"{cell.output}\n{cell.value}\n{cell.error}\n{cell.changes.words()}"
                return f"{cell.output}\n{cell.value}", shown
            finally:
                session.close()
        except LLMOSError as error:
            return "", str(error)

    def _program(self, snippet: Snippet, *, bare: bool) -> str:
        return f"{PRELUDE}\nW = {dict(self._where, bare=bare)!r}\n{snippet.code}"

    def _variables(self) -> dict[str, str]:
        w = self._where
        return {
            "TCP": str(w["tcp"]), "SECRET_FILE": str(w["secret_file"]), "HOST_DIR": str(w["host_dir"]),
        }  # fmt: skip

    def _harm(self, said: str, shown: str) -> str:
        """What was read, reached, changed or could mislead; the world is put in order again."""
        why = ""
        if "ESCAPED" in said:
            why += f"it says {said[said.index('ESCAPED') :][:80]!r}; "
        if self._token in said or self._token in shown:
            why += "it has read a secret; "
        if sign := _MISLEADING.search(shown):
            why += f"its result holds {sign[0]!r}; "
        if len(shown) > 4 * LIMITS.output:
            why += f"its result has {len(shown)} characters; "
        for listener in self._listeners:
            with suppress(BlockingIOError):
                while True:
                    if listener.type == socket.SOCK_DGRAM:
                        listener.recv(100)
                    else:
                        listener.accept()[0].close()
                    why += f"it has reached {listener.family.name}; "
        for found in [*self._open.iterdir(), Path("/tmp/llmos-out")]:
            if found.exists() or found.is_symlink():
                why += f"it has made {found.name}; "
                shutil.rmtree(found) if found.is_dir() else found.unlink()
        if self._bystander.poll() is not None:
            why += "it has killed another process; "
        return why

    def _listen(self, folder: Path) -> list[socket.socket]:
        """Listeners of several families; who connects is in their queues."""
        inet = self._socket(socket.AF_INET, ("127.0.0.1", 0))
        found = [inet, self._socket(socket.AF_INET, ("127.0.0.1", 0), socket.SOCK_DGRAM)]
        found.append(self._socket(socket.AF_UNIX, str(folder / "socket")))
        (folder / "socket").chmod(0o777)
        found.append(self._socket(socket.AF_UNIX, f"\0llmos-{self._token[:8]}"))
        with suppress(OSError):  # a machine without IPv6
            found.append(self._socket(socket.AF_INET6, ("::1", inet.getsockname()[1])))
        return found

    def _socket(self, family: int, address: object, kind: int = socket.SOCK_STREAM) -> socket.socket:
        made = self._closing.enter_context(socket.socket(family, kind))
        made.bind(address)  # type: ignore[arg-type]
        made.setblocking(False)
        if kind == socket.SOCK_STREAM:
            made.listen(100)
        return made

    def _system_v(self) -> int:
        """The key of a piece of System V memory that holds the secret."""
        libc = ctypes.CDLL(None)
        libc.shmat.restype = ctypes.c_void_p
        key = secrets.randbelow(1 << 30) + 1
        number = libc.shmget(key, 4096, 0o1666)
        if number >= 0:
            self._closing.callback(libc.shmctl, number, 0, None)
            place = libc.shmat(number, None, 0)
            ctypes.memmove(place, self._token.encode(), len(self._token))
            libc.shmdt(ctypes.c_void_p(place))
        return key


def _alive() -> str:
    """Whether control groups of ours are left: one cannot be removed while a process of it lives."""
    name = f"llmos-{os.getpid()}-*"
    left = [found for h in hierarchies() for found in [*h.own.glob(name), *h.top.glob(f"*/{name}")]]
    return f"processes live on in {left[0]}; " if left else ""


def _carried(volume: Path) -> str:
    """What is in a working volume that should not be there."""
    size = count = 0
    for folder, below, names in os.walk(volume):
        for name in (*below, *names):
            found = os.lstat(os.path.join(folder, name))  # noqa: PTH118 (bytes may be no text)
            count += 1
            if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)) or found.st_mode & 0o7000:
                return f"{name!r} with mode {found.st_mode:o} was carried out; "
            size += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return f"{size} bytes were carried out; " if size > LIMITS.disk else ""


# --- as another user ------------------------------------------------------------------------------------------------


def as_user(titles: Sequence[str] = ()) -> list[Verdict]:
    """Judge the snippets of these titles (all without any) as an ordinary user. For root only, who lends that user a
    control group, and a view of the folders that only root may enter."""
    folders = _lend_groups()
    try:
        done = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", sys.executable, "-m", __name__, "--lend", *titles],
            cwd=ROOT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"the snippets did not run as an ordinary user: {done.stderr[-2000:]}")
        return [Verdict(**verdict) for verdict in json.loads(done.stdout)]
    finally:
        for folder in folders:
            with suppress(OSError):  # it is lent to another run, too
                folder.rmdir()


def _lend_groups() -> list[Path]:
    made = []
    for hierarchy in hierarchies():
        folder = hierarchy.top / SHARED.format(USER)
        folder.mkdir(exist_ok=True)
        for file in (folder, *folder.glob("cgroup.*")):
            os.chown(file, USER, USER)
        made.append(folder)
    return made


def _lend_folders() -> None:
    """In a mount namespace of our own: let everybody enter the folders of this Python and of this repository."""
    wanted = {ROOT, *python_folders(), *(Path(p).resolve() for p in sys.path if Path(p).is_dir())}
    shut = {folder: blocked for folder in wanted if (blocked := _shut(folder)) is not None}
    stage = Path(tempfile.mkdtemp(dir="/mnt"))
    for number, folder in enumerate(shut):
        (stage / str(number)).mkdir()
        subprocess.run(["mount", "--rbind", folder, stage / str(number)], check=True)
    for blocked in set(shut.values()):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "llmos", blocked], check=True)
    for number, folder in enumerate(shut):
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "--rbind", stage / str(number), folder], check=True)


def _shut(folder: Path) -> Path | None:
    """The first folder on the way that others may not enter."""
    for place in [*reversed(folder.parents), folder]:
        if not place.stat().st_mode & 0o001:
            return place
    return None


def main() -> None:
    """Judge the named snippets, or all, and print the verdicts; with `--lend` give up root first."""
    names = sys.argv[1:]
    if names[:1] == ["--lend"]:
        _lend_folders()
        for hierarchy in hierarchies():
            if hierarchy.unified:  # version 2: only who is in a lent group can make groups in it
                (hierarchy.top / SHARED.format(USER) / "cgroup.procs").write_text("0")
        os.setgroups([])
        os.setresgid(USER, USER, USER)
        os.setresuid(USER, USER, USER)
        environment = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "PYTHONPATH": str(ROOT), "HOME": "/nowhere"}
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.sandbox_world", *names[1:]], environment)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with World(Path(folder)) as world:
            chosen = [s for s in SNIPPETS if not names or s.title in names]
            print(json.dumps([asdict(world.judge(s)) for s in chosen]))


if __name__ == "__main__":
    main()
