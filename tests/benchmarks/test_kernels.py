"""The benchmarks of processes: what they count, on small numbers; what they promise of the kernel, in full."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import benchmarks
from benchmarks.crash import MANY, SCRIPTED, _resume
from benchmarks.fairness import Crowd, FirstCome, jain
from benchmarks.kernels import scripted
from benchmarks.monitor import _attempts, _decisions
from benchmarks.processes import _ask, _live, _repeat, _settle
from llmos.kernel.engine.scripted import ScriptedRunner
from llmos.kernel.scheduler import Priority, Scheduler


@dataclass
class Task:
    behind: int
    arrival: int
    priority: Priority = Priority.BATCH
    vtime: float = -1.0


def test_the_benchmarks_of_processes_are_there() -> None:
    assert {"fairness", "processes", "crash", "monitor"} <= benchmarks().keys()


def test_jains_index() -> None:
    assert jain([3, 3, 3]) == 1
    assert jain([5, 0, 0, 0, 0]) == pytest.approx(1 / 5)


def test_first_come_first_served_is_what_it_says() -> None:
    tasks = [Task(1, 2, Priority.INTERACTIVE), Task(1000, 1), Task(1, 0)]
    assert FirstCome().plan(tasks, 512, 40) == [(tasks[2], 1), (tasks[1], 511)]


def test_a_crowd_runs_on_a_scheduler_of_its_own() -> None:
    runner = ScriptedRunner(lambda window: "x")
    runner._next = lambda batch, row: 65  # type: ignore[method-assign]  # for ever: these windows are no chats
    served: dict[str, int] = {}
    for scheduler in (Scheduler(), FirstCome()):
        crowd = Crowd(runner, scheduler, itertools.count(), filler=lambda tokens, seed: [seed % 250] * tokens)
        shell = crowd.start(8, Priority.INTERACTIVE)
        crowd.start(8)
        shell.wait(20)
        served[type(scheduler).__name__] = len(shell.times_s)
        assert np.all(np.diff(shell.times_s) > 0) and np.all(np.diff(shell.work_s) >= 0)
        crowd.close()
    assert min(served.values()) >= 20


def test_idle_processes_are_light_and_none_is_lost(tmp_path: Path) -> None:
    with scripted(tmp_path, _repeat) as kernel:
        before = _settle(_live(kernel, 50, ""))
        there = _live(kernel, 150, "")
        assert (_settle(there) - before) / 150 < 64 << 10
        assert _ask(there, "What did I say?") == [f"You said I am {p.pid}." for p in there]


def test_a_hundred_processes_are_back_in_time() -> None:
    found = _resume(SCRIPTED)
    assert MANY == 100 and found["resume_100_s"] < 5
    assert found["resume_100_s"] < found["next_token_100_s"]


def test_decisions_are_quick() -> None:
    assert len(list(_attempts())) == 9 * 3 * 2
    assert _decisions(60)["decision_median_us"] < 100
