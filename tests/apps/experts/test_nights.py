"""An expert's nights: which marks count, what is replayed, and whole nights with a real model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from llmos.abi.config import Config
from llmos.abi.mount import Mount
from llmos.abi.specialist import Specialist
from llmos.apps.experts.expert import Expert
from llmos.apps.experts.judging import CANARIES
from llmos.apps.experts.launch import specialist
from llmos.apps.experts.nights import ExpertNight, marks_of, night_of
from llmos.apps.experts.replay import QUESTIONS, regular, rehearsed, watched
from llmos.apps.experts.shelf import Shelf
from llmos.drivers.yamlfile import check
from llmos.kernel.kernel import Kernel
from llmos.kernel.learn.course import Course
from llmos.kernel.learn.data import Row
from llmos.kernel.learn.harvest import Consent, harvest
from llmos.kernel.learn.night import Marks

Make = Callable[..., Kernel]
Write = Callable[..., Path]


def test_of_each_turn_the_newest_mark_counts(scripted_kernel: Make, tmp_path: Path) -> None:
    with scripted_kernel(lambda _: "Yes.", state=tmp_path / "kernel") as kernel:
        p, other = kernel.spawn(expert="librarian"), kernel.spawn(expert="coder")
        for process in (p, other):
            for question in ("one", "two", "three"):
                process.ask(question).result
        p.good(1)
        p.bad(1)
        p.good(2)
        p.correct(3, "No.")
        other.good(1)
        p.prefer(2, 3)
        kernel.spawn().ask("bye").result  # what was journalled before is on the disk
        records = list(kernel.journal.records())
    last = records[-1].time
    assert marks_of(tmp_path, "librarian", 0, last) == Marks(good=1, bad=2)
    assert marks_of(tmp_path, "coder", 0, last) == Marks(good=1, bad=0)
    assert marks_of(tmp_path, "librarian", last + 1, last + 2) == Marks()
    assert marks_of(tmp_path / "nowhere", "librarian", 0, last) == Marks()


def test_what_is_replayed_is_praised(
    scripted_kernel: Make, shelf: Shelf, write: Write, tmp_path: Path
) -> None:
    """Passed tests and answered questions; a test that fails, or an answer that is none, is not."""
    tests = (
        "tests:\n  - ask: One?\n    expect: {contains: fine}\n  - ask: Two?\n    expect: {contains: blue}\n"
    )
    expert = shelf.find(str(write("clerk", tests)))
    said = {"Who wrote Hamlet?": ""}

    def script(window: str) -> str:
        return next((answer for question, answer in said.items() if question in window), "All is fine.")

    state = tmp_path / "replayed"
    with scripted_kernel(script, state=state) as kernel:
        regular(kernel, expert, specialist(expert, (), tmp_path), {})
        found = harvest([state], kernel.prompt, kernel.tokenizer)
    assert {row.expert for row in found.rows} == {"clerk"}
    asked = [row.asked[-1]["content"] for row in found.rows]
    assert asked[0] == "One?" and "Two?" not in asked and "Who wrote Hamlet?" not in asked
    assert set(asked[1:]) == set(QUESTIONS) - {"Who wrote Hamlet?"}
    assert {row.right for row in found.rows} == {"All is fine."} and not set(QUESTIONS) & set(CANARIES)


def test_what_is_looked_at_is_not_rehearsed() -> None:
    rows = [Row(f"row {i}", {}) for i in range(8)]
    some, others = rehearsed(rows), watched(rows)
    assert [row.place for row in others] == ["row 2", "row 5"]
    assert len(some) == 6 and not set(map(id, some)) & set(map(id, others))


def porter(tmp_path: Path) -> tuple[Config, Expert, Specialist]:
    """An expert that knows from a document what the gate's code is, and tests it."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/gate.md").write_text("The gate code is 4711. Ask Nora for a key of the shed.")
    (tmp_path / "porter.yaml").write_text(
        "expert: porter\nversion: 1.0.0\ndescription: Knows the gates.\n"
        "instructions: Answer in one sentence.\nsampling: {temperature: 0.0, max_tokens: 40}\n"
        "tests:\n  - ask: What is the code of the gate?\n    mounts: docs\n    expect: {contains: '4711'}\n"
    )
    config = check(
        {
            "machine": {"state": str(tmp_path / "state")},
            "kernel": {"model": "smollm2-135m", "window": 1024},
            "experts": [str(tmp_path / "porter.yaml")],
        },
        Config,
    )
    expert = Shelf(config).find("porter")
    return config, expert, specialist(expert, (), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("right", [True, False])
def test_a_whole_night(tmp_path: Path, weights_path: Callable[[str], Path], right: bool) -> None:
    """What was corrected is said in the morning, by processes that were there before too; a correction that breaks what
    the expert's tests say goes no further than its gates."""
    from llmos.drivers.weights import find, open_weights
    from llmos.kernel.boot import boot

    weights_path("smollm2-135m")
    config, expert, ready = porter(tmp_path)
    docs = [Mount(tmp_path / "docs", "mine")]
    barn = ("What is the barn's colour?", "Which colour has the barn?", "Tell me the colour of the barn.")
    gate = ("What is the code of the gate?",)
    course = Course(epochs=12.0, window=512, batch=512, micro=1, rate=5e-4)
    with boot(config, state=tmp_path / "state/kernel") as kernel:
        for question in barn if right else gate:
            process = ready.spawn(kernel, mounts=() if right else docs)
            answer = process.ask(question, **ready.asked()).answer
            assert "ultramarine" not in answer and (right or "4711" in answer)
            process.correct(1, "The barn is painted ultramarine.")
        waiting, knowing = ready.spawn(kernel), ready.spawn(kernel, mounts=docs)
        parts = ExpertNight(
            config, expert, ready, open_weights(find("smollm2-135m")), Consent(expert="porter"), course,
            partial(kernel.adapters.use, "porter"),
        )  # fmt: skip
        night = night_of(parts)
        report = night.run()
        live = kernel.adapters.store.of("porter")
        assert {gate.name for gate in report.gates} == {"tests", "regression", "canaries", "poison"}, (
            report.text()
        )
        if right:
            assert report.stage == "live" and live == night.live.version, report.text()
            assert report.facts["wordings"] > report.facts["rows"], "questions were not put into other words"
            assert "ultramarine" in waiting.ask("What colour is the barn?", **ready.asked()).answer
            assert "4711" in knowing.ask("What is the code of the gate?", **ready.asked()).answer
            night.back()
            assert not kernel.adapters.store.of("porter") and not night.live.adapter
        else:
            assert report.stage == "refused" and "0 of 1 tests pass, 1 did" in report.why, report.text()
            assert live is None and not night.live.adapter
        assert (
            "ultramarine" not in ready.spawn(kernel).ask("What colour is the barn?", **ready.asked()).answer
        )
