"""kill -9, again and again: nothing lost, nothing doubled, nothing corrupt; and how soon 100 processes go on.

What: `crashes` in all, and what they did (`lost`, `doubled`, `corrupt`): of kernels with a scripted model, of journals
    alone, and of kernels with a real model whose every answer must be, token for token, what it is when nobody kills.
    `resume_100_s`: from the start of a boot until 100 processes that were answering are back in the engine,
    `resume_100_work_s` in processor time, `next_token_100_s` until each has said a word that was not in the
    journal. The same with the real model: `..._real`.
Invariant: everything runs in processes of its own; the loops are those of the tests.
Interface: `run`; `python -m benchmarks.crash LIFE FOLDER MODEL` is a kernel's life, for this module alone.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.figures import Figures, Progress
from benchmarks.kernels import SMALL, real, scripted
from llmos.abi.errors import LLMOSError
from llmos.abi.events import Event, Token
from llmos.kernel.journal import read
from llmos.kernel.journal.records import Finished, Forced, Sampled
from llmos.kernel.kernel import Kernel
from llmos.kernel.process import Process
from llmos.kernel.turn import Turn

ROOT = Path(__file__).resolve().parents[1]
ANSWERING, MANY = 4, 100  # processes of the crash loop with a real model, and of the boots that are timed
WORDS = 48  # tokens of an answer of the real model
SCRIPTED = "scripted"


def run(quick: bool, progress: Progress) -> Figures:
    """See the module."""
    kernels, journals, reals = (40, 200, 20) if quick else (500, 2000, 40)
    reports = [_loop("tests.kernel.crashes", kernels)]
    progress(f"{kernels} kernels were killed")
    reports.append(_loop("tests.kernel.journal.crashes", journals))
    progress(f"{journals} journals were killed")
    reports.append(_real_crashes(reals, progress))
    values: dict[str, float] = {
        key: sum(report[key] for report in reports) for key in ("crashes", "lost", "doubled", "corrupt")
    }
    values["crashes_real"] = reports[-1]["crashes"]
    values["tokens_compared_real"] = reports[-1]["tokens"]
    for model, suffix in ((SCRIPTED, ""), (SMALL, "_real")):
        for key, value in _resume(model).items():
            values[key + suffix] = value
        progress(f"{MANY} processes are back ({model})")
    return Figures(
        values,
        (SMALL,),
        (
            "a boot is timed from its beginning, in a new process: the model's own imports and weights are in it",
        ),
    )


def _loop(module: str, crashes: int) -> dict[str, int]:
    """The crash loop of the tests, in a process without threads, for it forks."""
    done = subprocess.run(
        [sys.executable, "-m", module, str(crashes), "--seed", "7"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if not done.stdout:
        raise RuntimeError(f"{module} ended with {done.returncode}: {done.stderr[-500:]}")
    report: dict[str, int] = json.loads(done.stdout)
    return report


@contextmanager
def _life(kind: str, folder: Path, model: str = SMALL) -> Iterator[subprocess.Popen[str]]:
    """A kernel in a process of its own, which is killed in the end where it still lives."""
    command = [sys.executable, "-m", "benchmarks.crash", kind, str(folder), model]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def _line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise RuntimeError("a kernel ended before its time")
    return line.strip()


# -- crashes with a real model ---------------------------------------------------------------------------------------


def _real_crashes(crashes: int, progress: Progress) -> dict[str, int]:
    """Kill kernels while they answer, then let everybody finish; compare with answers that nobody disturbed."""
    rng = random.Random(11)
    with tempfile.TemporaryDirectory() as name:
        killed, calm = Path(name) / "killed", Path(name) / "calm"
        for crash in range(crashes):
            with _life("answer", killed) as child:
                _line(child)  # it has booted
                time.sleep(rng.uniform(0, 3))
            if crash % 10 == 9:
                progress(f"{crash + 1} kernels with a real model were killed")
        with _life("finish", killed) as child:
            child.communicate()
        turns = max(turn for _, turn in _said(killed))
        with _life("answer", calm) as child:
            _line(child)
            while not all((pid, turns) in _finished(calm) for pid in range(1, ANSWERING + 1)):
                time.sleep(1)
                if child.poll() is not None:
                    raise RuntimeError("the undisturbed kernel ended before its time")
        found, right, done = _said(killed), _said(calm), _finished(killed)
        twice = [positions for positions in found.values() if len(positions) != len(dict(positions))]
        return {
            "crashes": crashes,
            "tokens": sum(map(len, found.values())),
            "lost": sum(found[turn] != right.get(turn) or turn not in done for turn in found),
            "doubled": len(twice),
            "corrupt": int((killed / "loss").exists()),
        }


def _said(folder: Path) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """(pid, turn) -> (position, token) of everything that was said, as the journal has it."""
    said: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for record in read(folder / "kernel", kinds=[Sampled, Forced]):
        body = record.body
        assert isinstance(body, Sampled | Forced)
        said.setdefault((record.pid, body.turn), []).extend(enumerate(body.tokens, body.position))
    return said


def _finished(folder: Path) -> set[tuple[int, int]]:
    return {
        (r.pid, r.body.turn)
        for r in read(folder / "kernel", kinds=[Finished])
        if isinstance(r.body, Finished)
    }


def _boot(folder: Path, model: str) -> Kernel:
    if model == SCRIPTED:
        return scripted(folder, lambda window: "so it goes on " * 250)
    return real(folder, model)


def answer(folder: Path, model: str, more: bool = True) -> None:
    """A life: finish the turns that were begun, and with `more` go on asking."""
    with _boot(folder, model) as kernel:
        if kernel.journal.loss:
            (folder / "loss").write_text(str(kernel.journal.loss))
        processes = [kernel.process(line.pid) for line in kernel.ps()]
        processes += [kernel.spawn(seed=n) for n in range(len(processes) + 1, ANSWERING + 1 if more else 0)]
        print("booted", flush=True)
        asking = [threading.Thread(target=_converse, args=(process, more)) for process in processes]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()


def _converse(process: Process, more: bool) -> None:
    """Ask one thing after the other; what is asked and how is a function of the process and the turn."""
    while (turn := process.current) is not None or more:
        if turn is None:
            number = process.stat().turn + 1
            process.forget()  # windows stay small
            turn = process.ask(f"Tell me story {number} of {process.pid}.", max_tokens=WORDS, temperature=0.8)
        _ = turn.answer


# -- the time until everybody goes on --------------------------------------------------------------------------------


def _resume(model: str) -> dict[str, float]:
    """Seconds until `MANY` processes that were answering when their kernel was killed answer again."""
    with tempfile.TemporaryDirectory() as name:
        with _life("begin", Path(name), model) as child:
            _line(child)  # all of them have begun to answer
        with _life("resume", Path(name), model) as child:
            found: dict[str, float] = json.loads(_line(child))
    return found


def begin(folder: Path, model: str) -> None:
    """A life: everybody begins a long answer."""
    with _boot(folder, model) as kernel:
        processes = [kernel.spawn(priority="batch") for _ in range(MANY)]
        for process in processes:
            process.signal("STOP")  # else the first would have ended before the last has begun
        turns = [p.ask(f"Tell me story {p.pid}.", max_tokens=1000, detached=True) for p in processes]
        for process in processes:
            process.signal("CONT")
        readers = [_read(turn, 3) for turn in turns]  # who lets go of a reader cancels its turn
        print("begun", len(readers), flush=True)
        time.sleep(600)


def resume(folder: Path, model: str) -> None:
    """A life: boot, and wait until everybody goes on."""
    known = {pid: len(tokens) for (pid, _), tokens in _said(folder).items()}
    began_s, worked_s = time.perf_counter(), time.process_time()
    kernel = _boot(folder, model)
    processes = [kernel.process(line.pid) for line in kernel.ps()]
    turns = [turn for process in processes if (turn := process.current) is not None]
    waiting = list(processes)
    while waiting := [process for process in waiting if process.state != "running"]:
        time.sleep(0.005)
    ready_s, work_s = time.perf_counter() - began_s, time.process_time() - worked_s
    readers = [_read(turn, known[turn.pid] + 1) for turn in turns]
    next_s = time.perf_counter() - began_s
    if len(readers) != MANY:
        raise RuntimeError(f"{len(readers)} of {MANY} processes are back")
    print(json.dumps({"resume_100_s": ready_s, "resume_100_work_s": work_s, "next_token_100_s": next_s}))
    sys.stdout.flush()


def _read(turn: Turn, tokens: int) -> Iterator[Event]:
    """The turn's reader, once it has read so many tokens."""
    reader = iter(turn)
    while tokens:
        tokens -= isinstance(next(reader), Token)
    return reader


def main() -> None:
    kind, folder, model = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    try:
        match kind:
            case "answer":
                answer(folder, model)
            case "finish":
                answer(folder, model, more=False)
            case "begin":
                begin(folder, model)
            case "resume":
                resume(folder, model)
        os._exit(0)
    except LLMOSError as error:
        print(error, file=sys.stderr)
        os._exit(1)


if __name__ == "__main__":
    main()
