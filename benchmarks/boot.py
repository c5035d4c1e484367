"""From a cold command to its first token, in seconds: ours, llama.cpp's on the same file, the ratio.

What: a new process each time, files and compiled programs in their caches, 16 tokens of prompt. Keys
    `ours.<model>`, `llama_cpp.<model>`, `ratio.<model>` (first token), `ready_ours.<model>`,
    `ready_llama_cpp.<model>` (model loaded), `peak_mib_<side>.<model>` (of the whole process, mapped files too).
Invariant: one run, A B A B, medians, after one unmeasured start of each.
Interface: `run`.
"""

from __future__ import annotations

import statistics

from benchmarks import cold, llama
from benchmarks.figures import Figures, Progress, models


def run(quick: bool, progress: Progress) -> Figures:
    """See the module."""
    values: dict[str, float] = {}
    files = models(quick)
    for name, path in files.items():
        sides = {"ours": name} | ({"llama_cpp": str(path)} if llama.installed() else {})
        for side, target in sides.items():
            cold.measure(side, target)
        runs: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
        for _ in range(2 if quick else 5):
            for side, target in sides.items():
                runs[side].append(cold.measure(side, target))
        for side, found in runs.items():
            values[f"{side}.{name}"] = statistics.median(x["first_token"] for x in found)
            values[f"ready_{side}.{name}"] = statistics.median(x["ready"] for x in found)
            values[f"peak_mib_{side}.{name}"] = statistics.median(x["peak_mib"] for x in found)
        if "llama_cpp" in sides:
            values[f"ratio.{name}"] = values[f"ours.{name}"] / values[f"llama_cpp.{name}"]
        progress(f"{name}: {values[f'ours.{name}']:.2f} s")
    return Figures(values, tuple(files), ("seconds; a ratio below 1 means that ours is sooner",))
