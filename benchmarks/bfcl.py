"""Calling functions: right calls and rightly withheld ones on BFCL, ours and the bare model's.

What: `simple_python` and `irrelevance` are shares of right answers through the real path: a process that is given the
    one function, the syscall table, the grammar, the choice, settled arguments. `..._bare` is the same model by itself:
    its own template, no grammar, calls taken from tags, fences or bare JSON. `unparseable` counts answers of ours that
    look like a call without being one. Each share with `_low` and `_high`, its 95 % interval (Wilson). Keys of the
    larger model, where it is on this machine, end in `.1.5b`.
Invariant: figures come from the half of the questions that nothing was chosen on; one operating point for both.
    `--quick` asks a few questions of the other half.
Interface: `run(quick, progress)`. Needs bfcl-eval (see bfcl_set.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from benchmarks.bfcl_set import Category, Question, looks_like_a_call, parse, questions
from benchmarks.figures import LARGE, Figures, Progress
from llmos import connect
from llmos.abi.errors import ModelNotFound
from llmos.drivers.weights import find, open_weights
from llmos.kernel.engine.sequence import Request
from llmos.kernel.kernel import Kernel
from llmos.kernel.scheduler import Priority

MODEL = "qwen2.5-coder-0.5b"
CATEGORIES: tuple[Category, ...] = ("simple_python", "irrelevance")
TOGETHER = 64  # processes at once
LONGEST = 160  # tokens of an answer: three times a usual call
QUICK = 12  # questions of each category
Z = 1.959964  # of a 95 % interval


def run(quick: bool, progress: Progress) -> Figures:
    """See the module."""
    half = "tuning" if quick else "published"
    sets = {category: questions(category, half) for category in CATEGORIES}
    if quick:
        sets = {category: asked[:QUICK] for category, asked in sets.items()}
    values: dict[str, float] = {}
    measured = [MODEL] if quick else [MODEL, *_present(LARGE)]
    for model in measured:
        suffix = "" if model == MODEL else f".{model.rpartition('-')[2]}"
        unparseable = 0
        with connect(model=model, window=4096, pool="1GiB", attach=False) as kernel:
            for category, asked in sets.items():
                right, odd = _ours(kernel, asked)
                unparseable += odd
                _enter(values, category, suffix, right, len(asked))
                progress(f"{model}, {category}: {right} of {len(asked)}")
                right = _bare(kernel, model, asked)
                _enter(values, f"{category}_bare", suffix, right, len(asked))
                progress(f"{model} by itself, {category}: {right} of {len(asked)}")
        values[f"unparseable{suffix}"] = unparseable
    counts = ", ".join(f"{len(asked)} of {category}" for category, asked in sets.items())
    return Figures(values, tuple(measured), (f"the {half} half: {counts}",))


def _enter(values: dict[str, float], key: str, suffix: str, right: int, of: int) -> None:
    low, high = wilson(right, of)
    values[f"{key}{suffix}"] = right / of
    values[f"{key}_low{suffix}"], values[f"{key}_high{suffix}"] = low, high


def wilson(right: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share. Source: Wilson 1927."""
    share, extra = right / of, Z * Z / of
    middle = share + extra / 2
    spread = Z * (share * (1 - share) / of + extra / of / 4) ** 0.5
    return (middle - spread) / (1 + extra), (middle + spread) / (1 + extra)


def _ours(kernel: Kernel, asked: Sequence[Question]) -> tuple[int, int]:
    """Right answers of processes that are given the function; answers that look like a call and are none."""
    right = odd = 0
    for group in _groups(asked):
        processes = [kernel.spawn(priority="batch") for _ in group]
        turns = [
            process.ask(question.text, tools=[question.syscall], max_tokens=LONGEST, detached=True)
            for process, question in zip(processes, group, strict=True)
        ]
        for process, question, turn in zip(processes, group, turns, strict=True):
            done = turn.result
            made = [(call.syscall, call.arguments) for call in done.calls]
            unfinished = done.reason == "length" and not done.answer
            bad = not made and (unfinished or looks_like_a_call(done.answer))
            odd += bad
            right += not bad and question.right(made)
            process.close()
    return right, odd


def _bare(kernel: Kernel, model: str, asked: Sequence[Question]) -> int:
    """Right answers of the model by itself: the functions as its template writes them, and whatever it says."""
    template, tokenizer = open_weights(find(model)).template(), kernel.tokenizer
    right = 0
    for group in _groups(asked):
        streams = []
        for question in group:
            s = question.syscall
            tool = {
                "type": "function",
                "function": {"name": s.name, "description": s.description, "parameters": s.parameters},
            }
            pieces = template.render([{"role": "user", "content": question.text}], tools=[tool])
            tokens = tuple(token for ids in tokenizer.encode_pieces(iter(pieces)) for token in ids)
            streams.append(
                kernel.engine.submit(
                    Request(
                        tokens=tokens, max_tokens=LONGEST, stop=tokenizer.eos_ids, priority=Priority.BATCH
                    )
                )
            )
        for question, stream in zip(group, streams, strict=True):
            said = b"".join(tokenizer.token_bytes(token.id) for token in stream)
            right += question.right(parse(said.decode("utf-8", "replace")))
    return right


def _groups(asked: Sequence[Question]) -> Iterator[list[Question]]:
    rest = iter(asked)
    while group := list(islice(rest, TOGETHER)):
        yield group


def _present(models: Sequence[str]) -> list[str]:
    found = []
    for name in models:
        try:
            find(name, fetch=False)
            found.append(name)
        except ModelNotFound:
            continue
    return found
