"""A context switch: a window that was swapped out runs again, against computing it again.

What: a sequence of 4,000 tokens (1,000 with --quick) is stopped, its pages are taken from it, and it goes on: seconds
    from CONT to its next word, once with its pages in host memory and once on disk, files dropped from the system's
    cache before. Then another sequence begins with the same 4,000 tokens. Beside them the prefill of the same tokens,
    by the same engine in the same run. Keys `ram_ratio`, `disk_ratio` (asked: at least 50 and 10), `prefix_ratio`,
    `token_identical` (1: as without a swap, seeded sampling), `prefill_s`, `ram_ms`, `disk_ms`, `prefix_ms`, `out_ms`
    (of taking all pages), `ram_cpu_ratio` and `disk_cpu_ratio` (of processor time, for a machine with other work).
Invariant: a prompt is met once by each engine, so nothing but what is said here is found; drafts are off.
Interface: `run`.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks.figures import SMALL, Figures, Progress
from benchmarks.llama import filler
from llmos import connect
from llmos.abi.config import DEFAULT_MODEL
from llmos.kernel.engine.engine import Engine
from llmos.kernel.engine.sampling import Randomness, Sample
from llmos.kernel.engine.sequence import BlockingStream, Request
from llmos.kernel.kernel import Kernel
from llmos.memory.pages import PageStore

SWITCHES = 5
WORDS = 24


def run(quick: bool, progress: Progress) -> Figures:
    """See the module."""
    model, tokens = (SMALL[0], 1000) if quick else (DEFAULT_MODEL, 4000)
    with (
        connect(model=model, window=tokens + 512, pool="256MiB", attach=False) as kernel,
        tempfile.TemporaryDirectory() as folder,
    ):
        kernel.runner.warm_up()  # type: ignore[attr-defined]
        plain, prefill, prefill_cpu = _plain(kernel, tokens)
        progress(f"{model}: prefill of {tokens} tokens {prefill:.2f} s")
        values: dict[str, float] = {"prefill_s": prefill}
        same, out_ms = True, 0.0
        for level, sizes in (("ram", (1 << 30, 0)), ("disk", (0, 1 << 32))):
            store = PageStore(Path(folder) / level, ram=sizes[0], disk=sizes[1])
            engine = Engine(kernel.runner, store=store)
            said, seconds, cpu, out = _switched(
                engine, tokens, lambda s=store, f=Path(folder) / level: _cold(s, f)
            )
            same, out_ms = same and said == plain, out_ms or out * 1e3
            values |= {f"{level}_ratio": prefill / seconds, f"{level}_ms": seconds * 1e3}
            values[f"{level}_cpu_ratio"] = prefill_cpu / cpu
            progress(f"{level}: back in {seconds * 1e3:.0f} ms")
            if level == "ram":
                values["prefix_ms"] = _prefix(engine, tokens) * 1e3
                values["prefix_ratio"] = prefill / values["prefix_ms"] * 1e3
            engine.close()
            store.close()
    values |= {"out_ms": out_ms, "token_identical": int(same)}
    return Figures(
        values, (model,), (f"{tokens} tokens; median of {SWITCHES} switches; load in the first line",)
    )


def _request(tokens: int) -> Request:
    return Request(
        tokens=tuple(filler(tokens, seed=7)), max_tokens=WORDS, draft=0, strategy=Sample(temperature=0.8),
        randomness=Randomness(11),
    )  # fmt: skip


def _plain(kernel: Kernel, tokens: int) -> tuple[list[int], float, float]:
    """The words without a swap; seconds and processor seconds to the first."""
    start, cpu = time.perf_counter(), time.process_time()
    stream = kernel.engine.submit(_request(tokens))
    words = iter(stream)
    said = [next(words).id]
    took = time.perf_counter() - start, time.process_time() - cpu
    return said + [item.id for item in words], *took


def _switched(engine: Engine, tokens: int, cold: Callable[[], None]) -> tuple[list[int], float, float, float]:
    """The words with `SWITCHES` swaps among them; medians of seconds and processor seconds back, seconds out."""
    stream = engine.submit(_request(tokens))
    words, times, cpus, outs = iter(stream), list[float](), list[float](), list[float]()
    said = [next(words).id]
    for _ in range(SWITCHES):
        said += _stop(stream)
        outs.append(_forget(engine))
        cold()
        start, cpu = time.perf_counter(), time.process_time()
        stream.pause(False)
        said.append(next(words).id)
        times.append(time.perf_counter() - start)
        cpus.append(time.process_time() - cpu)
    return said + [item.id for item in words], median(times), median(cpus), max(outs)


def _stop(stream: BlockingStream) -> list[int]:
    """Hold the stream and wait until it is swapped out; what it had said meanwhile."""
    stream.pause()
    while not stream.swapped:
        time.sleep(0.001)
    return [stream._queue.get().id for _ in range(stream._queue.qsize())]  # type: ignore[union-attr]


def _forget(engine: Engine) -> float:
    """Somebody else takes all pages of the pool; seconds."""
    pool, start = engine.pool, time.perf_counter()
    engine.run(lambda: pool.release(pool.allocate(pool.free)))
    return time.perf_counter() - start


def _cold(store: PageStore, folder: Path) -> None:
    """What is on disk is on disk only."""
    store.flush(60)
    for path in folder.glob("??/*"):
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def _prefix(engine: Engine, tokens: int) -> float:
    """Seconds to the first word of a window whose first `tokens` are stored, behind them 50 others."""
    times = []
    for i in range(3):
        _forget(engine)
        prompt = (*filler(tokens, seed=7), *filler(50, seed=20 + i))
        start = time.perf_counter()
        stream = engine.submit(Request(tokens=prompt, max_tokens=1, draft=0))
        for _ in stream:
            times.append(time.perf_counter() - start)
    return median(times)
