"""Whether faults that people correct by day are gone in the morning, and nothing else with them.

Thirty faults of the librarian (facts of a house that no model knows), each corrected once as `/fix` does it; then
`llmos learn night`, killed with SIGKILL in each of its stages and begun again; then three other wordings of each fault,
which it was never taught, and a regression set of 120 questions (on small files, sums, common knowledge, and what it
should refuse) that was asked before. `--quick` takes six faults and SmolLM2.

`faults_before`, `faults_gone`: share of the other wordings that are answered right, before and behind the night;
`lost_elsewhere`: points (of 100) of the regression set that were lost, with the bounds of 95 % intervals; `live`: 1
where the gates let the adapter pass; `kills`, `kills_survived`: nights killed, and those that left live what was;
`seconds_of_the_night`: of what was left of it behind the last kill, its gates.
A run that was broken off goes on where it was: each answer is kept, and so is the state with its night.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.figures import Figures, Progress
from benchmarks.kept import Kept
from benchmarks.night_set import Fault, Half, Question, faults, regression

if TYPE_CHECKING:
    from llmos.abi.config import Config
    from llmos.abi.specialist import Specialist
    from llmos.kernel.kernel import Kernel

MODEL, QUICK = "qwen2.5-coder-0.5b", "smollm2-135m"
EXPERT = "librarian"
WINDOW = 2048
# Stages that a night is killed in; tests kill it between any two steps.
KILLED = ("begun", "harvested", "scanned", "taught")


@dataclass(frozen=True, slots=True)
class Answered:
    """Which other wordings of the faults, and which questions elsewhere, were answered right."""

    faults: tuple[bool, ...]
    elsewhere: tuple[bool, ...]


def run(quick: bool, progress: Progress) -> Figures:
    """Correct, sleep, ask again."""
    return measure(QUICK if quick else MODEL, 6 if quick else 30, "published", progress)


def measure(model: str, count: int, half: Half, progress: Progress) -> Figures:
    """The figures of one model and half."""
    from llmos.connect import load_config

    planted = faults(count, half)
    work = load_config(None).machine.cache / "benchmarks" / "night" / f"{model}-{count}-{half}"
    kept = Kept(work / "kept.jsonl", f"{model} {planted}")
    folder = work / "machine"
    if not kept.before:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    state, file = folder / "state", folder / "llmos.yaml"
    machine = {"machine": {"state": str(state)}, "kernel": {"model": model, "window": WINDOW}}
    file.write_text(json.dumps(machine), "utf-8")
    config = load_config(file)
    asking = Asking(config, planted, regression(folder, half), kept)
    asking.ask("before")
    before = asking.answered("before")
    progress(f"before: {_shares(before)}")
    for stage in KILLED:
        if kept.get(f"killed in {stage}") is None:
            kept.put(f"killed in {stage}", _killed(config, file, stage, progress))
    killed = [kept.get(f"killed in {stage}") for stage in KILLED if kept.get(f"killed in {stage}") != "over"]
    if kept.get("report") is None:
        with _night(file) as night:
            said = night.communicate()[0]
        if not said:
            raise RuntimeError(f"the night ended with {night.returncode} and no report")
        kept.put("report", json.loads(said))
    report = kept.get("report")
    gates = tuple(f"gate {gate['name']}: {gate['why']}" for gate in report["gates"])
    progress("; ".join([report["stage"], report["why"], *gates]))
    asking.ask("behind")
    behind = asking.answered("behind")
    progress(f"behind: {_shares(behind)}")
    lost = [100.0 * (a - b) for a, b in zip(before.elsewhere, behind.elsewhere, strict=True)]
    gone_low, gone_high = interval(behind.faults)
    lost_low, lost_high = interval(lost)
    values = {
        "faults": count, "faults_before": mean(before.faults), "faults_gone": mean(behind.faults),
        "faults_gone_low": gone_low, "faults_gone_high": gone_high, "elsewhere": len(lost),
        "elsewhere_before": 100.0 * mean(before.elsewhere), "lost_elsewhere": mean(lost),
        "lost_elsewhere_low": lost_low, "lost_elsewhere_high": lost_high, "live": int(report["stage"] == "live"),
        "kills": len(killed), "kills_survived": sum(killed), "seconds_of_the_night": report["seconds"],
    }  # fmt: skip
    kept.done()
    return Figures(values, (model,), (*filter(None, [report["why"]]), *gates, *kept.notes))


@dataclass(frozen=True, slots=True)
class Asking:
    """What is asked before a night and behind it."""

    config: Config
    planted: Sequence[Fault]
    questions: Sequence[Question]
    kept: Kept

    def ask(self, when: str) -> None:
        """Ask all that was not asked yet, each question of a new process; before the night the faults are corrected
        then."""
        from llmos.apps.experts.evaluation import refuses
        from llmos.apps.experts.launch import specialist
        from llmos.apps.experts.shelf import Shelf
        from llmos.kernel.boot import boot

        if self.kept.get(f"{when}: done"):
            return
        state = self.config.machine.state
        ready = specialist(Shelf(self.config).find(EXPERT), (), state)
        with boot(self.config, state=state / "kernel") as kernel:
            for fault in self.planted:
                for ask in fault.others:
                    if self.kept.get(f"{when}: {ask}") is None:
                        said = _answer(kernel, ready, ask)
                        self.kept.put(f"{when}: {ask}", fault.has.casefold() in said.casefold())
            for q in self.questions:
                if self.kept.get(f"{when}: {q.file and q.file.name}: {q.ask}") is None:
                    said = _answer(kernel, ready, q.ask, q.file)
                    right = any(h.casefold() in said.casefold() for h in q.has) if q.has else refuses(said)
                    self.kept.put(f"{when}: {q.file and q.file.name}: {q.ask}", right)
            for fault in self.planted if when == "before" else ():
                if self.kept.get(f"corrected: {fault.ask}") is None:
                    process, asked = ready.spawn(kernel), ready.asked(seed=0)
                    _ = process.ask(fault.ask, **asked).answer  # a person reads before he corrects
                    process.correct(1, fault.right)
                    process.close()
                    self.kept.put(f"corrected: {fault.ask}", True)
        self.kept.put(f"{when}: done", True)

    def answered(self, when: str) -> Answered:
        """What was right."""
        others = [self.kept.get(f"{when}: {ask}") for fault in self.planted for ask in fault.others]
        elsewhere = [self.kept.get(f"{when}: {q.file and q.file.name}: {q.ask}") for q in self.questions]
        return Answered(tuple(others), tuple(elsewhere))


def _answer(kernel: Kernel, ready: Specialist, ask: str, file: Path | None = None) -> str:
    """Of a new process."""
    from llmos.abi.mount import Mount

    process = ready.spawn(kernel, mounts=[] if file is None else [Mount(file)])
    said: str = process.ask(ask, **ready.asked(seed=0, max_tokens=80)).answer
    process.close()
    return said


@contextmanager
def _night(file: Path) -> Iterator[subprocess.Popen[str]]:
    """A night as a user starts it, in a session of its own; it does not outlive us."""
    command = [sys.executable, *f"-m llmos learn night --expert {EXPERT} --json --config".split(), str(file)]
    night = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield night
    finally:
        signal.signal(signal.SIGTERM, before)
        if night.poll() is None:
            os.killpg(night.pid, signal.SIGKILL)
            night.communicate()


def _killed(config: Config, file: Path, stage: str, progress: Progress) -> bool | str:
    """Kill a night somewhere in a stage; whether what was live before is live, or "over": it ended before."""
    from llmos.apps.experts.nights import folder_of
    from llmos.kernel.adapters import AdapterStore

    place = folder_of(config.machine.state, EXPERT)
    if _stage(place) > KILLED.index(stage):
        return "over"  # a run of ours that was broken off has come further
    with _night(file) as night:
        while night.poll() is None and _stage(place) < KILLED.index(stage):
            time.sleep(0.1)
        time.sleep(random.Random(stage).uniform(0, 5))
        if night.poll() is not None:
            progress(f"the night ended with {night.returncode} before it was killed in {stage}")
            return "over"
        os.killpg(night.pid, signal.SIGKILL)
    given = AdapterStore(config.machine.state / "adapters").of(EXPERT)
    progress(f"killed in {stage}: live is {given or 'the old'}")
    return given is None and not (place / "live.json").exists()


def _stage(place: Path) -> int:
    """Where the night is by its own record: a number of `KILLED`, beyond them once it is judged, -1 before it began."""
    run = place / "runs/0001"
    try:
        stage = json.loads((run / "state.json").read_bytes())["stage"]
    except FileNotFoundError:
        return 0 if run.exists() else -1
    return KILLED.index(stage) if stage in KILLED else len(KILLED)


def _shares(found: Answered) -> str:
    return f"{mean(found.faults):.0%} of the other wordings are right, {mean(found.elsewhere):.0%} elsewhere"


def mean(values: Sequence[float]) -> float:
    """Of at least one."""
    return sum(values) / len(values)


def interval(values: Sequence[float], draws: int = 2000) -> tuple[float, float]:
    """The 95 % interval of a mean, by drawing again (Efron 1979)."""
    rng = random.Random(0)
    means = sorted(mean(rng.choices(values, k=len(values))) for _ in range(draws))
    return means[int(0.025 * draws)], means[int(0.975 * draws)]
