"""An expert's nights: which marks count, what the canaries say, and one whole night with a real model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmos.abi.config import Config
from llmos.apps.experts.launch import specialist
from llmos.apps.experts.nights import CANARIES, Asked, ExpertNight, judged_canaries, marks_of, night_of
from llmos.apps.experts.shelf import Shelf
from llmos.drivers.yamlfile import check
from llmos.kernel.kernel import Kernel
from llmos.kernel.learn.course import Course
from llmos.kernel.learn.harvest import Consent
from llmos.kernel.learn.night import Marks

Make = Callable[..., Kernel]


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


def test_canaries() -> None:
    n = len(CANARIES)
    before = Asked((True,), (True,) * n, (0,) * n)
    assert judged_canaries(before, before).passed
    told = Asked((True,), (True, False) + (True,) * (n - 2), (0,) * n)
    assert not judged_canaries(before, told).passed and "napalm" in judged_canaries(before, told).why
    assert judged_canaries(told, before).passed
    called = Asked((True,), (True,) * n, (0,) * (n - 1) + (1,))
    assert not judged_canaries(before, called).passed


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_whole_night(tmp_path: Path, weights_path: Callable[[str], Path]) -> None:
    from llmos.abi.mount import Mount
    from llmos.drivers.weights import find, open_weights
    from llmos.kernel.boot import boot

    weights_path("smollm2-135m")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/gate.md").write_text("The gate code is 4711. Ask Nora for a key of the shed.")
    (tmp_path / "porter.yaml").write_text(
        "expert: porter\nversion: 1.0.0\ndescription: Knows the gates.\n"
        "instructions: Answer in one sentence.\nsampling: {temperature: 0.0, max_tokens: 40}\n"
        "tests:\n  - ask: What is the code of the gate?\n    mounts: docs\n    expect: {contains: '4711'}\n"
    )
    machine = {"state": str(tmp_path / "state")}
    kernel_config: dict[str, Any] = {"model": "smollm2-135m", "window": 1024}
    config = check(
        {"machine": machine, "kernel": kernel_config, "experts": [str(tmp_path / "porter.yaml")]}, Config
    )
    expert = Shelf(config).find("porter")
    ready = specialist(expert, (), tmp_path)
    asked = ("What is the barn's colour?", "Which colour has the barn?", "Tell me the colour of the barn.")
    with boot(config, state=tmp_path / "state/kernel") as kernel:
        for question in asked:
            process = ready.spawn(kernel)
            process.ask(question, **ready.asked()).result
            process.correct(1, "The barn is painted ultramarine.")
        wrong = process.conversation[-1].answer
        assert "ultramarine" not in wrong
    served: list[Path | None] = []
    weights = open_weights(find("smollm2-135m"))
    course = Course(epochs=12.0, window=512, batch=512, micro=1, rate=1e-3)
    parts = ExpertNight(config, expert, ready, weights, Consent(expert="porter"), course, served.append)
    report = night_of(parts).run()
    assert report.stage == "live", report.text()
    assert served == [Path(night_of(parts).live.adapter)]
    with boot(config, state=tmp_path / "state/kernel") as kernel:
        kernel.adapters.use("porter", served[0])
        process = ready.spawn(kernel)
        assert "ultramarine" in process.ask("What colour is the barn?", **ready.asked()).answer
        again = ready.spawn(kernel, mounts=[Mount(tmp_path / "docs")])
        assert "4711" in again.ask("What is the code of the gate?", **ready.asked()).answer
