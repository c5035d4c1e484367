"""The monitor's decision and the grammar's mask: microseconds of processor time, at the 99th percentile.

What: `decision_p99_us` (`decide` over attempts of every effect and label), `judged_p99_us` (the same with the labels of
    the arguments looked up in a full window first, as a trap does). `mask_p99_us` (the allowed tokens of a vocabulary
    of 152 thousand, while real text and real calls are written under the grammars of several tables), and the
    same for prose, for quoted text, for calls and for typed answers alone: `mask_p99_us.<kind>`.
Invariant: the grammars are those that processes get. What a grammar forces is not masked, so it is not counted.
Interface: `run`.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Literal, get_args

import numpy as np
from pydantic import BaseModel, Field, TypeAdapter

from benchmarks.figures import Figures, Progress
from llmos.abi.app import App, Effect, Payload, Target, syscall
from llmos.abi.labels import STORE, UNTRUSTED, USER, Integrity, Label
from llmos.abi.manifest import Manifest, Syscall
from llmos.kernel.engine.grammar import GrammarCompiler, Rules
from llmos.kernel.engine.scripted import call
from llmos.kernel.grants import Grant
from llmos.kernel.monitor import Attempt, Policy, decide, provenance
from llmos.kernel.syscalls import SyscallTable, answer_lark

MODEL, VOCAB = "qwen2.5-coder-0.5b", 151_936  # ids as wide as its logits
MINE = Label(Integrity.STORE, frozenset({"me", "ann@example.org"}))


class Line(BaseModel):
    """One line of an order."""

    item: str
    count: Annotated[int, Field(ge=1, le=99)] = 1
    size: Literal["S", "M", "L"] = "M"


class Order(BaseModel):
    """An order."""

    customer: str
    lines: list[Line]
    total: float


class Desk(App):
    """What an assistant is given."""

    @syscall(effect="send")
    def send(self, to: Annotated[str, Target], subject: str, text: Annotated[str, Payload]) -> str:
        """Send a mail."""
        return ""

    @syscall(effect="pay")
    def order(self, lines: list[Line], note: str | None = None) -> str:
        """Order things."""
        return ""

    @syscall(effect="fetch")
    def search(
        self, query: str, site: str | None = None, limit: Annotated[int, Field(ge=1, le=50)] = 10
    ) -> str:
        """Search the web."""
        return ""

    @syscall(effect="none")
    def now(self) -> str:
        """The time."""
        return ""


PROSE = (
    "The contract began on the first of March and may be ended by either side with three months' notice. "
    "Two of the five invoices are still open; the larger one (4,310.50 EUR) fell due last week.\n\n"
    "1. Ask Ann whether she has seen the reminder.\n2. Pay what is undisputed.\n3. Write down why the rest is not.\n"
)
QUOTED = (
    'She wrote: "It is "done"", and sent this:\n```json\n{"item": "tea", "name": "Ann", "function": "clerk",\n'
    ' "tags": ["name", "new", "fun"], "note": "name: none"}\n```\nSo "name" stands for "customer".\n'
)
CALLS = (
    call("desk.send", to="ann@example.org", subject="Your reminder", text="Dear Ann,\nhave you seen it?"),
    call("desk.order", lines=[{"item": "tea", "count": 2, "size": "L"}, {"item": "cups"}], note="by Friday"),
    call("desk.search", query="notice period of a rental contract", site="example.org", limit=5),
    call("desk.now"),
)
ANSWER = Order(customer="Ann", lines=[Line(item="tea", count=2), Line(item="cups", size="S")], total=43.1)


def run(quick: bool, progress: Progress) -> Figures:
    """See the module."""
    values = _decisions(300 if quick else 3000)
    progress("decisions are measured")
    masks = _masks(2 if quick else 10)
    values["mask_p99_us"] = _p99([time_us for times in masks.values() for time_us in times])
    values["mask_median_us"] = statistics.median([time_us for times in masks.values() for time_us in times])
    values |= {f"mask_p99_us.{kind}": _p99(times) for kind, times in masks.items()}
    return Figures(
        values,
        (MODEL,),
        (
            "a mask is made while its own forward pass runs, so it costs time only where it is longer than that",
            "each text is written several times, each time from a fresh copy of its grammar",
        ),
    )


def _p99(times_us: Sequence[float]) -> float:
    return float(np.quantile(times_us, 0.99))


def _timed_us(work: Callable[[], object]) -> float:
    start = time.thread_time()  # of this thread alone: other programs do not count
    work()
    return (time.thread_time() - start) * 1e6


# -- decisions ---------------------------------------------------------------------------------------------------


def _attempts() -> Iterator[tuple[Attempt, Label]]:
    """Calls of every effect with arguments of every label, and the taint of their windows."""
    arguments = {"to": "ann@example.org", "subject": "Your reminder", "text": PROSE}
    for effect, to, text in itertools.product(get_args(Effect), (USER, STORE, UNTRUSTED), (USER, MINE)):
        declared = Syscall(
            name="desk.send", tool="send", description="", parameters={}, targets=("to",), payload=("text",),
            effect=effect, retry="never", returns="user", deadline=1.0,
        )  # fmt: skip
        yield Attempt(declared, arguments, {"to": to, "text": text}), UNTRUSTED


def _decisions(rounds: int) -> dict[str, float]:
    grants = [
        *(Grant.parse(f"app{i}.read_*") for i in range(10)),
        Grant.parse("desk.send(to=*@example.org)"),
    ]
    policy = Policy(hosts=("docs.python.org", "*.example.org"))
    approved = frozenset(("desk.send", "to", f'"somebody{i}@example.org"') for i in range(100))
    said = tuple(
        (PROSE + f"Page {i}.", UNTRUSTED if i % 2 else STORE) for i in range(60)
    )  # 8 thousand tokens
    said += (("Write to ann@example.org about her reminder.", USER),)
    alone: list[float] = []
    judged: list[float] = []
    for _ in range(rounds // 30):
        for attempt, taint in _attempts():
            alone.append(_timed_us(lambda: decide(attempt, grants, taint, policy, approved)))  # noqa: B023
            judged.append(_timed_us(lambda: _judge(attempt, said, taint, grants, policy, approved)))  # noqa: B023
    return {
        "decision_p99_us": _p99(alone),
        "decision_median_us": statistics.median(alone),
        "judged_p99_us": _p99(judged),
        "judged_median_us": statistics.median(judged),
    }


def _judge(
    attempt: Attempt, said: Sequence[tuple[str, Label]], taint: Label, grants: Sequence[Grant], *rest: object
) -> None:
    labels = {name: provenance(value, said, taint) for name, value in attempt.arguments.items()}
    decide(Attempt(attempt.syscall, attempt.arguments, labels), grants, taint, *rest)  # type: ignore[arg-type]


# -- masks -------------------------------------------------------------------------------------------------------


def _masks(rounds: int) -> dict[str, list[float]]:
    """Microseconds of every mask, by what was being written."""
    from llmos.drivers.weights import find, open_weights
    from llmos.kernel.system import SYSTEM

    tokenizer = open_weights(find(MODEL)).tokenizer()
    compiler = GrammarCompiler(tokenizer, VOCAB)
    apps = (Desk, *SYSTEM)
    tables = [
        SyscallTable(Manifest.of(Desk).syscalls, tokenizer),
        SyscallTable([s for app in apps for s in Manifest.of(app).syscalls], tokenizer),
    ]
    texts = [("prose", PROSE * 4), ("quoted", QUOTED * 4), *(("calls", PROSE[:80] + made) for made in CALLS)]
    times: dict[str, list[float]] = {kind: [] for kind in ("prose", "quoted", "calls", "answers")}
    for _ in range(rounds):
        for table, (kind, text) in itertools.product(tables, texts):
            for no_call in (False, True)[: 1 + (kind != "calls")]:
                times[kind] += _written(compiler, table.lark(no_call=no_call), tokenizer.encode_control(text))
        answer = tokenizer.encode(ANSWER.model_dump_json().replace(":", ": ").replace(",", ", "))
        times["answers"] += _written(compiler, answer_lark(TypeAdapter(Order).json_schema()), answer)
    return times


def _written(compiler: GrammarCompiler, rules: Rules, tokens: Sequence[int]) -> list[float]:
    """Write `tokens` under a grammar: microseconds of each mask."""
    grammar, mask_1W = compiler.compile(rules), np.zeros((1, -(-VOCAB // 32)), np.uint32)
    times: list[float] = []
    forced: list[int] = []
    for token in tokens:
        if forced:
            if forced.pop(0) != token:
                raise ValueError("the grammar wants other words than those of this benchmark")
            continue
        times.append(_timed_us(lambda: grammar.masks([], mask_1W)))
        forced = grammar.accept(token)
        if grammar.finished:
            break
    return times
