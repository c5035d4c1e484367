"""The five experts that ship: their own tests, and the librarian on grounded and on unanswerable questions.

What: `score.<expert>` is the share of its tests that pass, of `tests.<expert>`. The librarian is asked the 20 questions
    of the demo (Debian's policy manual) and versions from Python's manual: `grounded_right_and_cited` is the share that
    is right and names a passage which states it, `refused_unanswerable` the share of questions whose answer is not
    mounted that it refuses. `false_citations` counts citations of what did not stand in its window.
Invariant: the default model, greedy, through the real path: window, retrieval, grammar, apps in processes of their own.
    `--quick` asks a few tests of each and a few questions.
Interface: `run(quick, progress)`. Needs Debian's packages debian-policy and python3.11-doc.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.experts_grounded import python_manual
from benchmarks.figures import Figures, Progress
from examples.demo import questions as demo
from examples.demo.corpus import policy_manual
from llmos import connect
from llmos.abi.events import Done, PageIn
from llmos.abi.mount import Mount
from llmos.apps.experts.evaluation import Outcome, evaluate, refuses
from llmos.apps.experts.launch import prepare
from llmos.apps.experts.shelf import Shelf
from llmos.apps.experts.site import served
from llmos.connect import load_config
from llmos.kernel.kernel import Kernel

EXPERTS = ("assistant", "librarian", "analyst", "researcher", "coder")
QUICK_TESTS = (1, 2, 3)
ANSWERABLE, UNANSWERABLE = 100, 40  # of Python's manual


def run(quick: bool, progress: Progress) -> Figures:
    """See the module."""
    config = load_config()
    shelf = Shelf(config)
    values: dict[str, float] = {}
    notes: list[str] = []
    for name in EXPERTS:
        expert, ready = prepare(shelf, name, lambda *_: True)
        with served(expert, config) as (machine, sites), connect(machine, attach=False) as kernel:

            def tell(number: int, outcome: Outcome, name: str = name) -> None:
                progress(
                    f"{name} {number}: {'pass' if outcome.passed else '; '.join(outcome.failures)[:160]}"
                )

            report = evaluate(
                kernel, expert, ready, only=QUICK_TESTS if quick else (), sites=sites, tell=tell
            )
        values[f"score.{name}"], values[f"tests.{name}"] = report.score, len(report.outcomes)
    with connect(config, attach=False) as kernel:
        values |= _grounded(kernel, shelf, quick, progress, notes)
    return Figures(values, models=(config.kernel.model,), notes=tuple(notes))


def _grounded(
    kernel: Kernel, shelf: Shelf, quick: bool, progress: Progress, notes: list[str]
) -> dict[str, float]:
    """Right and rightly cited, refused, cited without having been read."""
    _, librarian = prepare(shelf, "librarian", lambda *_: True)
    right = both = refused = false = 0
    policy_questions = demo.draw(0, 4) if quick else demo.questions()

    def ask(mount: Path, question: str) -> Done:
        """An answer of a fresh conversation; what it cited without having read it is counted."""
        nonlocal false
        process = librarian.spawn(kernel, mounts=[Mount(mount)])
        turn = process.ask(question, **librarian.asked())
        read = {(event.source, event.position) for event in turn if isinstance(event, PageIn)}
        false += sum((c.source, c.position) not in read for c in turn.citations)
        done = turn.result
        process.close()
        return done

    def judged(name: str, question: str, done: Done, is_right: bool, cited: bool) -> None:
        nonlocal right, both
        right += is_right
        both += is_right and cited
        verdict = "right and cited" if is_right and cited else "right" if is_right else "wrong"
        progress(f"{name}: {verdict}: {question} -> {done.answer}"[:220])

    policy = policy_manual(shelf.config.machine.cache)
    for one in policy_questions:
        done = ask(policy, one.text)
        judged(
            "policy",
            one.text,
            done,
            demo.right(one, done.answer),
            bool(demo.right_citations(one, done.citations)),
        )
    with tempfile.TemporaryDirectory() as made:
        manual = python_manual(*((4, 4) if quick else (ANSWERABLE, UNANSWERABLE)), Path(made))
        progress(f"mounting pieces of Python's manual with {len(manual.answerable)} answers")
        for question in manual.answerable:
            done = ask(manual.folder, question.text)
            judged(
                "manual",
                question.text,
                done,
                question.right(done.answer),
                question.cited(done.citations, manual.folder),
            )
        for question in manual.unanswerable:
            done = ask(manual.folder, question.text)
            refused += refuses(done.answer) and not done.citations
            progress(f"unanswerable: {done.answer}"[:160])
    count = len(policy_questions) + len(manual.answerable)
    notes.append(
        f"grounded: {len(policy_questions)} of Debian's policy manual, {len(manual.answerable)} of Python's manual"
    )
    return {
        "grounded_questions": count,
        "grounded_right": right / count,
        "grounded_right_and_cited": both / count,
        "unanswerable_questions": len(manual.unanswerable),
        "refused_unanswerable": refused / len(manual.unanswerable),
        "false_citations": false,
    }
