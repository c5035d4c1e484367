"""The journal: cost of a record on the step's thread, commits a second, bytes a token, time to boot.

What: `append_us` and `append_p99_us` (on the calling thread, while the writer commits), `commits_per_s` and
    `commit_ms`, `commit_p99_ms` (32 processes, one token each, to durable, one after the other), `bytes_per_token`
    (of the database, one record a token) and `boot_s` (open, verify and fold `boot_records` records).
Invariant: on the file system of the temporary folder, with every fsync that a kernel makes; no model.
Interface: `run`.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.figures import Figures, Progress
from llmos.kernel.journal import Journal, Retention
from llmos.kernel.journal.records import Asked, Sampled, Spawned, Started
from llmos.kernel.journal.recovery import DATABASE

PROCESSES = 32
WINDOW = 1000


def run(quick: bool, progress: Progress) -> Figures:
    """See the module."""
    steps = 200 if quick else 2000
    appends: list[float] = []
    commits: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        policy = Retention(snapshot_records=1 << 30)
        with Journal.open(folder, policy) as journal:
            for pid in range(1, PROCESSES + 1):
                journal.append(pid, Spawned(expert="analyst"))
                journal.append(pid, Asked(1, "How many?"))
                seq = journal.append(pid, Started(1, tuple(range(WINDOW)), seed=pid))
            journal.wait(seq)
            journal._writer.run(lambda store: store.checkpoint(0)).result()
            before = (folder / DATABASE).stat().st_size
            begun = time.perf_counter()
            for step in range(steps):
                for pid in range(1, PROCESSES + 1):
                    body = Sampled(1, WINDOW + step, (step * 77 % 150_000,))
                    start = time.perf_counter()
                    seq = journal.append(pid, body)
                    appends.append(time.perf_counter() - start)
                start = time.perf_counter()
                journal.wait(seq)
                commits.append(time.perf_counter() - start)
            took = time.perf_counter() - begun
            progress(f"{steps / took:.0f} commits a second")
        size = (folder / DATABASE).stat().st_size - before
        start = time.perf_counter()
        with Journal.open(folder, policy) as journal:
            records = journal.unfinished().seq
            boot_s = time.perf_counter() - start
    return Figures(
        {
            "append_us": statistics.median(appends) * 1e6,
            "append_p99_us": statistics.quantiles(appends, n=100)[98] * 1e6,
            "commits_per_s": steps / took,
            "commit_ms": statistics.median(commits) * 1e3,
            "commit_p99_ms": statistics.quantiles(commits, n=100)[98] * 1e3,
            "bytes_per_token": size / steps / PROCESSES,
            "boot_s": boot_s,
            "boot_records": records,
        },
        notes=("a commit is two fsyncs: the log's, then the head's",),
    )
