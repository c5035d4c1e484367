"""What a line does.

What: sends each line where it belongs: a command, the sandbox, or the foreground process; keeps the processes that this
    shell has to do with.
Invariant: a line either does what it says or raises the error that says why not. A process is spawned when it is first
    needed. Under a running kernel every question is asked `detached`: it is answered whether the shell is there or not.
Interface: `Shell(link, face, start)`: `line(text)`, `expect(text)`, `settle`, `interrupt`, `recover`; for commands
    `kernel`, `job`, `jobs`, `say`, `bring`, `adopt`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmos.abi.errors import LLMOSError, TurnRefused
from llmos.abi.events import Ask, Done, Event
from llmos.abi.mount import Mount
from llmos.abi.progress import Unit
from llmos.abi.specialist import Specialist
from llmos.apps.shell import approval
from llmos.apps.shell.jobs import Job
from llmos.drivers.terminal import neutralise

if TYPE_CHECKING:
    from llmos.abi.config import Config
    from llmos.abi.machine import AnyProcess, AnyTurn, Machine
    from llmos.apps.shell.face import Face
    from llmos.apps.shell.link import Link

FILE = re.compile(r'(?<!\S)@(?:"([^"]+)"|(\S+))')


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What the foreground process of a shell is made of."""

    config: Config
    expert: Specialist = field(default_factory=Specialist)
    mounts: Sequence[Mount] = ()
    grants: Sequence[str] = ()
    max_tokens: int | None = None
    seed: int | None = None
    temperature: float | None = None


class Leave(Exception):
    """The shell ends."""


class Shell:
    """One person, many processes. Lines are given one after the other; `interrupt` comes from any thread."""

    def __init__(self, link: Link, face: Face, start: Start) -> None:
        self.link, self.face, self.start = link, face, start
        self.jobs: dict[int, Job] = {}
        self.job: Job | None = None  # in the foreground
        self.forks: dict[
            int, int
        ] = {}  # of the last /fork: pid -> its turns before it; what /diff and /pick compare
        self.leaving = False
        self.interrupted = threading.Event()  # of the command that runs
        self.config = start.config
        self._lock = threading.RLock()

    # -- lines ---------------------------------------------------------------------------------------------------

    def line(self, text: str) -> None:
        """Do what a line says; a turn that it starts goes on.

        Raises:
            Leave: it ends the shell.
            LLMOSError: it could not be done.
            KeyboardInterrupt: it was interrupted.
        """
        self.interrupted.clear()
        text = text.strip()
        if not text:
            return
        if text.startswith("/"):
            from llmos.apps.shell.commands import carry_out

            carry_out(self, text[1:])
        elif text.startswith("!"):
            from llmos.apps.shell.sandboxed import run

            run(self, text[1:])
        else:
            self.ask(self._mounted(text))

    def ask(self, question: str) -> AnyTurn:
        """Ask the foreground process; behind what it is at."""
        job = self.foreground()
        options = self.asked(job)
        options["seed"] = options.get("seed", 0) + job.asked
        turn = job.process.ask(question, **options, queue=True, detached=self.link.attached)
        job.asked += 1
        job.read(turn)
        return turn

    def asked(self, job: Job) -> dict[str, Any]:
        """How its questions are asked."""
        start = self.start
        given = {"max_tokens": start.max_tokens, "seed": start.seed, "temperature": start.temperature}
        return {**job.options, **{name: value for name, value in given.items() if value is not None}}

    def expect(self, text: str) -> None:
        """A line that is being typed: what its answer will need is brought meanwhile, by whoever is to give it."""
        job = self.job
        if job is not None and self.link.ready and not job.busy and not text.startswith(("/", "!")):
            with suppress(LLMOSError):  # the line itself will say what is wrong
                job.process.expect(text.strip())

    def settle(self) -> None:
        """Wait until the foreground has answered."""
        job = self.job
        if job is not None:
            job.wait()

    def interrupt(self) -> bool:
        """Ctrl-C: stop the foreground's turn, or the command that runs; whether there was anything to stop."""
        self.interrupted.set()
        job = self.job
        return job is not None and job.interrupt()

    def check(self, task: str = "", done: int = 0, total: int = 0, unit: Unit = "items", /) -> None:
        """A `Progress` that stops what reports to it once the person wants it stopped."""
        if self.interrupted.is_set():
            raise KeyboardInterrupt
        self.link.task = f"{task} {done / total:.0%}" if total and done < total else ""

    def _mounted(self, text: str) -> str:
        """The line without its `@`: what they name is within the foreground's reach."""

        def mount(match: re.Match[str]) -> str:
            name = match[1] or match[2]
            path = Path(name.rstrip(",.;:?!)")).expanduser()
            if not match[1] and not path.exists():
                return match[0]  # an address, a handle
            self.mount(Mount(path))
            return name

        return FILE.sub(mount, text)

    # -- processes -----------------------------------------------------------------------------------------------

    @property
    def kernel(self) -> Machine:
        """The kernel; waits until it is there."""
        return self.link.kernel

    def foreground(self) -> Job:
        """The process that plain lines talk to; spawned now where there is none."""
        if self.job is None or self.job.process.state == "zombie":
            start = self.start
            self.spawn(start.expert, mounts=start.mounts, grants=start.grants)
        assert self.job is not None
        return self.job

    def spawn(self, expert: Specialist, *, mounts: Sequence[Mount] = (), grants: Sequence[str] = ()) -> Job:
        """A new process in the foreground."""
        process = expert.spawn(self.kernel, mounts=mounts, grants=grants, progress=self.check)
        self.link.task = ""
        process.keep()
        job = self.adopt(process, expert.options)
        self.bring(job)
        return job

    def adopt(self, process: AnyProcess, options: Any = None) -> Job:
        """Have to do with a process from now on; what it is at is read."""
        with self._lock:
            job = self.jobs.get(process.pid)
            if job is None:
                job = self.jobs[process.pid] = Job(process, self._told, options)
                turn = process.current
                if turn is not None:
                    job.read(turn)
            return job

    def find(self, pid: int) -> Job:
        """The process with that pid. NoSuchProcess."""
        return self.jobs.get(pid) or self.adopt(self.kernel.process(pid))

    def bring(self, job: Job) -> None:
        """Put a process in the foreground, and show what it has said meanwhile."""
        with self._lock:
            self.job = job
            unread, job.unread = job.unread, []
            if job.busy:
                self.face.resume(job.said)
            for event in unread:
                self._show(job, event)

    def background(self) -> Job | None:
        """Leave the foreground empty: the next line talks to a new process; who was there."""
        with self._lock:
            job, self.job = self.job, None
            self.face.resume("")
            return job

    def mount(self, mount: Mount) -> None:
        """Documents for the foreground process."""
        self.foreground().process.mount(mount, self.check)
        self.link.task = ""
        self.say(f"mounted {neutralise(str(mount.path))} ({mount.trust})")

    # -- what is told --------------------------------------------------------------------------------------------

    def say(self, *lines: str) -> None:
        """Lines about something."""
        self.face.say(*lines)

    def complain(self, error: BaseException) -> None:
        """What went wrong, why, and what to do."""
        if isinstance(error, LLMOSError):
            told = [error.what, error.why and f"  why: {error.why}", error.do and f"  do:  {error.do}"]
            self.say(*neutralise("\n".join(part for part in told if part)).split("\n"))
        elif isinstance(error, KeyboardInterrupt):
            self.say("(stopped)")
        elif isinstance(error, OSError) and error.strerror:
            where = f": {error.filename}" if error.filename else ""
            self.say(neutralise(f"{error.strerror.lower()}{where}"))
        else:
            self.say(neutralise(f"that failed: {type(error).__name__}: {error}"[:500]))

    def approve(self, doubt: Ask) -> bool:
        """Whoever approves, for a kernel: asks the person."""
        return self.face.confirm(approval.lines_of(doubt), approval.QUESTION)

    def _told(self, job: Job, event: Event | BaseException) -> None:
        with self._lock:
            if job is self.job:
                self._show(job, event)
                return
            if isinstance(event, (Done, BaseException)):
                job.unread.append(event)
                how = "has failed" if isinstance(event, BaseException) else "has answered"
                self.say(f"[{job.pid}] {neutralise(job.name)} {how}; /fg {job.pid} shows it")

    def _show(self, job: Job, event: Event | BaseException) -> None:
        if isinstance(event, BaseException):
            self.face.resume("")
            if not self.leaving:
                self.complain(event)
            return
        if isinstance(event, Done) and not job.busy:  # it was not looked at while it came
            self.face.resume(job.said)
        self.face.tell(event)

    # -- a kernel that goes and comes ----------------------------------------------------------------------------

    def recover(self) -> None:
        """The kernel is back: its processes are there again, and go on where they were."""
        with self._lock:
            front, known, self.jobs, self.job = self.job, self.jobs, {}, None
            there = {line.pid for line in self.kernel.ps()}
            talking = front is not None and front.pid in there
            self.say(
                "the kernel is back" + (f"; you talk to process {front.pid}" if front and talking else "")
            )
            for pid, old in known.items():
                if pid not in there:
                    self.say(f"process {pid} is not there any more")
                    continue
                job = self.adopt(self.kernel.process(pid), old.options)
                job.asked, job.last = old.asked, old.last
                if old is front:
                    self.bring(job)
                if old.lost and not job.busy:
                    self._missed(job, old.number, shown=old is front)

    def _missed(self, job: Job, turn: int, *, shown: bool) -> None:
        """An answer that came to its end while nobody could look."""
        for exchange in job.process.conversation[-1:]:
            if exchange.turn == turn and shown:
                self.face.resume(exchange.answer + "\n")
                self.face.resume("")
            elif exchange.turn == turn:
                self.say(
                    f"[{job.pid}] {neutralise(job.name)} has answered; /fg {job.pid}, then /history shows it"
                )

    def questions_left(self) -> int:
        """Turns that end with this shell, for its kernel does."""
        return 0 if self.link.attached else sum(job.busy for job in self.jobs.values())


def pid_of(text: str) -> int:
    """A pid that was typed. TurnRefused: it is none."""
    if not text.isdecimal() or len(text) > 9:
        raise TurnRefused(f"{neutralise(text)!r} is no pid", do="/ps lists the processes")
    return int(text)
