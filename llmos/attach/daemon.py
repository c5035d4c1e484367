"""A kernel that goes on when its terminal has gone: `llmos up` and `llmos down`.

What: starts a kernel in a process of its own with a gate, keeps its journal small, stops it in good order.
Invariant: one kernel a state folder: whoever holds `up.lock` is it, or is about to be. Whoever starts one learns how
    that went. What is unfinished when it stops, or is killed, goes on at the next start.
Interface: `up(config, progress) -> Started`, `foreground(config, ...)`, `down(config, now)`, `log_path(state)`.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmos.abi import wire
from llmos.abi.errors import EngineError, JournalInUse
from llmos.abi.progress import Progress, Unit, silent
from llmos.attach.machine import RemoteKernel, attach

if TYPE_CHECKING:
    from llmos.abi.config import Config
    from llmos.kernel.kernel import Kernel

LOOK_S = 0.05  # between two looks at something that another process does
MAINTAIN_S = 60.0  # between two looks at the journal's length
MAX_LOG_BYTES = 8 << 20  # of an old log; a longer one becomes `log.old` at the next start

Boot = Callable[["Config", Progress, Path], "Kernel"]
Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Started:
    """The kernel that runs now; `already` where it did before."""

    pid: int
    model: str
    already: bool


def log_path(state: Path) -> Path:
    """Where the kernel of the machine with that state writes what happens to it."""
    return state / "kernel" / "log"


def up(config: Config, progress: Progress = silent, *, boot: Boot | None = None) -> Started:
    """Start a kernel in the background; returns when it can be attached to.

    Args:
        boot: makes the kernel, in the new process.

    Raises:
        LLMOSError: what kept it from starting.
    """
    state = config.machine.state
    while True:
        with _lock(state) as mine:
            if mine:
                pid = _daemon(config, progress, boot or _boot)
                return Started(pid, config.kernel.model, already=False)
        # Another one runs, or is starting: it lets go of the lock, or it answers.
        running = attach(state)
        if running is not None:
            with running:
                running.check(config)
                return Started(running.pid, running.config.kernel.model, already=True)
        time.sleep(LOOK_S)


def foreground(config: Config, progress: Progress = silent, tell: Tell | None = None) -> None:
    """Run a kernel in this process until it is told to stop: by `llmos down`, SIGINT or SIGTERM.

    Raises:
        JournalInUse: one runs there already.
    """
    with _lock(config.machine.state) as mine:
        if not mine:
            raise JournalInUse(
                "a kernel runs on this state folder already", why=str(config.machine.state),
                do="use it, or stop it: `llmos down`",
            )  # fmt: skip
        _run(config, progress, tell or (lambda _: None), _boot)


def down(
    config: Config, *, now: bool = False, on_wait: Callable[[RemoteKernel], None] = lambda _: None
) -> int | None:
    """Stop the kernel and wait until all is written and its process has gone; its pid, None where none ran.

    Args:
        now: do not wait for the turns that are under way: they go on at the next start.
        on_wait: called before the wait.
    """
    state = config.machine.state
    running = attach(state)
    if running is None:
        return None
    with running:
        on_wait(running)
        with suppress(EngineError):  # that it has gone
            running.shutdown(now)
        running.gone()
    while True:
        with _lock(state) as free:
            if free:
                return running.pid
        time.sleep(LOOK_S)


@contextmanager
def _lock(state: Path) -> Iterator[bool]:
    """Whether nobody else is the kernel there, and until the end of the block nobody becomes it. A child that is forked
    inside shares it until both have let go."""
    folder = state / "kernel"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(folder / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(file)


# -- the new process ---------------------------------------------------------------------------------------------


def _daemon(config: Config, progress: Progress, boot: Boot) -> int:
    """Fork twice, so that the kernel belongs to nobody; its pid, once it is ready."""
    told, telling = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _be_daemon(config, telling, boot)
    os.close(telling)
    os.waitpid(child, 0)
    pid = 0
    try:
        with os.fdopen(told, encoding="utf-8") as lines:
            for line in lines:
                match json.loads(line):
                    case {"pid": int(pid)}:
                        pass
                    case {"progress": [str(task), int(done), int(total), str(unit)]}:
                        progress(task, done, total, "bytes" if unit == "bytes" else "items")
                    case {"ready": True}:
                        return pid
                    case {"error": dict(error)}:
                        raise wire.load_error(error)
    except KeyboardInterrupt:
        if pid:
            os.kill(pid, signal.SIGTERM)
        raise
    raise EngineError(
        "the kernel ended while it started", why="its process was killed", do="look at `llmos logs`"
    )


def _be_daemon(config: Config, telling: int, boot: Boot) -> None:
    """In the child: never returns."""
    code = 1
    out = os.fdopen(telling, "w", encoding="utf-8", buffering=1)

    def tell(what: dict[str, Any]) -> None:
        with suppress(OSError, ValueError):  # whoever started this has gone, or knows enough
            out.write(json.dumps(what) + "\n")
            if "ready" in what:
                out.close()

    def progress(task: str, done: int, total: int, unit: Unit = "items", /) -> None:
        tell({"progress": [task, done, total, unit]})

    try:
        os.setsid()
        if os.fork() == 0:
            tell({"pid": os.getpid()})
            _redirect(log_path(config.machine.state))
            _run(config, progress, tell, boot)
        code = 0
    except BaseException as error:  # the last door: whoever waits is told, the log has it all
        logging.getLogger("llmos").exception("the kernel ended")
        tell({"error": wire.dump_error(error)})
    finally:
        logging.shutdown()
        os._exit(code)


def _redirect(log: Path) -> None:
    """Standard input from nowhere, output into the log."""
    with suppress(FileNotFoundError):
        if log.stat().st_size > MAX_LOG_BYTES:
            log.replace(log.with_name("log.old"))
    nothing = os.open(os.devnull, os.O_RDONLY)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for source, target in ((nothing, 0), (file, 1), (file, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(file)


def _boot(config: Config, progress: Progress, state: Path) -> Kernel:
    from llmos.kernel.boot import boot

    return boot(config, progress, state=state)


def _run(config: Config, progress: Progress, tell: Tell, boot: Boot) -> None:
    """A kernel with its gate, from its boot to its end."""
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    log = logging.getLogger("llmos")
    log.setLevel(logging.INFO)
    from llmos.kernel.gate import Gate

    with boot(config, progress, config.machine.state / "kernel") as kernel:
        stopping = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopping.set())
        if kernel.journal.loss is not None:
            log.warning("the journal has lost something: %s", kernel.journal.loss)
        with Gate(kernel, stopping=stopping):
            resumed = sum(process.exit is None for process in kernel.table)
            log.info("ready: %s, process %s, %s processes go on", config.kernel.model, os.getpid(), resumed)
            tell({"ready": True})
            while not stopping.wait(MAINTAIN_S):
                try:
                    kernel.journal.maintain()
                except Exception:  # a full disk: the next look may find room
                    log.exception("the journal could not be kept small")
        log.info("going down")
    log.info("down: all is written")
