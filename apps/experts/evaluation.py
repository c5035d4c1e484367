"""An expert's own tests: asked one after the other, each in a process of its own.

What: asks, judges what came back by what the file expects, and counts.
Invariant: judged is what a user gets: the answer, its citations, the calls that were made and went well. A test passes
    when everything it expects holds for every seed that it names. An answer that fails is an outcome, not an error.
    What a test had noted is forgotten again.
Interface: `evaluate(kernel, expert, specialist, …) -> Report`; `judge(expect, seen) -> failures`; `refuses(answer)`.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from llmos.abi.errors import LLMOSError
from llmos.abi.events import Call, Result
from llmos.abi.mount import Mount
from llmos.apps.experts.errors import KnowledgeGone
from llmos.kernel.grants import Grant

if TYPE_CHECKING:
    from llmos.abi.specialist import Specialist
    from llmos.apps.experts.expert import Expert
    from llmos.apps.experts.manifest import Case, Expect
    from llmos.kernel.kernel import Kernel

_REFUSAL = re.compile(
    r"\b(documents?|passages?|texts?) (do|does|did) ?(not|n['’]t) "
    r"|\b(I|we) (am|are|was) (not able|unable|sorry)|\bI['’]m (not able|unable|sorry)|\bsorry, "
    r"|\b(I|we) (can ?not|can['’]t|could not|couldn['’]t|do not|don['’]t|did not|didn['’]t|will not|won['’]t) "
    r"(have|know|find|say|answer|tell|help|provide|do|access|assist|see|open|read)"
    r"|\b(there is|there's|has) no (information|answer|mention|such)|\bnot (mentioned|stated|specified|given|available)"
    r"|\bno information\b|\bis unknown\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What came back of a question. `calls` are those that went well: (syscall, arguments)."""

    answer: str
    sources: tuple[str, ...] = ()
    calls: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    failed: tuple[str, ...] = ()  # syscalls that were called and did not go well


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one test: `failures` by the seed that they came with."""

    ask: str
    failures: tuple[str, ...]
    answers: tuple[str, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        return not self.failures


@dataclass(frozen=True, slots=True)
class Report:
    """All tests of an expert."""

    expert: str
    version: str
    model: str
    outcomes: tuple[Outcome, ...] = field(default=())

    @property
    def passed(self) -> int:
        return sum(outcome.passed for outcome in self.outcomes)

    @property
    def score(self) -> float:
        """The share of tests that passed; 0 without tests."""
        return self.passed / len(self.outcomes) if self.outcomes else 0.0

    def dump(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "expert": self.expert,
            "version": self.version,
            "model": self.model,
            "tests": len(self.outcomes),
            "passed": self.passed,
            "score": self.score,
            "outcomes": [
                {"ask": o.ask, "passed": o.passed, "failures": list(o.failures), "answers": list(o.answers),
                 "seconds": round(o.seconds, 3)}
                for o in self.outcomes
            ],
        }  # fmt: skip


def evaluate(
    kernel: Kernel,
    expert: Expert,
    ready: Specialist,
    *,
    only: Sequence[int] = (),
    sites: Mapping[str, str] = MappingProxyType({}),
    tell: Callable[[int, Outcome], None] = lambda number, outcome: None,
) -> Report:
    """Ask every test of the expert.

    Args:
        kernel: one of this process's own: files of tests go into its processes' working volumes.
        only: numbers of tests, from 1; all where there are none.
        sites: where the folders that are the web of its tests are served.
        tell: told of each as it is done.
    """
    outcomes = []
    for number, case in enumerate(expert.manifest.tests, start=1):
        if only and number not in only:
            continue
        started = time.perf_counter()
        failures, answers = [], []
        for seed in case.expect.seeds:
            seen, wrong = _ask(kernel, case, ready, seed, sites)
            answers.append(seen.answer)
            many = f"seed {seed}: " if len(case.expect.seeds) > 1 else ""
            failures += [many + failure for failure in (*wrong, *([] if wrong else judge(case.expect, seen)))]
        outcome = Outcome(case.ask, tuple(failures), tuple(answers), time.perf_counter() - started)
        outcomes.append(outcome)
        tell(number, outcome)
    manifest = expert.manifest
    return Report(manifest.expert, manifest.version, kernel.config.kernel.model, tuple(outcomes))


def _ask(
    kernel: Kernel, case: Case, ready: Specialist, seed: int, sites: Mapping[str, str]
) -> tuple[Seen, list[str]]:
    """What came of asking once, and why it could not be asked at all."""
    process, noted = None, _newest_note(kernel, ready)
    try:
        process = ready.spawn(kernel, mounts=[Mount(_there(path)) for path in case.mounts])
        volume = kernel.workspace(process.pid) if case.files else None
        for path in case.files:
            assert volume is not None
            source, target = _there(path), volume / Path(path).name
            shutil.copytree(source, target) if source.is_dir() else shutil.copyfile(source, target)
        asked = case.ask.replace("{site}", sites.get(case.site or "", "{site}"))
        turn = process.ask(asked, **ready.asked(seed=seed))
        made: dict[int, Call] = {}
        good: list[int] = []
        for event in turn:
            if isinstance(event, Call):
                made[event.number] = event
            elif isinstance(event, Result) and event.ok:
                good.append(event.number)
        calls = tuple((made[n].syscall, made[n].arguments) for n in good if n in made)
        failed = tuple(call.syscall for n, call in made.items() if n not in good)
        return Seen(turn.answer, tuple(c.source for c in turn.citations), calls, failed), []
    except LLMOSError as error:
        return Seen(""), [f"{type(error).__name__}: {error}"]
    finally:
        if process is not None:
            process.close()
        while (number := _newest_note(kernel, ready)) > noted:
            kernel.library.notes.forget(number, expert=ready.name)


def _newest_note(kernel: Kernel, ready: Specialist) -> int:
    """The number of the last note that this expert has kept on this machine; 0 where it has none, or keeps none."""
    if not any(Grant.parse(text).names("memory.note") for text in ready.grants):
        return 0
    return max((note.number for note in kernel.library.notes.search("", expert=ready.name, k=1)), default=0)


def _there(path: str) -> Path:
    if not Path(path).exists():
        raise KnowledgeGone(
            f"there is nothing at {path}", why="a test needs it", do="put it back, or change the test"
        )
    return Path(path)


# -- judging -----------------------------------------------------------------------------------------------------


def judge(expect: Expect, seen: Seen) -> list[str]:
    """What of `expect` does not hold, one line each; nothing where all does."""
    answer = _plain(seen.answer)
    wrong = [f"does not contain {text!r}" for text in expect.contains if _plain(text) not in answer]
    wrong += [f"contains {text!r}" for text in expect.excludes if _plain(text) in answer]
    wrong += [f"does not match {p!r}" for p in expect.matches if not re.search(p, seen.answer, re.IGNORECASE)]
    cited = ", ".join(seen.sources) or "nothing"
    wrong += [
        f"does not cite {s!r}, but {cited}"
        for s in expect.cites
        if not any(_same(s, c) for c in seen.sources)
    ]
    if expect.refuses is not None and refuses(seen.answer) != expect.refuses:
        wrong.append("does not refuse" if expect.refuses else "refuses")
    wrong += _uncalled(expect.calls, seen)
    if "json_" in expect.model_fields_set:
        wrong += _no_json(expect.json_, seen.answer)
    return wrong


def refuses(answer: str) -> bool:
    """Whether an answer says that it has none."""
    return not answer.strip() or bool(_REFUSAL.search(answer))


def _plain(text: str) -> str:
    """Without case, marks of emphasis, citations and runs of blanks; digits without thousands' separators."""
    text = re.sub(r"\s?\[\d{1,3}\]|[`*]", "", text)
    return re.sub(r"(?<=\d),(?=\d{3}\b)", "", " ".join(text.split())).casefold()


def _same(wanted: str, source: str) -> bool:
    """Whether a citation's source is that file: names count from the end, so `handbook/leave.md` is `leave.md` of a
    mount of `handbook/`; `*` stands for anything."""
    ours, theirs = PurePosixPath(wanted).parts[::-1], PurePosixPath(source).parts[::-1]
    return bool(theirs) and all(fnmatchcase(b, a) for a, b in zip(ours, theirs, strict=False))


def _uncalled(patterns: Sequence[str] | None, seen: Seen) -> list[str]:
    if patterns is None:
        return []
    called = ", ".join(name for name, _ in seen.calls) or "nothing"
    if not patterns:
        return [f"calls {called}"] if seen.calls or seen.failed else []
    failed = f" ({', '.join(seen.failed)} failed)" if seen.failed else ""
    return [
        f"does not call {pattern}, but {called}{failed}"
        for pattern in patterns
        if not any(Grant.parse(pattern).admits(name, arguments) for name, arguments in seen.calls)
    ]


def _no_json(wanted: Any, answer: str) -> list[str]:
    """Whether the answer is JSON that holds what is wanted: `true` for any JSON."""
    text = re.sub(r"^```(?:json)?\s*|\s*```$", "", answer.strip())
    try:
        found = json.loads(text)
    except ValueError as error:
        return [f"is no JSON ({error})"]
    return [] if wanted is True or _holds(found, wanted) else [f"is JSON, but not {json.dumps(wanted)}"]


def _holds(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(k in found and _holds(found[k], v) for k, v in wanted.items())
    if isinstance(wanted, list):
        return isinstance(found, list) and len(found) == len(wanted) and all(map(_holds, found, wanted))
    number = isinstance(found, int | float) and isinstance(wanted, int | float)
    same_kind = isinstance(found, bool) == isinstance(wanted, bool) if number else type(found) is type(wanted)
    return bool(same_kind and found == wanted)
