"""Page-in of stored knowledge against computing it again: time to the first token, share of right answers.

What: windows of about 4,000 tokens of passages and a question of about 50. `blend` puts stored passages together,
    computes the few that the question is about last, and the question; `exact` finds the whole window but the
    question. Both against the faster of our own full prefill and llama.cpp's. Quality on `page_in_set`, the published
    half: full prefill, blend, and what others ship: passages computed alone and put together with their keys turned
    to their places (`shift_only`) or as they are (`no_shift`).
Invariant: no setting was chosen on the published half. A passage's first computation is no part of a page-in;
    `*_cold` says what it costs. An answer is right by its letters.
Interface: `run(quick, progress)`; `python -m benchmarks.page_in N --out FILE` for the quality of N contexts alone,
    going on where FILE ends: all take hours. Keys `ttft_*`: seconds and ratios, `cpu_*`: the same in processor time;
    `match_*`: share of right answers; `loss`, `loss_interval_low|high`: right answers lost by blend of 100, with the
    paired 95 % interval; `recomputed_share`: of the knowledge's tokens; `mean_kl_*`: of the answer's first token
    against full prefill, over its 64 likeliest tokens and the rest, in nats.
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
from pathlib import Path
from typing import Any

from benchmarks import llama
from benchmarks.figures import Figures, Progress
from benchmarks.page_in_set import Context, contexts, right
from benchmarks.page_in_windows import MODEL, TOKENS, Alone, Bench, Unturned, Window
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
            took["blend"] = _timed(lambda e=engine, w=second: _first_token(e, w.blend()))
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
        values |= {f"{unit}_ratio_{way}": full / median[way] for way in ("blend", "exact", "cold")}
    values["speed_recomputed_share"] = statistics.mean(second.recomputed for _, second in windows[1:])
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
WAYS = ("full", "blend", "shift_only", "no_shift")


@dataclass(frozen=True, slots=True)
class Said:
    """What came of one question in one way."""

    right: bool
    first: tuple[tuple[int, float], ...]  # its likeliest first tokens with their log-probabilities


def quality(
    bench: Bench, asked: Sequence[Context], progress: Progress, known: Path | None = None
) -> dict[str, float]:
    """The figures of these contexts. With `known` each is asked once for all: what came of it is a line of that file,
    and what is there is not asked again, so that hours can be taken in pieces."""
    there = _known(known)
    rows: list[Row] = []
    for n, context in enumerate(asked):
        if context.id not in there:
            there[context.id] = _asked(bench, context)
            if known is not None:
                with known.open("a") as file:  # a line that was cut off is not gone on with
                    file.write(f"\n{json.dumps([context.id, there[context.id]])}\n")
        rows += there[context.id]
        matches = ", ".join(f"{way} {statistics.mean(row[way] for row in rows):.3f}" for way in WAYS)
        progress(f"context {n + 1} of {len(asked)}, {len(rows)} questions: {matches}")
    values = {f"match_{way}": statistics.mean(row[way] for row in rows) for way in WAYS}
    lost = [100.0 * (row["full"] - row["blend"]) for row in rows]
    values["loss"] = statistics.mean(lost)
    margin = 1.96 * statistics.stdev(lost) / math.sqrt(len(lost)) if len(lost) > 1 else math.inf
    values |= {"loss_interval_low": values["loss"] - margin, "loss_interval_high": values["loss"] + margin}
    values |= {f"mean_kl_{way}": statistics.mean(row[f"kl_{way}"] for row in rows) for way in WAYS[1:]}
    return values | {
        "recomputed_share": statistics.mean(row["share"] for row in rows),
        "questions": len(rows),
    }


def _known(file: Path | None) -> dict[str, list[Row]]:
    """What a file holds, by context; but for a line that was cut off."""
    found: dict[str, list[Row]] = {}
    for line in file.read_text().splitlines() if file is not None and file.exists() else ():
        with suppress(ValueError):
            context, rows = json.loads(line)
            found[context] = rows
    return found


def _asked(bench: Bench, context: Context) -> list[Row]:
    """A row for each question of a context: right or not each way, how far the first token is from full prefill's, and
    the share of the knowledge that blend computes."""
    windows = [bench.window(context.chunks, q.text, q.asked) for q in context.questions]
    said: dict[str, list[Said]] = {}
    store = PageStore(None, ram=1 << 30, disk=0)
    with bench.engine(store=store) as engine:
        _answer(bench, engine, context, [w.full for w in windows[:1]])  # the passages, for all
        said["full"] = _answer(bench, engine, context, [w.full for w in windows])
        said["blend"] = _answer(bench, engine, context, [w.blend for w in windows])
    for way, kind in (("shift_only", Alone), ("no_shift", Unturned)):
        with bench.engine(kind, store) as engine:
            said[way] = _answer(bench, engine, context, [w.reused for w in windows])
    store.close()
    return [
        {"question": q.id, "share": windows[i].recomputed}
        | {way: said[way][i].right for way in WAYS}
        | {f"kl_{way}": _kl(said["full"][i].first, said[way][i].first) for way in WAYS[1:]}
        for i, q in enumerate(context.questions)
    ]


def _answer(
    bench: Bench, engine: Engine, context: Context, ways: Sequence[Callable[..., Request]]
) -> list[Said]:
    """Ask the first questions of a context, side by side."""
    stop = bench.tokenizer.eos_ids
    streams = [engine.submit(way(max_tokens=ANSWER, stop=stop, top=TOP)) for way in ways]
    answers: list[list[Emitted]] = [list(stream) for stream in streams]
    return [
        Said(right(q, bench.tokenizer.decode([e.id for e in answer])), answer[0].top if answer else ())
        for q, answer in zip(context.questions, answers, strict=False)
    ]


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
