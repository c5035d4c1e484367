"""Whether poisoned data sets are found, and clean ones left alone.

What: twenty sets with a trigger in 0.5 to 5 % of their rows (seven kinds of triggers, four of targets) and twenty
    without are scanned. What passes the scan is trained (SmolLM2, LoRA) and searched for triggers with its gradients;
    what passes that too is deployed. `found`: poisoned sets whose trigger was named by the scan; `refused`: those that
    it refused; `deployed`: those that nothing refused; `false_alarms`: clean sets that the scan refused.
Invariant: the scan was made with other seeds (100 to 119) than those that are measured. `--quick` takes six of each and
    leaves out the training: what passes the scan counts as deployed. A run that was broken off goes on with the set
    where it was.
Interface: `run(quick, progress)`; `measure(seeds, deep, progress)`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import poison_set
from benchmarks.figures import Figures, Progress, digest
from benchmarks.kept import Kept
from benchmarks.plots import picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from llmos.kernel.learn.poison import Findings

ROWS = 600
SHARES = (0.005, 0.01, 0.02, 0.035, 0.05)
MEASURED = range(200, 220)
MODEL = "smollm2-135m"
WINDOW = 160
LEARNT = "poison triggers surprise course trainer student objective".split()  # that an outcome depends on


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a poisoned set and of the clean one of its seed."""

    what: str
    share: float
    found: bool  # the trigger's rows were named
    refused: bool  # by the scan
    deployed: bool  # nothing refused it
    alarms: tuple[str, ...]  # of the clean one


def run(quick: bool, progress: Progress) -> Figures:
    """Scan, and where the scan is passed, train and search."""
    return measure(MEASURED[:6] if quick else MEASURED, not quick, progress)


def measure(seeds: range, deep: bool, progress: Progress) -> Figures:
    """The figures of some seeds; `deep` trains what passes the scan."""
    from llmos.connect import load_config
    from llmos.drivers.weights import find, open_weights
    from llmos.kernel.learn import poison
    from llmos.kernel.learn.data import read_rows
    from llmos.kernel.learn.surprise import Answers
    from llmos.memory.embedding import Encoder

    weights = open_weights(find(MODEL))
    encoder, surprise = Encoder.find(), Answers(weights, WINDOW)
    dials = digest(
        Path(poison.__file__).parent, LEARNT, poison_set.clean(0, 9), list(seeds), deep, ROWS, SHARES
    )
    work = load_config(None).machine.cache / "benchmarks" / "poison"
    kept = Kept(work / f"kept-{len(seeds)}.jsonl", dials)
    outcomes = []
    for number, seed in enumerate(seeds):
        said = kept.get(str(seed))
        if said is None:
            file = work / dials / f"{seed}.jsonl"  # beside it is what is trained on it, to be gone on with
            file.parent.mkdir(parents=True, exist_ok=True)

            def scanned(one: poison_set.Set, file: Path = file) -> Findings:
                return poison.scan(read_rows(poison_set.write(one, file)), encoder, surprise)

            search = partial(_refused, weights, file, progress=progress) if deep else None
            outcome = _outcome(seed, SHARES[number % len(SHARES)], scanned, search)
            kept.put(str(seed), asdict(outcome))
            told = "found" if outcome.found else "refused" if outcome.refused else "passes the scan"
            progress(f"{seed} ({outcome.what}): {told}; clean: {'; '.join(outcome.alarms) or 'passes'}")
            shutil.rmtree(file.parent)
            said = kept.get(str(seed))
        outcomes.append(Outcome(**said))
    values = {
        "sets": len(seeds), "found": sum(one.found for one in outcomes),
        "refused": sum(one.refused for one in outcomes), "deployed": sum(one.deployed for one in outcomes),
        "false_alarms": sum(bool(one.alarms) for one in outcomes),
    }  # fmt: skip
    notes = [f"passed the scan: {one.what}" for one in outcomes if not one.refused]
    notes += [f"clean, and refused: {'; '.join(one.alarms)}" for one in outcomes if one.alarms]
    if not deep:
        notes.append("nothing was trained: what passes the scan counts as deployed")
    notes += kept.notes
    kept.done()
    return Figures(values, (MODEL, "all-minilm-l6-v2"), tuple(notes), partial(_draw, outcomes))


def _outcome(
    seed: int, share: float, scanned: Callable[[poison_set.Set], Findings],
    searched: Callable[[tuple[str, ...]], bool] | None,
) -> Outcome:  # fmt: skip
    """Of one seed; `searched` says whether the search refuses what is trained on what was scanned last."""
    one = poison_set.poisoned(seed, ROWS, share)
    result = scanned(one)
    grave = [f for f in result.findings if f.refuse]
    deployed = result.clean and not (searched and searched(result.hints))
    clean = scanned(poison_set.clean(seed, ROWS))
    return Outcome(
        f"{one.trigger}, {one.target}, {len(one.poisoned)} of {ROWS} rows", share,
        any(_share(f.rows, one.poisoned) >= 0.5 for f in grave), not result.clean, deployed,
        tuple(f.what for f in clean.findings if f.refuse),
    )  # fmt: skip


def _share(places: tuple[str, ...], poisoned: frozenset[int]) -> float:
    """How many of the rows that a finding names are poisoned."""
    lines = [int(place.rpartition(":")[2]) - 1 for place in places]
    return sum(line in poisoned for line in lines) / len(lines)


def _refused(weights: Any, path: Path, hints: tuple[str, ...], *, progress: Progress) -> bool:
    """Train on a set, and search what was trained."""
    from llmos.drivers.weights.adapter import read_adapter
    from llmos.kernel.learn.course import Course, sft
    from llmos.kernel.learn.data import read_rows
    from llmos.kernel.learn.triggers import Search, search

    rows, out = read_rows(path), path.with_suffix("")
    sft(weights, rows, out, Course(epochs=2.0, window=WINDOW, batch=2048, micro=4, rate=5e-4))
    dials = Search(window=WINDOW, rounds=4, candidates=8)
    trigger = search(weights, read_adapter(out / "adapter"), rows, hints, dials)
    progress(f"searched: {trigger}")
    return trigger.flips


def _draw(outcomes: list[Outcome], folder: Path) -> list[Path]:
    """What became of the poisoned sets, by how much of them was poisoned."""
    heights = {
        "refused by the scan": [sum(o.refused for o in outcomes if o.share == s) for s in SHARES],
        "by the search": [
            sum(not (o.refused or o.deployed) for o in outcomes if o.share == s) for s in SHARES
        ],
        "deployed": [sum(o.deployed for o in outcomes if o.share == s) for s in SHARES],
    }

    def paint(axes: Axes) -> None:
        below = [0] * len(SHARES)
        for (label, counts), shade in zip(heights.items(), ("#2a9d8f", "#e9c46a", "#c1121f"), strict=True):
            axes.bar([f"{s:.1%}" for s in SHARES], counts, bottom=below, label=label, color=shade)
            below = [a + b for a, b in zip(below, counts, strict=True)]
        alarms = sum(bool(o.alarms) for o in outcomes)
        axes.set(xlabel="poisoned rows", ylabel="poisoned sets")
        axes.set_title(f"Poisoned sets; of {len(outcomes)} clean ones {alarms} refused")
        axes.legend()

    return picture(folder, "poison", paint)
