"""32 batch processes and an interactive one: how long its next word takes, and whether shares are fair.

What: `interactive_p99_ratio`: the time between the interactive process's tokens (99th percentile) while batch
    processes keep arriving with prompts of 1,000 tokens, over the median step at the same width without prefill;
    `work_p99_ratio` is the same in processor time, and `quiet_p99_ratio` what is left of it where nobody arrives:
    the machine's own noise. `jain`: Jain's index
    of the tokens that the processes of a class had, over 2,000 tokens, the lower of two crowds: 32 that all fit
    into a step, and 80 that do not. `fcfs_...`: the same under first come, first served. `newcomer_s`: how long a
    newcomer waits for its first token. Keys end in a model's name; those without are the default model's.
Invariant: busy and quiet spells alternate in one run, and a busy spell is compared with the quiet ones beside it.
    The engine is the real one; nobody reads slowly. No drafts.
Interface: `run`.
Source: Jain, Chiu, Hawe 1984 (the index).
"""

from __future__ import annotations

import gc
import itertools
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.figures import Figures, Progress
from benchmarks.llama import filler
from llmos import connect
from llmos.kernel.engine.engine import Engine, Runner
from llmos.kernel.engine.sequence import Emitted, Item, Request, Stream
from llmos.kernel.scheduler import Priority, Scheduler, T

BATCH, CROWD = 32, 80
PROMPT = 1000  # tokens of who arrives
SHORT = 24  # tokens of who was there
SHARED = 2000  # tokens over which shares are compared
PATIENCE = 100  # steps in which everybody ought to have had a first token
LONG = 3000  # tokens that nobody reaches


class FirstCome(Scheduler):
    """For comparison: who came first has all that it can use, then the next."""

    def plan(self, runnable: Iterable[T], budget: int, latency_budget: int) -> list[tuple[T, int]]:
        planned: list[tuple[T, int]] = []
        for task in sorted(runnable, key=lambda t: t.arrival):
            if count := min(task.behind, budget):
                planned.append((task, count))
                budget -= count
        return planned


class Timed(Stream):
    """Notes when each token came; never full."""

    full = False  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.times_s: list[float] = []
        self.work_s: list[
            float
        ] = []  # processor time of the whole kernel, which other programs do not stretch
        self.more = threading.Condition()

    def put(self, item: Item) -> None:
        with self.more:
            if isinstance(item, Emitted):
                self.times_s.append(time.perf_counter())
                self.work_s.append(time.process_time())
            elif isinstance(item, Exception):
                raise item
            self.more.notify_all()

    def wait(self, count: int) -> None:
        """Return when there have been `count` tokens."""
        with self.more:
            self.more.wait_for(lambda: len(self.times_s) >= count)


@dataclass(frozen=True, slots=True)
class Spell:
    """Seconds from token to token, and the kernel's processor seconds."""

    waits_s: list[float]
    work_s: list[float]


@dataclass
class Crowd:
    """Processes on an engine of their own."""

    runner: Runner
    scheduler: Scheduler
    seeds: Iterator[int]
    filler: Callable[..., Sequence[int]] = filler
    engine: Engine = field(init=False)

    def __post_init__(self) -> None:
        self.engine = Engine(self.runner, scheduler=self.scheduler)

    def start(self, tokens: int, priority: Priority = Priority.BATCH) -> Timed:
        """A process with a prompt of `tokens`; it goes on until it is cancelled."""
        prompt = tuple(self.filler(tokens, seed=next(self.seeds)))
        stream = Timed()
        self.engine.start(Request(tokens=prompt, max_tokens=LONG, draft=0, priority=priority), stream)
        return stream

    def close(self) -> None:
        self.engine.close()


def run(quick: bool, progress: Progress) -> Figures:
    """See the module."""
    models = ("smollm2-135m",) if quick else ("smollm2-135m", "qwen2.5-coder-0.5b")
    rounds, quiet, busy = (2, 20, 60) if quick else (3, 40, 120)
    values: dict[str, float] = {}
    for model in models:
        with connect(model=model, window=4096, pool="2GiB", attach=False) as kernel:
            kernel.engine.close()  # the pool is ours now
            runner = kernel.runner
            runner.warm_up()  # type: ignore[attr-defined]
            tell = lambda text, model=model: progress(f"{model}: {text}")  # type: ignore[misc]  # noqa: E731
            found = _latency(Crowd(runner, Scheduler(), itertools.count(1)), rounds, quiet, busy, tell)
            found |= {"jain": min(_jain(runner, Scheduler(), n, tell) for n in (BATCH, CROWD))}
            first = _latency(Crowd(runner, FirstCome(), itertools.count(9000)), 1, quiet, busy // 2, tell)
            found |= {
                "fcfs_p99_ratio": first["interactive_p99_ratio"],
                "fcfs_newcomer_s": first["newcomer_s"],
                "fcfs_jain": min(_jain(runner, FirstCome(), n, tell) for n in (BATCH, CROWD)),
            }
        values |= {f"{key}.{model}": value for key, value in found.items()}
    headline = ("interactive_p99_ratio", "jain", "fcfs_p99_ratio")
    values = {key: values[f"{key}.{models[-1]}"] for key in headline} | values
    return Figures(
        values, models, ("times are ratios within one run: other work on the machine disturbs both sides",)
    )


def _latency(
    crowd: Crowd, rounds: int, quiet: int, busy: int, tell: Callable[[str], None]
) -> dict[str, float]:
    """The interactive process's waits, in quiet spells of so many tokens, and in busy ones."""
    batch = [crowd.start(SHORT) for _ in range(BATCH)]
    shell = crowd.start(SHORT, Priority.INTERACTIVE)
    shell.wait(8)
    for stream in batch:
        stream.wait(4)
    gc.collect()
    calm, full, newcomers = [_waits(shell, quiet)], list[Spell](), list[float]()
    for _ in range(rounds):
        end = threading.Event()
        comings = threading.Thread(target=_arrivals, args=(crowd, batch, newcomers, end))
        comings.start()
        full.append(_waits(shell, busy))
        end.set()
        comings.join()
        calm.append(_waits(shell, quiet))
        calm_ms, full_ms = (1e3 * statistics.median(spells[-1].waits_s) for spells in (calm, full))
        tell(f"a step takes {calm_ms:.0f} ms, {full_ms:.0f} while somebody arrives")
    crowd.close()
    waits, work = (
        [
            value / statistics.median([*getattr(before, kind), *getattr(after, kind)])
            for spell, before, after in zip(full, calm, calm[1:], strict=False)
            for value in getattr(spell, kind)
        ]
        for kind in ("waits_s", "work_s")
    )
    still = [wait / statistics.median(spell.waits_s) for spell in calm for wait in spell.waits_s]
    return {
        "interactive_p99_ratio": float(np.quantile(waits, 0.99)),
        "interactive_median_ratio": statistics.median(waits),
        "work_p99_ratio": float(np.quantile(work, 0.99)),
        "quiet_p99_ratio": float(np.quantile(still, 0.99)),
        "step_ms": statistics.median([wait for spell in calm for wait in spell.waits_s]) * 1e3,
        "newcomer_s": statistics.median(newcomers),
    }


def _waits(stream: Timed, count: int) -> Spell:
    """What passed between the next `count` tokens."""
    begin = len(stream.times_s)
    stream.wait(begin + count + 1)
    within = slice(begin, begin + count + 1)
    return Spell(np.diff(stream.times_s[within]).tolist(), np.diff(stream.work_s[within]).tolist())


def _arrivals(crowd: Crowd, batch: list[Timed], newcomers: list[float], end: threading.Event) -> None:
    """Until the end: whoever has been there longest leaves, and somebody comes with a long prompt; the next comes
    when that one has its first token. Nobody is catching up when this returns."""
    while not end.is_set():
        batch.pop(0).cancel()
        began = time.perf_counter()
        newcomer = crowd.start(PROMPT)
        batch.append(newcomer)
        newcomer.wait(1)
        newcomers.append(newcomer.times_s[0] - began)


def _jain(runner: Runner, scheduler: Scheduler, count: int, tell: Callable[[str], None]) -> float:
    """Of the tokens that `count` processes of one class had while they had `SHARED` in all, beside an interactive
    one."""
    crowd = Crowd(runner, scheduler, itertools.count(count * 100))
    shell = crowd.start(SHORT, Priority.INTERACTIVE)
    shell.wait(1)
    batch = [crowd.start(SHORT + i % 8) for i in range(count)]
    while len(shell.times_s) < PATIENCE and not all(stream.times_s for stream in batch):
        shell.wait(len(shell.times_s) + 1)
    before = [len(stream.times_s) for stream in batch]
    while sum(map(_tokens, batch)) - sum(before) < SHARED:
        shell.wait(len(shell.times_s) + 1)
    shares = [_tokens(stream) - b for stream, b in zip(batch, before, strict=True)]
    crowd.close()
    index = jain(shares)
    tell(f"{count} processes had {Counter(shares).most_common(3)} tokens: {index:.4f}")
    return index


def _tokens(stream: Timed) -> int:
    return len(stream.times_s)


def jain(shares: Sequence[float]) -> float:
    """Jain's index: 1 where all have the same, 1/n where one has all."""
    return sum(shares) ** 2 / (len(shares) * sum(s * s for s in shares))
