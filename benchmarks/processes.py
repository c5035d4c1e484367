"""A thousand processes at once: how many stay, whether one is lost, what an idle one weighs.

What: `open` processes that have each had a turn and wait for the next; `lost`: those that are not listed, or do not
    remember at their second turn what was said in the first. `bytes_per_idle_process`: growth of this program's
    resident memory from 100 to 1,100 of them, journal included. The same with a real model and fewer processes:
    `..._real`; its pool is full before the count begins, so keys and values are not in it. `turns_per_s` of the
    scripted ones.
Invariant: memory is read after a collection, when nothing runs; whoever has answered is in the journal.
Interface: `run`.
"""

from __future__ import annotations

import ctypes
import gc
import os
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.figures import Figures, Progress
from benchmarks.kernels import SMALL, real, scripted
from llmos.kernel.kernel import Kernel
from llmos.kernel.process import Process

BASE = 100  # processes that are there before memory is read
AT_ONCE = 50  # that are asked at the same time


def run(quick: bool, progress: Progress) -> Figures:
    """See the module."""
    more = 300 if quick else 1000
    with tempfile.TemporaryDirectory() as folder, scripted(Path(folder), _repeat) as kernel:
        first = _settle(_live(kernel, BASE, ""))
        began = time.perf_counter()
        there = _live(kernel, more, "")
        values: dict[str, float] = {"turns_per_s": more / (time.perf_counter() - began)}
        growth = _settle(there) - first
        values |= {"open": len(kernel.ps()), "bytes_per_idle_process": growth / more}
        progress(f"{values['open']} are open, {growth / more:,.0f} bytes each")
        everybody = [kernel.process(line.pid) for line in kernel.ps()]
        answers = _ask(everybody, "What did I say?")
        said = [f"You said I am {process.pid}." for process in everybody]
        lost = sum(answer != right for answer, right in zip(answers, said, strict=True))
        values["lost"] = lost + BASE + more - len(everybody)
    few = 40 if quick else 200
    with tempfile.TemporaryDirectory() as folder, real(Path(folder), pool="32MiB", window=512) as kernel:
        first = _settle(_live(kernel, AT_ONCE, "Say yes."))
        growth = _settle(_live(kernel, few, "Say yes.")) - first
        values |= {"open_real": len(kernel.ps()), "bytes_per_idle_process_real": growth / few}
    return Figures(values, (SMALL,), (f"{few} processes with the real model, {more} with a scripted one",))


def _repeat(window: str) -> str:
    """Says what the first question of the window was."""
    said = re.findall(r"<\|im_start\|>user\n(.*?)<\|im_end\|>", window)[0]
    return f"You said {said}."


def _live(kernel: Kernel, count: int, question: str) -> list[Process]:
    """New processes that have had a turn."""
    processes = [kernel.spawn(priority="batch") for _ in range(count)]
    _ask(processes, question)
    return processes


def _ask(processes: Sequence[Process], question: str) -> list[str]:
    answers: list[str] = []
    for at in range(0, len(processes), AT_ONCE):
        turns = [p.ask(question or f"I am {p.pid}", max_tokens=32) for p in processes[at : at + AT_ONCE]]
        answers += [turn.answer for turn in turns]
    return answers


def _settle(processes: Sequence[Process]) -> int:
    """Wait until nothing is left to do; resident bytes of this program."""
    while any(process.state != "waiting" for process in processes):
        time.sleep(0.01)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed may be the system's again: it is nobody's
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
