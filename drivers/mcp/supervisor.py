"""The parent of one app's process: it outlives the app, and leaves none of its children alive.

What: a small program between kernel and app. It starts the app, adopts whatever the app's children orphan
    (Linux's child subreaper), and ends all of them when the app ends or when the lifeline, a pipe whose other
    end the kernel holds, is closed: by the kernel, or by the kernel's death.
Invariant: when it exits, no descendant of the app is left, sessions and double forks notwithstanding. None of the
    app's processes holds more private memory than it may, and where the whole machine runs short, they are ended before
    the kernel is. Standard library only, and as little of it as will do: it is started for every app.
Interface: `python -I -S supervisor.py LIFELINE_FD MEMORY_BYTES PROGRAM [ARGUMENT...]`; exits as the app does
    (128 + signal).
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import sys
import time

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
GRACE = 0.3  # seconds between asking and killing
FIRST_TO_GO = 500  # of 1000: how much rather than others the system ends a process when memory runs out


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _bound(memory: int) -> None:
    """Limit this process and what it will start. The limit is a soft one: walls within an app (a sandbox's, a
    browser's) set their own."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    most = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(FIRST_TO_GO))
    except OSError:
        pass  # it is higher already, or there is none: the limit holds all the same


def _descendants() -> list[int]:
    """Every process below this one, by the parents that /proc names."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 (pathlib would double the time that this program starts in)
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue  # it has just ended
            parents[int(name)] = int(fields[1])
    found: list[int] = []
    frontier = {os.getpid()}
    while frontier:
        frontier = {pid for pid, parent in parents.items() if parent in frontier}
        found += frontier
    return found


def _signal_all(number: int) -> None:
    for pid in _descendants():
        try:  # noqa: SIM105 (contextlib is one more import at every start)
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def _reap(app: int) -> int | None:
    """Collect what has ended; the app's wait status if it is among them."""
    status = None
    while True:
        try:
            pid, ended = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == app:
            status = ended


def _end_all(app: int) -> int | None:
    """End every descendant, by force if need be; the app's wait status if it was still unknown."""
    _signal_all(signal.SIGTERM)
    status, began = None, time.monotonic()
    while _descendants():
        late = time.monotonic() - began > GRACE
        if late:
            _signal_all(signal.SIGKILL)  # again and again: one may fork while others die
        status = _reap(app) if status is None else (_reap(app), status)[1]
        time.sleep(0.005)
    return status


def main() -> int:
    """Start the app, wait for its end or the kernel's, clean up."""
    lifeline, memory, program = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: None)  # the kernel's way is the lifeline
    signal.signal(signal.SIGINT, lambda *_: None)
    me, app = os.getpid(), os.fork()
    if app == 0:
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != me:
                os._exit(137)
            os.close(lifeline)
            os.setpgid(0, 0)
            _bound(memory)
            os.execvp(program[0], program)
        except OSError as error:
            os.write(2, f"{program[0]}: {error.strerror}\n".encode())
        finally:
            os._exit(127)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)  # the app alone holds the pipes: its end is their end
    os.dup2(null, 1)
    status = None
    while status is None:
        ready, _, _ = select.select([wake, lifeline], [], [])
        if wake in ready:
            os.read(wake, 512)
        status = _reap(app)
        if lifeline in ready and status is None:
            break
    status = _end_all(app) if status is None else (_end_all(app), status)[1]
    code = os.waitstatus_to_exitcode(status) if status is not None else -signal.SIGKILL
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    os._exit(main())
