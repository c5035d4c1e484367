"""Page-in of stored knowledge against computing it again: time to the first token, share of right answers.

What: windows of about 4,000 tokens of passages and a question of about 50. `blend` puts stored passages together,
    computes the few that the question is about last, and the question; `exact` finds the whole window but the
    question. Both against the faster of our own full prefill and llama.cpp's. Quality on `page_in_set`, the published
    half: full prefill, blend, blend where up to 15 % is computed (`blend_15`), and what others ship, in every fourth
    context: passages computed alone and put together with their keys turned to their places (`shift_only`) or as they
    are (`no_shift`).
Invariant: no setting was chosen on the published half. A passage's first computation is no part of a page-in;
    `*_cold` says what it costs. An answer is right by its letters.
Interface: `run(quick, progress)`; `python -m benchmarks.page_in N --out FILE` for the quality of N contexts alone,
    going on where FILE ends: a context takes about a minute. What FILE holds of other weights, windows or questions is
    asked again. Keys `ttft_*`: seconds and ratios, `cpu_*`: the same in processor time; `match_*`: share of right
    answers; `loss`, `loss_interval_low|high`: right answers lost by blend of 100, with the paired 95 % interval (and
    `_15`: by `blend_15`); `loss_windows_low|high`: the same where questions of one window are taken as depending on
    each other (Liang & Zeger 1986); `recomputed_share`: of the knowledge's tokens; `mean_kl_*`: of the answer's first
    token against full prefill, over its 64 likeliest tokens and the rest, in nats.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import llama
from benchmarks.figures import Figures, Progress
from benchmarks.page_in_set import Context, Question, contexts, right
from benchmarks.page_in_windows import BLENDS, MODEL, TOGETHER, TOKENS, Alone, Bench, Unturned, Window
from llmos.kernel.engine.engine import Engine
from llmos.kernel.engine.sequence import Emitted, Request
from llmos.memory.pages import PageStore

TOP = 64
ANSWER = 32  # tokens: a signature has up to 30
SPEED_TOKENS = 4000
QUICK_CONTEXTS = 2


def run(quick: bool, progress: Progress) -> Figures:
    """See the module; `quick` asks two contexts and times once."""
    bench = Bench()
    values, notes = _speed(bench, 1 if quick else 3, progress)
    asked = contexts("published")
    chosen = asked[:: max(1, len(asked) // QUICK_CONTEXTS)][:QUICK_CONTEXTS] if quick else asked
    values |= quality(bench, chosen, progress)
    return Figures(values, (MODEL,), (*notes, f"{values['questions']:.0f} questions, {len(chosen)} contexts"))


# -- speed


def _speed(bench: Bench, rounds: int, progress: Progress) -> tuple[dict[str, float], list[str]]:
    """Seconds to the first token, each way in turn, so that what disturbs the machine disturbs all."""
    windows = _long_windows(bench, rounds + 1)
    times: dict[str, list[tuple[float, float]]] = {}
    notes: list[str] = []
    theirs = None
    if llama.installed():
        choices = llama.grid()
        theirs = llama.Llama(bench.path, choices[0], context=TOKENS + 64)
        notes.append(f"llama.cpp: {llama.best(theirs, lambda side: side.prefill(192), choices)}")
    store = PageStore(None, ram=1 << 30, disk=0)
    for n, (first, second) in enumerate(windows):
        took = {}
        with bench.engine(store=store) as engine:
            took["cold"] = _timed(lambda e=engine, w=first: _first_token(e, w.reused()))
            for way in BLENDS:
                took[way] = _timed(lambda e=engine, w=second, way=way: _first_token(e, w.blend(way)))
            if n > 0:
                took["full"] = _timed(lambda e=engine, w=first: _first_token(e, w.full()))
                took["exact"] = _timed(lambda e=engine, w=second: _first_token(e, w.full()))
        if n == 0:  # what a first run sets up
            continue
        tokens = len(second.full().tokens)
        if theirs is not None:
            took["llama_cpp"] = _timed(lambda side=theirs, n=tokens: _their_first_token(side, n))
        for way, seconds in took.items():
            times.setdefault(way, []).append(seconds)
        progress(
            f"{tokens} tokens: " + ", ".join(f"{w} {s:.2f} s ({c:.2f} s cpu)" for w, (s, c) in took.items())
        )
    store.close()
    values: dict[str, float] = {}
    for unit, which in (("ttft", 0), ("cpu", 1)):
        median = {way: statistics.median(t[which] for t in some) for way, some in times.items()}
        full = min(median["full"], median.get("llama_cpp", math.inf))
        values |= {f"{unit}_s.{way}": seconds for way, seconds in median.items()}
        values |= {f"{unit}_ratio_{way}": full / median[way] for way in (*BLENDS, "exact", "cold")}
    for way in BLENDS:
        values[f"speed_recomputed_share.{way}"] = statistics.mean(w.recomputed(way) for _, w in windows[1:])
    return values, notes


def _timed(action: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the clock, and of all threads' processor time."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - wall_s, time.process_time() - cpu_s


def _long_windows(bench: Bench, count: int) -> list[tuple[Window, Window]]:
    """Pairs of questions over the same passages, of about SPEED_TOKENS tokens, from the tuning half."""
    made = []
    several = contexts("tuning")
    for a, b in zip(several[0::2], several[1::2], strict=False):
        chunks = [*a.chunks, *b.chunks]
        used: list[str] = []
        while (
            chunks
            and len(bench.tokenizer.vocabulary.encode("\n\n".join(used), start=False)) < SPEED_TOKENS - 80
        ):
            used.append(chunks.pop(0))
        p, q = a.questions[0], a.questions[-1]
        made.append((bench.window(used, p.text, p.asked), bench.window(used, q.text, q.asked)))
        if len(made) == count:
            break
    return made


def _their_first_token(side: llama.Llama, tokens: int) -> None:
    """llama.cpp on a prompt longer than one of its batches."""
    side.clear()
    for start in range(0, tokens, 2048):
        index = side.feed([(0, llama.filler(min(2048, tokens - start)))])[-1]
    int(side.logits(index).argmax())


def _first_token(engine: Engine, request: Request) -> None:
    for _ in engine.submit(request):
        return
    raise RuntimeError("no token came")


# -- quality

Row = dict[str, Any]
OTHERS = {"shift_only": Alone, "no_shift": Unturned}  # what others ship
WAYS = ("full", *BLENDS, *OTHERS)
EVERY = 4  # contexts, of which one is asked in all ways


@dataclass(frozen=True, slots=True)
class Said:
    """What came of one question in one way."""

    right: bool
    first: tuple[tuple[int, float], ...]  # its likeliest first tokens with their log-probabilities


def quality(
    bench: Bench, asked: Sequence[Context], progress: Progress, known: Path | None = None
) -> dict[str, float]:
    """The figures of these contexts. With `known` each question is asked once for all: what came of it is a line of
    that file, and what is there is not asked again, so that hours can be taken in pieces."""
    there = _known(known)
    rows: list[Row] = []
    for n, context in enumerate(asked):
        windows = [bench.window(context.chunks, q.text, q.asked) for q in context.questions]
        every = n % EVERY == 0
        marks = [f"{bench.mark(window)}{'+' if every else ''}" for window in windows]
        wanted = list(zip(marks, context.questions, windows, strict=True))
        new = [(mark, q, window) for mark, q, window in wanted if (mark, q.id) not in there]
        made = _asked(bench, [q for _, q, _ in new], [window for *_, window in new], every) if new else []
        fresh = {(mark, q.id): row for (mark, q, _), row in zip(new, made, strict=True)}
        there |= fresh
        if known is not None and fresh:
            lines = [json.dumps([*place, row]) for place, row in fresh.items()]
            with known.open("a") as file:  # a line that was cut off is not gone on with
                file.write("\n" + "\n".join(lines) + "\n")
        rows += [there[mark, q.id] for mark, q, _ in wanted]
        matches = ", ".join(f"{way} {_mean(rows, way):.3f}" for way in WAYS)  # the first is asked in all
        progress(f"context {n + 1} of {len(asked)}, {len(rows)} questions: {matches}")
    return _values(rows)


def _values(rows: Sequence[Row]) -> dict[str, float]:
    values = {f"match_{way}": _mean(rows, way) for way in WAYS}
    values |= {f"mean_kl_{way}": _mean(rows, f"kl_{way}") for way in WAYS[1:]}
    for way in BLENDS:
        name = way.removeprefix("blend")
        asked = [row for row in rows if way in row]
        lost = [100.0 * (row["full"] - row[way]) for row in asked]
        loss = statistics.mean(lost)
        margin = 1.96 * statistics.stdev(lost) / math.sqrt(len(lost)) if len(lost) > 1 else math.inf
        wider = 1.96 * _error_by_windows(asked, lost)
        values |= {
            f"loss{name}": loss,
            f"loss_interval_low{name}": loss - margin,
            f"loss_interval_high{name}": loss + margin,
            f"loss_windows_low{name}": loss - wider,
            f"loss_windows_high{name}": loss + wider,
            f"recomputed_share{name}": _mean(rows, f"share_{way}"),
        }
    return values | {"questions": len(rows)}


def _error_by_windows(rows: Sequence[Row], values: Sequence[float]) -> float:
    """The standard error of a mean over windows' questions, which share what they are asked about."""
    mean, sums = statistics.mean(values), dict[str, float]()
    for row, value in zip(rows, values, strict=True):
        window = row["question"].split("/")[0]
        sums[window] = sums.get(window, 0.0) + value - mean
    if (count := len(sums)) < 2:
        return math.inf
    return math.sqrt(count / (count - 1) * sum(x * x for x in sums.values())) / len(values)


def _mean(rows: Sequence[Row], key: str) -> float:
    """Over those that were asked so."""
    return statistics.mean(row[key] for row in rows if key in row)


def _known(file: Path | None) -> dict[tuple[str, str], Row]:
    """What a file holds, by mark and question; but for a line that was cut off, or is none of ours."""
    found: dict[tuple[str, str], Row] = {}
    for line in file.read_text().splitlines() if file is not None and file.exists() else ():
        with suppress(ValueError):
            mark, question, row = json.loads(line)
            found[mark, question] = row
    return found


def _asked(bench: Bench, asked: Sequence[Question], windows: Sequence[Window], every: bool) -> list[Row]:
    """A row for each question over one context: right or not each way, how far the first token is from full prefill's,
    and the share of the knowledge that blend computes."""
    said: dict[str, list[Said]] = {}
    store = PageStore(None, ram=1 << 30, disk=0)
    with bench.engine(store=store) as engine:
        _answer(bench, engine, asked, [w.full for w in windows[:1]])  # the passages, for all
        said["full"] = _answer(bench, engine, asked, [w.full for w in windows])
        for way in BLENDS if every else ("blend",):
            said[way] = _answer(bench, engine, asked, [partial(w.blend, way) for w in windows])
    for way, kind in OTHERS.items() if every else ():
        with bench.engine(kind, store) as engine:
            said[way] = _answer(bench, engine, asked, [w.reused for w in windows])
    store.close()
    return [
        {"question": q.id}
        | {f"share_{way}": windows[i].recomputed(way) for way in BLENDS if way in said}
        | {way: of[i].right for way, of in said.items()}
        | {f"kl_{way}": _kl(said["full"][i].first, of[i].first) for way, of in said.items() if way != "full"}
        for i, q in enumerate(asked)
    ]


def _answer(
    bench: Bench, engine: Engine, asked: Sequence[Question], ways: Sequence[Callable[..., Request]]
) -> list[Said]:
    """Ask the first of these questions, as many side by side as the pool has room for."""
    stop, said = bench.tokenizer.eos_ids, list[Said]()
    for first in range(0, len(ways), TOGETHER):
        some = ways[first : first + TOGETHER]
        streams = [engine.submit(way(max_tokens=ANSWER, stop=stop, top=TOP)) for way in some]
        answers: list[list[Emitted]] = [list(stream) for stream in streams]
        said += [
            Said(right(q, bench.tokenizer.decode([e.id for e in answer])), answer[0].top if answer else ())
            for q, answer in zip(asked[first:], answers, strict=False)
        ]
    return said


def _kl(p: Sequence[tuple[int, float]], q: Sequence[tuple[int, float]]) -> float:
    """Of two distributions of which the likeliest tokens are known, as far as they can be told apart: over the tokens
    that both know, and the rest as one."""
    known = dict(q)
    both = [(math.exp(a), math.exp(known[i])) for i, a in p if i in known]
    rest = [max(1.0 - sum(x), 1e-9) for x in zip(*both, strict=True)] if both else [1.0, 1e-9]
    return sum(a * math.log(a / b) for a, b in [*both, (rest[0], rest[1])] if a > 0)


def main() -> None:
    """Quality alone, of the first N contexts of the published half."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page_in", description=main.__doc__)
    parser.add_argument("contexts", metavar="N", type=int)
    parser.add_argument("--out", type=Path, help="keep answers here; what it holds is not asked again")
    arguments = parser.parse_args()
    started = time.perf_counter()

    def progress(text: str) -> None:
        print(f"[{time.perf_counter() - started:6.1f} s] {text}", file=sys.stderr, flush=True)

    asked = sorted(contexts("published"), key=lambda context: context.id)[: arguments.contexts]
    for key, value in quality(Bench(), asked, progress, arguments.out).items():
        print(f"{key:24} {value:.5g}")


if __name__ == "__main__":
    main()
