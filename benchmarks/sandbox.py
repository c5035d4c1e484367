"""The interpreter's sandbox: hostile programs contained, as root and as an ordinary user, and what starting one costs.

What: `snippets` (programs of `sandbox_corpus`), `contained` (those that are, whoever starts them), the same by user
    and by kind; `cold_p50_ms` (from nothing to the first cell's answer), `warm_p50_ms` (a cell in a session that runs),
    `cold_cpu_ms` (processor time of a start and its end, all processes together: what a busy machine does not
    lengthen).
Invariant: a snippet is judged by what it did, not by what it says (`sandbox_world`). Times are of whole calls, with
    files looked through before and after. The system call filter is compiled once a program, before the first sandbox.
Interface: `run`.
"""

from __future__ import annotations

import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.figures import Figures, Progress
from benchmarks.sandbox_corpus import KINDS, SNIPPETS
from benchmarks.sandbox_world import Verdict, World, as_user
from llmos.apps.interpreter.session import Session
from llmos.drivers.sandbox import Limits, filter

COLD, WARM = 30, 300  # repetitions


def run(quick: bool, progress: Progress) -> Figures:
    """See the module. `quick`: every fourth snippet."""
    values: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        values |= _times(Path(folder), 5 if quick else 1)
    progress("times are measured")
    chosen = [s for s in SNIPPETS if not quick or SNIPPETS.index(s) % 4 == 0]
    rounds: dict[str, Sequence[Verdict]] = {}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with World(Path(folder)) as world:
            found = []
            for snippet in chosen:
                found.append(world.judge(snippet))
                if found[-1].why:
                    progress(f"{snippet.title}: {found[-1].why}")
    rounds["root" if os.geteuid() == 0 else "user"] = found
    progress("one round is over")
    notes = []
    if os.geteuid() == 0:
        rounds["user"] = as_user([s.title for s in chosen])
        for verdict in rounds["user"]:
            if verdict.why:
                progress(f"as a user: {verdict.title}: {verdict.why}")
    else:
        notes.append("started by an ordinary user, so not run as root")
    held = [{v.title for v in one if not v.why} for one in rounds.values()]
    values["snippets"] = len(chosen)
    values["contained"] = sum(all(s.title in one for one in held) for s in chosen)
    for who, verdicts in rounds.items():
        values[f"contained.{who}"] = sum(not v.why for v in verdicts)
    for kind in KINDS:
        values[f"contained.{kind}"] = sum(s.kind == kind and all(s.title in o for o in held) for s in chosen)
    return Figures(values, (), tuple(notes))


def _times(folder: Path, divided: int) -> dict[str, float]:
    filter.program()
    began = _cpu_ms()
    cold = [_cold(folder) for _ in range(COLD // divided)]
    cpu = (_cpu_ms() - began) / len(cold)
    session = Session(Limits(), folder)
    try:
        session.run("x = 1")
        warm = [_timed_ms(lambda: session.run("x + 1")) for _ in range(WARM // divided)]
    finally:
        session.close()
    return {
        "cold_p50_ms": statistics.median(cold), "cold_cpu_ms": cpu, "warm_p50_ms": statistics.median(warm),
    }  # fmt: skip


def _cpu_ms() -> float:
    """Processor time of this program and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used) * 1e3


def _cold(folder: Path) -> float:
    began = time.perf_counter()
    session = Session(Limits(), folder)
    try:
        session.run("x = 1")
        return (time.perf_counter() - began) * 1e3
    finally:
        session.close()


def _timed_ms(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1e3
