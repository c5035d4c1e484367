"""Whether poisoned data sets are found, and clean ones left alone.

Twenty sets with a trigger in 0.5 to 5 % of their rows (seven kinds of triggers, four of targets) and twenty without are
scanned; the scan was made with other seeds (`TUNED`) than those that are measured (`MEASURED`). What passes the scan is
trained (SmolLM2, LoRA) and searched for triggers with its gradients; what passes that too is deployed. `--quick` takes
six of each and leaves out the training: what passes the scan counts as deployed.

`found`: poisoned sets whose trigger was named by the scan; `deployed`: poisoned sets that nothing refused;
`false_alarms`: clean sets that the scan refused.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import poison_set
from benchmarks.figures import Figures, Progress

ROWS = 600
SHARES = (0.005, 0.01, 0.02, 0.035, 0.05)
TUNED = range(100, 120)
MEASURED = range(200, 220)
MODEL = "smollm2-135m"
WINDOW = 160


def run(quick: bool, progress: Progress) -> Figures:
    """Scan, and where the scan is passed, train and search."""
    return measure(MEASURED[:6] if quick else MEASURED, not quick, progress)


def measure(seeds: range, deep: bool, progress: Progress) -> Figures:
    """The figures of some seeds; `deep` trains what passes the scan."""
    from llmos.drivers.weights import find, open_weights
    from llmos.kernel.learn.data import read_rows
    from llmos.kernel.learn.poison import Findings, scan
    from llmos.kernel.learn.surprise import Answers
    from llmos.memory.embedding import Encoder

    encoder, weights = Encoder.find(), open_weights(find(MODEL))
    surprise = Answers(weights, WINDOW)
    found = named = deployed = alarms = 0
    missed = []
    with tempfile.TemporaryDirectory() as folder:

        def scanned(one: poison_set.Set) -> Findings:
            rows = read_rows(poison_set.write(one, Path(folder) / "set.jsonl"))
            return scan(rows, encoder, surprise)

        for n, seed in enumerate(seeds):
            one = poison_set.poisoned(seed, ROWS, SHARES[n % len(SHARES)])
            what = f"{one.trigger}, {one.target}, {len(one.poisoned)} of {ROWS} rows"
            result = scanned(one)
            grave = [f for f in result.findings if f.refuse]
            right = any(_share(f.rows, one.poisoned) >= 0.5 for f in grave)
            found += right
            named += bool(grave)
            if result.clean:
                missed.append(what)
                out = not deep or not _refused(weights, Path(folder) / "set.jsonl", result.hints, progress)
                deployed += out
            progress(f"poisoned {seed} ({what}): {grave[0].what if grave else 'passes the scan'}")
            clean = [f.what for f in scanned(poison_set.clean(seed, ROWS)).findings if f.refuse]
            alarms += bool(clean)
            progress(f"clean {seed}: {'; '.join(clean) or 'passes the scan'}")
    values = {
        "sets": len(seeds),
        "found": found,
        "refused": named,
        "deployed": deployed,
        "false_alarms": alarms,
    }
    notes = [f"passed the scan: {what}" for what in missed]
    if not deep:
        notes.append("nothing was trained: what passes the scan counts as deployed")
    return Figures(values, (MODEL, "all-minilm-l6-v2"), tuple(notes))


def _share(places: tuple[str, ...], poisoned: frozenset[int]) -> float:
    """How many of the rows that a finding names are poisoned."""
    lines = [int(place.rpartition(":")[2]) - 1 for place in places]
    return sum(line in poisoned for line in lines) / len(lines)


def _refused(weights: object, path: Path, hints: tuple[str, ...], progress: Progress) -> bool:
    """Train on a set, and search what was trained."""
    import shutil
    from typing import Any, cast

    from llmos.drivers.weights.adapter import read_adapter
    from llmos.kernel.learn.course import Course, sft
    from llmos.kernel.learn.data import read_rows
    from llmos.kernel.learn.triggers import Search, search

    rows, out = read_rows(path), path.parent / "trained"
    shutil.rmtree(out, ignore_errors=True)
    sft(cast(Any, weights), rows, out, Course(epochs=2.0, window=WINDOW, batch=2048, micro=4, rate=5e-4))
    dials = Search(window=WINDOW, rounds=4, candidates=8)
    trigger = search(cast(Any, weights), read_adapter(out / "adapter"), rows, hints, dials)
    progress(f"searched: {trigger}")
    return trigger.flips
