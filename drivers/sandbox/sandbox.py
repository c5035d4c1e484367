"""One confined program, with pipes to it.

What: starts a program behind all layers, talks to it over its stdin and stdout, interrupts it, ends it.
Invariant: the program runs only after its filter, namespaces and limits are in force; `end` kills bubblewrap, with
    which the sandbox's process namespace and everything in it goes. Reading is bounded by a time and by who reads;
    nothing that is printed piles up here. The sandbox dies with this program, and not with the thread that started it.
Interface: `Sandbox(program, limits)`, a context manager: `begin`, `send`, `receive`, `interrupt`, `end`, `work`,
    `ended`. Errors: SandboxMissing, SandboxEnded.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path

from llmos.drivers.sandbox import filter, layout
from llmos.drivers.sandbox.errors import SandboxEnded, SandboxMissing
from llmos.drivers.sandbox.groups import Group
from llmos.drivers.sandbox.limits import Limits
from llmos.drivers.sandbox.output import Clip

START_S = 30.0  # until the first program inside must have answered; usually a twentieth of a second
CHUNK = 1 << 16
WORDS = 8 << 10  # bytes kept of what is written to stderr


class Sandbox:
    """A program that was started and waits for `begin`; until then its files can be put into `work`.

    Args:
        program: a command line, found inside.
        limits: what it may use.

    Raises:
        SandboxMissing: a layer cannot be had here; nothing was run.
    """

    def __init__(self, program: Sequence[str], limits: Limits) -> None:
        self.limits = limits
        self.errors = Clip(WORDS)  # of stderr
        self._closing = ExitStack()
        try:
            self._group = Group(limits)
            self._closing.callback(self._group.remove)
            self._process, info = self._start(program)
            self._selector = self._closing.enter_context(selectors.DefaultSelector())
            for stream in (self._process.stdout, self._process.stderr):
                assert stream is not None
                os.set_blocking(stream.fileno(), False)
                self._selector.register(stream.fileno(), selectors.EVENT_READ)
            assert self._process.stdin is not None
            os.set_blocking(self._process.stdin.fileno(), False)
            self.pid = self._first(info)
        except BaseException:
            self.end()
            raise

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def work(self) -> Path:
        """The working folder inside, as it is seen from outside. To be opened before `begin`, and then kept open."""
        return Path(f"/proc/{self.pid}/root{layout.WORK}")

    @property
    def owner(self) -> int:
        """The user id, outside, of what runs inside."""
        return layout.NOBODY if os.geteuid() == 0 else os.geteuid()

    @property
    def ended(self) -> bool:
        """Whether it runs no more."""
        return self._process.poll() is not None

    def begin(self) -> None:
        """Let the program run."""
        self.send(b"\n", START_S)

    def send(self, data: bytes, seconds: float) -> None:
        """Write to its stdin; SandboxEnded where it takes nothing for so long, or is gone."""
        assert self._process.stdin is not None
        fd, end = self._process.stdin.fileno(), time.monotonic() + seconds
        left = memoryview(data)
        with selectors.DefaultSelector() as writable:
            writable.register(fd, selectors.EVENT_WRITE)
            while left:
                try:
                    left = left[os.write(fd, left) :]
                except BlockingIOError:
                    if not writable.select(max(end - time.monotonic(), 0)):
                        raise SandboxEnded("the program in the sandbox does not listen") from None
                except BrokenPipeError:
                    raise self.gone() from None

    def receive(self, seconds: float) -> bytes | None:
        """What it wrote to stdout next; b"" where nothing came for so long, None where it has closed its stdout.

        What it wrote to stderr meanwhile is in `errors`.
        """
        assert self._process.stdout is not None and self._process.stderr is not None
        out = self._process.stdout.fileno()
        ready = {key.fd for key, _ in self._selector.select(seconds)}
        if ready - {out}:
            self._hear()
        if out not in ready:
            return b""
        try:
            return os.read(out, CHUNK) or None
        except BlockingIOError:
            return b""

    def _hear(self) -> bool:
        """Read stderr once; whether there was something."""
        assert self._process.stderr is not None
        fd = self._process.stderr.fileno()
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return False
        if not data:
            with suppress(KeyError):
                self._selector.unregister(fd)
        self.errors.feed(data)
        return bool(data)

    def wait(self, seconds: float) -> int | None:
        """Its exit status, None where it runs on after so long; -9 and the like where a signal ended it."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        return code

    def interrupt(self) -> None:
        """What Ctrl-C does to the program that was asked for; its children are not told."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGINT)

    def end(self) -> None:
        """Kill everything in it, and forget it; safe to call twice, and from any thread."""
        process = getattr(self, "_process", None)
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                with suppress(OSError):
                    stream.close()
        self._closing.close()

    @property
    def hunger(self) -> str:
        """What to say where a process in it was ended for want of memory, else ""."""
        if not self._group.out_of_memory:
            return ""
        return f"its processes and files used more than {self.limits.memory >> 20} MiB of memory"

    def gone(self) -> SandboxEnded:
        """The error to raise where the program has ended, with the cause as far as it is known."""
        code = self.wait(1.0)
        while self._hear():
            pass
        words = self.errors.text.strip()
        if why := self.hunger:
            do = "use less at once"
        else:
            why, do = f"it ended with status {code}" + (f": {words[-500:]}" if words else ""), ""
        return SandboxEnded("the program in the sandbox has ended", why=why, do=do)

    # --- starting ---

    def _start(self, program: Sequence[str]) -> tuple[subprocess.Popen[bytes], int]:
        bpf = filter.program()
        with ExitStack() as inherited:

            def opened(fd: int) -> int:
                inherited.callback(os.close, fd)
                return fd

            read, write = os.pipe2(os.O_CLOEXEC)
            self._closing.callback(os.close, read)
            opened(write)
            files = [opened(filter.memory_file([data])) for data in (bpf, layout.PASSWD, layout.GROUP)]
            command = layout.command(
                program, self.limits, self._group.files,
                filter=files[0], passwd=files[1], group=files[2], info=write,
            )  # fmt: skip
            process = _starter().submit(_spawn, command, (*files, write)).result()
        return process, read

    def _first(self, info: int) -> int:
        """The pid, here, of the first program inside, once it runs behind all layers."""
        end = time.monotonic() + START_S
        heard = b""
        while len(heard) < len(layout.READY):
            data = self.receive(max(end - time.monotonic(), 0))
            if data is None or time.monotonic() > end:
                raise self._refused(timed_out=data is not None)
            heard += data
        told = json.loads(os.read(info, CHUNK))
        reaper = int(told["child-pid"])
        children = Path(f"/proc/{reaper}/task/{reaper}/children").read_text().split()
        if heard != layout.READY or len(children) != 1:
            raise self._refused(timed_out=False)
        self._pidfd = os.pidfd_open(int(children[0]))
        self._closing.callback(os.close, self._pidfd)
        return int(children[0])

    def _refused(self, timed_out: bool) -> SandboxMissing:
        if timed_out:
            return SandboxMissing(
                f"the sandbox did not start within {START_S:g} s", do="look at this machine's load"
            )
        self.wait(1.0)
        while self._hear():
            pass
        words = self.errors.text.strip() or f"status {self._process.returncode}"
        namespaces = (
            "allow user namespaces: sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000 "
            "kernel.apparmor_restrict_unprivileged_userns=0, in a container also its own filter (docker run --cap-add "
            "SYS_ADMIN --security-opt seccomp=unconfined); `llmos doctor` tells more"
        )
        return SandboxMissing("the sandbox cannot be made on this machine", why=words, do=namespaces)


def _spawn(command: layout.Command, inherited: Sequence[int]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command.arguments, env=dict(command.environment), pass_fds=inherited, cwd="/",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
        start_new_session=True,
    )  # fmt: skip


@cache
def _starter() -> ThreadPoolExecutor:
    """The one thread that starts sandboxes: bubblewrap dies with the thread that started it, so it stays."""
    return ThreadPoolExecutor(1, thread_name_prefix="sandbox")
