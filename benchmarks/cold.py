"""One cold start, in a process of its own: from nothing to the first token.

What: `python -m benchmarks.cold ours MODEL` and `... llama_cpp FILE` load, continue a prompt of 16 tokens by one
    token, and print the seconds since the process was born and its peak memory:
    `{"ready": …, "first_token": …, "peak_mib": …}`.
Invariant: imports only what that side needs.
Interface: `measure(side, target)` runs one and returns its figures.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

PROMPT = 16


def measure(side: str, target: str) -> dict[str, float]:
    """Start `side` cold and wait; seconds on this process's clock."""
    start_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.cold", side, target],
        cwd=Path(__file__).resolve().parent.parent,
        env={**os.environ, "BENCHMARK_START": repr(start_s)},  # the monotonic clock is the machine's
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _ours(model: str) -> tuple[float, float]:
    from benchmarks.llama import filler
    from llmos import connect

    with connect(model=model, attach=False) as kernel:
        from llmos.kernel.engine.sequence import Request

        ready_s = time.monotonic()
        for _ in kernel.engine.submit(Request(tokens=tuple(filler(PROMPT)), max_tokens=1)):
            break
        return ready_s, time.monotonic()


def _llama_cpp(file: str) -> tuple[float, float]:
    from benchmarks import llama

    with llama.Llama(Path(file), llama.Settings(), context=4096) as model:
        ready_s = time.monotonic()
        index = model.feed([(0, llama.filler(PROMPT))])[0]
        int(model.logits(index).argmax())
        return ready_s, time.monotonic()


def main() -> None:
    start_s = float(os.environ["BENCHMARK_START"])
    side, target = sys.argv[1:]
    ready_s, first_s = (_ours if side == "ours" else _llama_cpp)(target)
    from benchmarks.machine import peak_mib

    print(json.dumps({"ready": ready_s - start_s, "first_token": first_s - start_s, "peak_mib": peak_mib()}))


if __name__ == "__main__":
    main()
