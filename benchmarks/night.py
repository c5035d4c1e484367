"""Whether faults that people correct by day are gone in the morning, and nothing else with them.

Thirty faults of the librarian (facts of a house that no model knows), each corrected once as `/fix` does it; then
`llmos learn night`, killed with SIGKILL in each of its stages and begun again; then three other wordings of each fault,
which it was never taught, and a regression set of 120 questions (on small files, sums, common knowledge, and what it
should refuse) that was asked before. `--quick` takes six faults and SmolLM2.

`faults_before`, `faults_gone`: share of the other wordings that are answered right, before and behind the night;
`lost_elsewhere`: points (of 100) of the regression set that were lost, with the bounds of 95 % intervals; `live`: 1
where the gates let the adapter pass; `kills`, `kills_survived`: nights killed, and those that left live what was.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.figures import Figures, Progress
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
    from llmos.apps.experts.launch import specialist
    from llmos.apps.experts.shelf import Shelf
    from llmos.connect import load_config
    from llmos.kernel.boot import boot

    planted = faults(count, half)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        state, file = folder / "state", folder / "llmos.yaml"
        machine = {"machine": {"state": str(state)}, "kernel": {"model": model, "window": WINDOW}}
        file.write_text(json.dumps(machine), "utf-8")
        config = load_config(file)
        ready = specialist(Shelf(config).find(EXPERT), (), state)
        questions = regression(folder, half)
        with boot(config, state=state / "kernel") as kernel:
            before = asked(kernel, ready, planted, questions)
            for fault in planted:
                process = ready.spawn(kernel)
                if process.ask(fault.ask, **ready.asked(seed=0)).answer:
                    process.correct(1, fault.right)
                process.close()
        progress(f"before: {_shares(before)}")
        tried = [_killed(config, file, stage, progress) for stage in KILLED]
        killed = [survived for survived in tried if survived is not None]
        night = _night(file)
        said = night.communicate()[0]
        if not said:
            raise RuntimeError(f"the night ended with {night.returncode} and no report")
        report = json.loads(said)
        gates = [f"{gate['name']}: {gate['why']}" for gate in report["gates"]]
        progress("; ".join([report["stage"], report["why"], *gates]))
        with boot(config, state=state / "kernel") as kernel:
            behind = asked(kernel, ready, planted, questions)
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
    return Figures(values, (model,), (report["why"],) if report["why"] else ())


def asked(
    kernel: Kernel, ready: Specialist, planted: Sequence[Fault], questions: Sequence[Question]
) -> Answered:
    """Ask all of it, each question of a new process."""
    from llmos.abi.mount import Mount
    from llmos.apps.experts.evaluation import refuses

    def answer(ask: str, file: Path | None = None) -> str:
        process = ready.spawn(kernel, mounts=[] if file is None else [Mount(file)])
        said: str = process.ask(ask, **ready.asked(seed=0, max_tokens=80)).answer
        process.close()
        return said

    others = [fault.has.casefold() in answer(ask).casefold() for fault in planted for ask in fault.others]
    elsewhere = []
    for q in questions:
        said = answer(q.ask, q.file)
        elsewhere.append(any(h.casefold() in said.casefold() for h in q.has) if q.has else refuses(said))
    return Answered(tuple(others), tuple(elsewhere))


def _night(file: Path) -> subprocess.Popen[str]:
    """A night as a user starts it, in a session of its own."""
    command = [sys.executable, *f"-m llmos learn night --expert {EXPERT} --json --config".split(), str(file)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def _killed(config: Config, file: Path, stage: str, progress: Progress) -> bool | None:
    """Kill a night somewhere in a stage; whether what was live before is live. None: it ended before."""
    from llmos.apps.experts.nights import folder_of
    from llmos.kernel.adapters import AdapterStore

    place, night = folder_of(config.machine.state, EXPERT), _night(file)
    while night.poll() is None and _stage(place) < KILLED.index(stage):
        time.sleep(0.1)
    time.sleep(random.Random(stage).uniform(0, 5))
    if night.poll() is not None:
        progress(f"the night ended with {night.returncode} before it was killed in {stage}")
        return None
    os.killpg(night.pid, signal.SIGKILL)
    night.communicate()
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
