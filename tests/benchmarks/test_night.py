"""The faults of a night, and what it may not lose."""

from __future__ import annotations

from pathlib import Path

from benchmarks.night import interval, mean
from benchmarks.night_set import THINGS, faults, regression


def test_no_wording_is_taught_and_asked_and_nobody_tuned_on_those_published() -> None:
    made = {half: faults(30, half) for half in ("tuning", "published")}
    for found in made.values():
        asked = [ask for fault in found for ask in (fault.ask, *fault.others)]
        assert len(found) == 30 and len(set(asked)) == 120
        assert all(fault.has in fault.right for fault in found)
        assert not any(fault.has.casefold() in ask.casefold() for fault in found for ask in fault.others)
    assert not {f.right for f in made["tuning"]} & {f.right for f in made["published"]}


def test_the_regression_set_can_be_checked_and_speaks_of_nothing_corrected(tmp_path: Path) -> None:
    questions = regression(tmp_path)
    assert len(questions) == 120 and len({(q.ask, q.file) for q in questions}) >= 115
    for q in questions:
        assert not any(thing.removeprefix("the ") in q.ask for thing in THINGS["published"])
        if q.file is not None and q.has:
            assert all(has in q.file.read_text() for has in q.has)
        assert not any(has in q.ask.casefold() for has in q.has) or q.file is None
    assert sum(not q.has for q in questions) == 16
    assert [q.ask for q in regression(tmp_path)] == [q.ask for q in questions]
    assert {q.ask for q in regression(tmp_path, "tuning")} != {q.ask for q in questions}


def test_intervals() -> None:
    assert mean([True, False]) == 0.5
    low, high = interval([0.0] * 90 + [1.0] * 10)
    assert low < 0.1 < high and interval([1.0] * 9) == (1.0, 1.0)
