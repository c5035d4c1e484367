"""A trace: what the machine did and when, for a person to look at.

What: engine steps with their phases, commits of the journal, turns, syscalls, app processes, passages that were
    paged in or left out, and pre-emptions, as a Chrome trace: a JSON array that https://ui.perfetto.dev and
    chrome://tracing open.
Invariant: off, nothing is computed or kept: `OFF` has the same methods, and they are empty. On, every event is
    written when it is over, whole lines by one write each: a killed process leaves a file that both viewers load
    (only the array's closing bracket is missing). No words of a question, argument or result get into it. A
    trace that cannot be written stops, and the work goes on.
Interface: `OFF`; `Recorder(path)`. The hooks: `lap`, `step`, `committing` (engine), `turn`, `layout` (execution),
    `syscall`, `app` (trap), `close`. All from any thread but `lap` and `step`, which are the engine thread's.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import count, pairwise
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from llmos.abi.events import Event, PageIn, PageOut

if TYPE_CHECKING:
    from llmos.kernel.apphost.values import AppProcess
    from llmos.kernel.engine.engine import Commit, Counters
    from llmos.kernel.journal import Journal
    from llmos.kernel.streams import OutputCommit

# Tracks. A process of ours has its own pid; these stand above every pid of Linux (at most 1 << 22).
KERNEL, APPS = 1 << 23, (1 << 23) + 1
ENGINE, JOURNAL = 1, 2  # threads of the kernel's track

_COUNTED = ("steps", "tokens", "emitted", "preemptions")

log = logging.getLogger("llmos.trace")
_encode = json.JSONEncoder(separators=(",", ":")).encode  # `json.dumps` would make one for each line
_NOTHING: AbstractContextManager[None] = nullcontext()


class Trace:
    """The hooks of a kernel that is not traced, and the names of all others."""

    def lap(self, phase: str) -> None:
        """A phase of the engine's step is over; it began where the one before it ended."""

    def step(self, counters: Counters) -> None:
        """The step is over; `counters` are the engine's, after it."""

    def committing(self, commit: OutputCommit, journal: Journal) -> Commit:
        """`commit`, with the time that the journal takes until its records are durable."""
        return commit

    def turn(self, pid: int, expert: str, number: int) -> AbstractContextManager[None]:
        """Around a turn."""
        return _NOTHING

    def layout(self, pid: int, events: Sequence[Event]) -> None:
        """What was paged in and out when a window was laid out."""

    def syscall(self, pid: int, number: int, name: str) -> AbstractContextManager[None]:
        """Around a call, from the model's words to the result that it reads."""
        return _NOTHING

    def app(
        self, pid: int, number: int, name: str, ps: Callable[[], list[AppProcess]]
    ) -> AbstractContextManager[None]:
        """Around an app's own part of a call; `ps` lists the app processes."""
        return _NOTHING

    def close(self) -> None:
        """Nothing more comes."""


OFF = Trace()


class Recorder(Trace):
    """Writes `path` anew. Raises OSError where it cannot be made."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # Appending in one system call each: threads need no lock, and no line is torn.
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._open = True
        self._ids = count(1)
        self._laps: list[tuple[str, int]] = []
        self._before: dict[str, int] = {}
        self._named: set[tuple[int, int]] = set()
        os.write(self._file, b"[\n" + _lines([_name(KERNEL, 0, "kernel")]))
        self._write(_name(KERNEL, ENGINE, "engine"), _name(KERNEL, JOURNAL, "journal"))

    # -- the engine ----------------------------------------------------------------------------------------------

    def lap(self, phase: str) -> None:
        self._laps.append((phase, perf_counter_ns()))

    def step(self, counters: Counters) -> None:
        laps, before = self._laps, self._before
        self._laps, self._before = [], {name: getattr(counters, name) for name in _COUNTED}
        done = {name: value - before.get(name, 0) for name, value in self._before.items()}
        if not done.pop("steps"):
            return  # it found nothing to do
        events = [_slice("step", ENGINE, laps[0][1], laps[-1][1], done)]
        events += [_slice(end[0], ENGINE, begin[1], end[1]) for begin, end in pairwise(laps)]
        if done["preemptions"]:
            events.append(
                _event("i", "preemption", KERNEL, ENGINE, s="t", args={"count": done["preemptions"]})
            )
        self._write(*events)

    def committing(self, commit: OutputCommit, journal: Journal) -> Commit:
        def committed(items: Any) -> None:
            began, args = perf_counter_ns(), {"delivers": len(items)}
            commit(items)
            journal.after(
                commit.last, lambda: self._write(*self._async("commit", KERNEL, JOURNAL, began, args))
            )

        return committed

    # -- processes -----------------------------------------------------------------------------------------------

    @contextmanager
    def turn(self, pid: int, expert: str, number: int) -> Iterator[None]:
        self._meet(pid, 0, f"{expert or 'agent'} {pid}")
        self._write(_event("B", "turn", pid, 1, args={"turn": number}))
        try:
            yield
        finally:
            self._write(_event("E", "turn", pid, 1))

    def layout(self, pid: int, events: Sequence[Event]) -> None:
        found = [e for e in events if isinstance(e, PageIn | PageOut)]
        self._write(
            *(
                _event("i", "page in", pid, 1, s="t", args={"source": e.source, "tokens": e.tokens})
                if isinstance(e, PageIn)
                else _event("i", "page out", pid, 1, s="t", args={"why": e.why})
                for e in found
            )
        )

    @contextmanager
    def syscall(self, pid: int, number: int, name: str) -> Iterator[None]:
        event = _event("b", name, pid, 1, cat="syscall", id=f"{pid}.{number}", args={"call": number})
        self._write(event)  # calls of a process overlap: by their ids the viewers put them side by side
        try:
            yield
        finally:
            self._write(event | {"ph": "e", "ts": _now()})

    @contextmanager
    def app(self, pid: int, number: int, name: str, ps: Callable[[], list[AppProcess]]) -> Iterator[None]:
        began = perf_counter_ns()
        try:
            yield
        finally:
            self._meet(APPS, 0, "apps")
            running = ps()
            for app in running:
                self._meet(APPS, app.os_pid, f"{app.name} {app.os_pid}")
            own = f"[{name.partition('.')[0]}]"
            found = [a for a in running if a.name == own and a.agent in (0, pid)]
            found += [a for a in running if a.name == "[apps]"]
            thread = found[0].os_pid if found else 0
            args = {"pid": pid, "call": number}
            self._write(*self._async(name, APPS, thread, began, args))

    # -- the file ------------------------------------------------------------------------------------------------

    def close(self) -> None:
        if self._open:
            self._put(b"\n]\n")
            self._open = False
            os.close(self._file)

    def _async(self, name: str, pid: int, tid: int, began: int, args: dict[str, Any]) -> list[dict[str, Any]]:
        """A slice until now that may overlap its neighbours."""
        begin = _event("b", name, pid, tid, cat=name, id=next(self._ids), args=args)
        return [begin | {"ts": began / 1000}, begin | {"ph": "e", "args": {}}]

    def _meet(self, pid: int, tid: int, name: str) -> None:
        if (pid, tid) not in self._named:
            self._named.add((pid, tid))
            self._write(_name(pid, tid, name))

    def _write(self, *events: dict[str, Any]) -> None:
        if events:
            self._put(b",\n" + _lines(events))

    def _put(self, data: bytes) -> None:
        if not self._open:
            return
        try:
            if os.write(self._file, data) == len(data):
                return
            why = "the disk is full"
        except OSError as error:
            why = error.strerror or ""
        self._open = False
        log.warning("the trace ends here: %s", why)


def _now() -> float:
    return perf_counter_ns() / 1000  # the format's unit: microseconds


def _event(phase: str, name: str, pid: int, tid: int, **more: Any) -> dict[str, Any]:
    return {"ph": phase, "name": name, "pid": pid, "tid": tid, "ts": _now(), **more}


def _slice(name: str, tid: int, begin: int, end: int, args: dict[str, Any] | None = None) -> dict[str, Any]:
    """A slice of the kernel's track, from and to nanoseconds."""
    return {
        "ph": "X", "name": name, "pid": KERNEL, "tid": tid, "ts": begin / 1000, "dur": (end - begin) / 1000,
        "args": args or {},
    }  # fmt: skip


def _name(pid: int, tid: int, name: str) -> dict[str, Any]:
    """The name of a track; of all of `pid` where `tid` is 0."""
    kind = "thread_name" if tid else "process_name"
    return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": {"name": name}}


def _lines(events: Sequence[dict[str, Any]]) -> bytes:
    """The events as they stand in the array."""
    return _encode(events)[1:-1].encode()
