"""The experts' benchmark: what it asks of the router, and that a run goes on where it was broken off."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from pathlib import Path

from benchmarks.experts_routed import QUESTIONS, handbook
from benchmarks.kept import DAY_S, Kept
from llmos.abi.config import Config
from llmos.apps.experts.shelf import Shelf
from llmos.drivers.yamlfile import check


def test_a_run_that_was_broken_off_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "some" / "kept.jsonl"
    kept = Kept(file, "a model")
    assert (kept.before, kept.get("one")) == (0, None)
    kept.put("one", True)
    kept.put("two", [False, 3])
    with file.open("a") as out:
        out.write('["three", tr')  # killed in the middle of a line
    again = Kept(file, "a model")
    assert (again.before, again.get("one"), again.get("two"), again.get("three")) == (
        2,
        True,
        [False, 3],
        None,
    )
    again.put("three", False)
    assert Kept(file, "a model").get("three") is False
    again.done()
    assert not file.exists()


def test_what_is_old_or_of_another_setting_is_measured_anew(tmp_path: Path) -> None:
    file = tmp_path / "kept.jsonl"
    Kept(file, "a model").put("one", True)
    assert Kept(file, "another").before == 0
    Kept(file, "another").put("one", True)
    long_ago = time.time() - DAY_S - 60
    os.utime(file, (long_ago, long_ago))
    assert Kept(file, "another").before == 0
    file.write_bytes(b"\xff\x00 no lines of ours\n[]\n[1]\n")
    assert Kept(file, "another").before == 0


def test_questions_for_the_router(tmp_path: Path) -> None:
    state = {"state": str(tmp_path / "state")}
    machine = check({"machine": state, "experts": [str(handbook(tmp_path))]}, Config)
    there = {one.name: one.expert for one in Shelf(machine).listed()}
    assert there["handbook"] is not None and there["handbook"].manifest.knowledge[0].trust == "mine"
    assert max(Counter(question.text for question in QUESTIONS).values()) == 1
    tested = {case.ask for expert in there.values() if expert for case in expert.manifest.tests}
    for question in QUESTIONS:
        assert set(question.experts) <= there.keys() and question.text not in tested
        assert not question.right or re.compile(question.right)
    assert sum(bool(question.right) for question in QUESTIONS) >= 10
