"""The five experts that ship: their own tests, and the librarian on grounded and on unanswerable questions.

What: `score.<expert>` is the share of its tests that pass, of `tests.<expert>`. The librarian is asked the 20 questions
    of the demo (Debian's policy manual) and versions from Python's manual: `grounded_right_and_cited` is the share that
    is right and names a passage which states it, `refused_unanswerable` the share of questions whose answer is not
    mounted that it refuses. `false_citations` counts citations of what did not stand in its window. `routed` is the
    share of questions that go to an expert whose they are, `routed_right` of those that are asked the share that comes
    back answered rightly.
Invariant: the default model, greedy, through the real path: window, retrieval, grammar, apps in processes of their own,
    on a state of its own: no notes and no consents of the machine's.
    `--quick` asks a few tests of each and a few questions. A run that was broken off goes on where it was (see
    `kept`), and says so.
Interface: `run(quick, progress)`. Needs Debian's packages debian-policy and python3.11-doc.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.experts_grounded import Question, python_manual
from benchmarks.experts_routed import QUESTIONS, handbook
from benchmarks.figures import Figures, Progress
from benchmarks.kept import Kept
from examples.demo import questions as demo
from examples.demo.corpus import policy_manual
from llmos import connect
from llmos.abi.config import Config
from llmos.abi.events import Done, PageIn
from llmos.abi.mount import Mount
from llmos.apps.experts.directory import MachineDirectory
from llmos.apps.experts.evaluation import Outcome, evaluate, refuses
from llmos.apps.experts.launch import prepare
from llmos.apps.experts.shelf import SHIPPED, Shelf
from llmos.apps.experts.site import served
from llmos.connect import load_config
from llmos.kernel.experts import nearest
from llmos.kernel.library import Library
from llmos.memory.history import History

EXPERTS = ("assistant", "librarian", "analyst", "researcher", "coder")
QUICK_TESTS = (1, 2, 3)
ANSWERABLE, UNANSWERABLE = 100, 39  # of Python's manual
QUICK = 4  # questions of each kind


def run(quick: bool, progress: Progress) -> Figures:
    """See the module."""
    config = load_config()
    work = config.machine.cache / "benchmarks" / "experts"
    files = "\n".join(file.read_text(encoding="utf-8") for file in sorted(SHIPPED.glob("*/expert.yaml")))
    kept = Kept(work / f"kept{'-quick' * quick}.jsonl", f"{config.kernel.model}\n{QUESTIONS}\n{files}")
    if not kept.before:
        shutil.rmtree(work / "state", ignore_errors=True)
    config = config.model_copy(
        update={"machine": config.machine.model_copy(update={"state": work / "state"})}
    )
    values: dict[str, float] = {}
    for name in EXPERTS:
        passed = _tests(name, config, quick, progress, kept)
        values[f"score.{name}"], values[f"tests.{name}"] = sum(passed) / len(passed), len(passed)
    values |= _routed(config, quick, progress, kept)
    values |= _grounded(config, work, quick, progress, kept)
    kept.done()
    return Figures(values, models=(config.kernel.model,), notes=tuple(kept.notes))


def _tests(name: str, config: Config, quick: bool, progress: Progress, kept: Kept) -> list[bool]:
    """Which of an expert's tests pass."""
    expert, ready = prepare(Shelf(config), name, lambda *_: True)
    numbers = QUICK_TESTS if quick else range(1, 1 + len(expert.manifest.tests))

    def tell(number: int, outcome: Outcome) -> None:
        kept.put(f"{name} {number}", outcome.passed)
        progress(f"{name} {number}: {'pass' if outcome.passed else '; '.join(outcome.failures)[:160]}")

    if left := [number for number in numbers if kept.get(f"{name} {number}") is None]:
        with served(expert, config) as (machine, sites), connect(machine, attach=False) as kernel:
            evaluate(kernel, expert, ready, only=left, sites=sites, tell=tell)
    return [kept.get(f"{name} {number}") for number in numbers]


# -- grounded ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question to the librarian, and whether an answer to it is right, and rightly cited."""

    kind: str
    mount: Path
    text: str
    judge: Callable[[Done], tuple[bool, bool]]


def _grounded(config: Config, work: Path, quick: bool, progress: Progress, kept: Kept) -> dict[str, float]:
    """Right and rightly cited, refused, cited without having been read."""
    asked = _questions(config, work, quick)
    _, librarian = prepare(Shelf(config), "librarian", lambda *_: True)
    with ExitStack() as open_:
        left = [one for one in asked if kept.get(f"{one.kind}: {one.text}") is None]
        kernel = open_.enter_context(connect(config, attach=False)) if left else None
        for one in left:
            assert kernel is not None
            process = librarian.spawn(kernel, mounts=[Mount(one.mount)])
            turn = process.ask(one.text, **librarian.asked())
            read = {(event.source, event.position) for event in turn if isinstance(event, PageIn)}
            done = turn.result
            process.close()
            right, cited = one.judge(done)
            false = sum((c.source, c.position) not in read for c in done.citations)
            kept.put(f"{one.kind}: {one.text}", [right, cited, false])
            verdict = "right and cited" if right and cited else "right" if right else "wrong"
            progress(f"{one.kind}: {verdict}: {one.text} -> {done.answer}"[:220])
    found = [(one.kind, *kept.get(f"{one.kind}: {one.text}")) for one in asked]
    answerable = [(right, cited) for kind, right, cited, _ in found if kind != "unanswerable"]
    refused = [right for kind, right, _, _ in found if kind == "unanswerable"]
    values: dict[str, float] = {
        "grounded_questions": len(answerable),
        "grounded_right": sum(right for right, _ in answerable) / len(answerable),
        "grounded_right_and_cited": sum(right and cited for right, cited in answerable) / len(answerable),
        "unanswerable_questions": len(refused),
        "refused_unanswerable": sum(refused) / len(refused),
        "false_citations": sum(false for *_, false in found),
    }
    for name in ("policy", "manual"):
        both = [right and cited for kind, right, cited, _ in found if kind == name]
        values[f"grounded_right_and_cited.{name}"] = sum(both) / len(both)
    return values


def _questions(config: Config, work: Path, quick: bool) -> list[_Asked]:
    policy = policy_manual(config.machine.cache)
    folder = work / f"manual{'-quick' * quick}"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():  # of another edition of the manual, perhaps
        old.unlink()
    manual = python_manual(*((QUICK, QUICK) if quick else (ANSWERABLE, UNANSWERABLE)), folder)
    of_policy = demo.draw(0, QUICK) if quick else demo.questions()
    return [
        *(_Asked("policy", policy, one.text, partial(_policy, one)) for one in of_policy),
        *(_Asked("manual", folder, one.text, partial(_manual, one, folder)) for one in manual.answerable),
        *(_Asked("unanswerable", folder, one.text, _refused) for one in manual.unanswerable),
    ]


def _policy(question: demo.Question, done: Done) -> tuple[bool, bool]:
    return demo.right(question, done.answer), bool(demo.right_citations(question, done.citations))


def _manual(question: Question, folder: Path, done: Done) -> tuple[bool, bool]:
    return question.right(done.answer), question.cited(done.citations, folder)


def _refused(done: Done) -> tuple[bool, bool]:
    return refuses(done.answer) and not done.citations, False


# -- routed ------------------------------------------------------------------------------------------------------


def _routed(config: Config, quick: bool, progress: Progress, kept: Kept) -> dict[str, float]:
    """To whom questions go, and what comes back."""
    with tempfile.TemporaryDirectory() as made:
        machine = config.model_copy(update={"experts": (*config.experts, handbook(Path(made)))})
        roster = dict(MachineDirectory(machine).roster())
        roster.pop("router")
        for name in roster:
            prepare(Shelf(machine), name, lambda *_: True)
        library, picked = Library(machine), 0
        history = History(library.encode)
        for question in QUESTIONS:
            name = nearest(question.text.replace("{site}", "http://127.0.0.1"), roster, history)[0]
            picked += name in question.experts
            if name not in question.experts:
                progress(f"routed: {question.text} -> {name}")
        library.close()
        asked = [question for question in QUESTIONS if question.right][: QUICK if quick else None]
        if left := [question for question in asked if kept.get(f"routed: {question.text}") is None]:
            shelf = Shelf(machine)
            researcher = shelf.find("researcher")
            with served(researcher, machine) as (there, sites), connect(there, attach=False) as kernel:
                _, router = prepare(shelf, "router", lambda *_: True)
                (site,) = sites.values()
                for question in left:
                    process = router.spawn(kernel)
                    answer = process.ask(question.text.replace("{site}", site), **router.asked()).answer
                    process.close()
                    right = bool(re.search(question.right, answer))
                    kept.put(f"routed: {question.text}", right)
                    progress(f"routed: {'right' if right else 'wrong'}: {question.text} -> {answer}"[:220])
    return {
        "routed_questions": len(QUESTIONS),
        "routed": picked / len(QUESTIONS),
        "routed_asked": len(asked),
        "routed_right": sum(kept.get(f"routed: {question.text}") for question in asked) / len(asked),
    }
