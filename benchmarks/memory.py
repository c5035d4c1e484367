"""Peak resident memory while answering, against 1.2 x the weights file + the KV pool + 600 MiB.

What: boots a kernel with a 256 MiB pool in a process of its own and answers a prompt of 1,000 tokens. Keys
    `peak_mib.<model>`, `bound_mib.<model>`, `share.<model>` (of the bound; at most 1).
Invariant: the system's own count of the whole process's peak, mapped files included.
Interface: `run`. `python -m benchmarks.memory MODEL` is the child.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.figures import Figures, Progress, models
from benchmarks.machine import peak_mib

POOL_MIB, OTHER_MIB, FACTOR, PROMPT = 256, 600, 1.2, 1000


def run(quick: bool, progress: Progress) -> Figures:
    """See the module."""
    values: dict[str, float] = {}
    files = models(quick)
    for name, path in files.items():
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.memory", name],
            cwd=Path(__file__).resolve().parent.parent, check=True, capture_output=True, text=True,
        )  # fmt: skip
        peak = json.loads(done.stdout.splitlines()[-1])
        bound = FACTOR * path.stat().st_size / 2**20 + POOL_MIB + OTHER_MIB
        values |= {f"peak_mib.{name}": peak, f"bound_mib.{name}": bound, f"share.{name}": peak / bound}
        progress(f"{name}: {peak:.0f} MiB of {bound:.0f}")
    return Figures(values, tuple(files))


def main() -> None:
    from benchmarks.llama import filler
    from llmos import connect

    with connect(model=sys.argv[1], pool=f"{POOL_MIB}MiB", window=2048, attach=False) as kernel:
        from llmos.kernel.engine.sequence import Request

        for _ in kernel.engine.submit(Request(tokens=tuple(filler(PROMPT)), max_tokens=32)):
            pass
    print(json.dumps(peak_mib()))


if __name__ == "__main__":
    main()
