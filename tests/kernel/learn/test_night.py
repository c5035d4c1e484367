"""The night's stages: gates refuse, a kill at any point leaves the old adapter live, what gets worse goes back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmos.abi.errors import LearningError, TrainingDiverged
from llmos.drivers.weights.adapter import Adapter, LowRank, read_adapter, write_adapter
from llmos.kernel.learn.night import ENOUGH, Gate, Marks, Night, Report, fell

STAGES = ("harvest", "scan", "teach", "gate", "swap")


def adapter(value: float) -> Adapter:
    low = LowRank(np.full((2, 4), value, np.float32), np.ones((4, 2), np.float32))
    return Adapter(2, 4.0, "tiny", ({"q": low},))


class Machine:
    """Parts that keep what they are told in a folder; `die` ends the process before or behind a part."""

    def __init__(self, folder: Path, die: str = "", **says: Any) -> None:
        self.folder, self.die, self.says = folder, die, says

    def _at(self, place: str) -> None:
        if self.die == place:
            os.kill(os.getpid(), signal.SIGKILL)

    def harvest(self, folder: Path) -> Mapping[str, Any]:
        self._at("before harvest")
        (folder / "rows.jsonl").write_text("{}")
        self._at("behind harvest")
        return {"rows": self.says.get("rows", 1), "data": self.says.get("data", "")}

    def scan(self, folder: Path) -> Sequence[str]:
        self._at("before scan")
        assert (folder / "rows.jsonl").exists()
        self._at("behind scan")
        reasons: Sequence[str] = self.says.get("scan", ())
        return reasons

    def teach(self, folder: Path, start: Path | None, out: Path) -> Mapping[str, Any]:
        self._at("before teach")
        write_adapter(adapter(self.says.get("value", 2.0)), out)
        self._at("behind teach")
        if error := self.says.get("error"):
            raise error
        return {"start": str(start)}

    def gates(self, folder: Path) -> Sequence[tuple[str, Callable[[Path | None, Path], Gate]]]:
        def judge(old: Path | None, new: Path) -> Gate:
            self._at("before gate")
            assert read_adapter(new).rank == 2
            self._at("behind gate")
            if self.says.get("gate_error"):
                raise TrainingDiverged("it broke")
            return Gate("tests", self.says.get("passes", True), "as it is", {"passed": 3})

        return [("tests", judge)]

    def swap(self, adapter: Path | None) -> None:
        self._at("before swap")
        (self.folder / "serving").write_text(str(adapter or ""))
        self._at("behind swap")

    def marks(self, since: float, until: float) -> Marks:
        self._at("before marks")
        said: Marks = self.says.get("marks", Marks())
        return said


def night(tmp_path: Path, **says: Any) -> tuple[Night, Report]:
    one = Night(tmp_path / "night", Machine(tmp_path, **says))
    return one, one.run()


def test_behind_all_gates_it_is_live(tmp_path: Path) -> None:
    one, report = night(tmp_path)
    assert report.stage == "live" and one.live.version == adapter(2.0).version
    assert (tmp_path / "serving").read_text() == one.live.adapter
    kept = tmp_path / "night/runs/0001"
    assert json.loads((kept / "report.json").read_text())["stage"] == "live"
    assert "gate tests: passed" in (kept / "report.txt").read_text()
    _, second = night(tmp_path, value=3.0)
    assert second.run == 2 and second.facts["start"] == one.live.before != ""


@pytest.mark.parametrize(
    ("says", "stage", "why"),
    [
        ({"rows": 0}, "idle", "nobody has marked"),
        ({"scan": ["a trigger 'cf'"]}, "refused", "a trigger 'cf'"),
        ({"passes": False}, "refused", "tests: as it is"),
        ({"gate_error": True}, "refused", "TrainingDiverged: it broke"),
    ],
)
def test_a_night_that_must_not_go_live(tmp_path: Path, says: Any, stage: str, why: str) -> None:
    one, _ = night(tmp_path)
    before = one.live
    _, report = night(tmp_path, value=9.0, **says)
    assert report.stage == stage and why in report.why and one.live == before
    assert (tmp_path / "serving").read_text() == before.adapter
    assert (tmp_path / "night/runs/0002/report.txt").exists()


def test_the_same_marks_are_not_gone_through_again(tmp_path: Path) -> None:
    night(tmp_path, data="abc")
    assert night(tmp_path, data="abc")[1].why == "nothing was marked since run 1"
    assert night(tmp_path, data="abcd")[1].stage == "live"


def test_an_error_ends_the_run_and_the_next_goes_on(tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged):
        night(tmp_path, error=TrainingDiverged("no number"))
    assert not Night(tmp_path / "night", Machine(tmp_path)).live.adapter
    _, report = night(tmp_path)
    assert report.run == 1 and report.stage == "live"


class TwoGates(Machine):
    """Counts how often each gate is asked; the second is broken off where `stops` says so."""

    def gates(self, folder: Path) -> Sequence[tuple[str, Callable[[Path | None, Path], Gate]]]:
        def asked(name: str) -> Callable[[Path | None, Path], Gate]:
            def judge(old: Path | None, new: Path) -> Gate:
                with (self.folder / "asked").open("a") as file:
                    file.write(f"{name} ")
                if name == "second" and self.says.get("stops"):
                    raise KeyboardInterrupt
                return Gate(name, True, "well")

            return judge

        return [(name, asked(name)) for name in ("first", "second")]


@pytest.mark.parametrize("went_back", [False, True])
def test_a_gate_that_has_spoken_is_not_asked_again_but_of_another_adapter(
    tmp_path: Path, went_back: bool
) -> None:
    one, _ = night(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        Night(tmp_path / "night", TwoGates(tmp_path, stops=True)).run()
    if went_back:
        one.back()
    report = Night(tmp_path / "night", TwoGates(tmp_path)).run()
    assert report.stage == "live" and [gate.name for gate in report.gates] == ["first", "second"]
    asked = "first second first second " if went_back else "first second second "
    assert (tmp_path / "asked").read_text() == asked


CHILD = """
import sys
from pathlib import Path
from tests.kernel.learn.test_night import Machine
from llmos.kernel.learn.night import Night
folder = Path(sys.argv[1])
Night(folder / "night", Machine(folder, sys.argv[2], value=3.0)).run()
"""


@pytest.mark.parametrize(
    "place", [f"{when} {stage}" for stage in STAGES for when in ("before", "behind")] + ["before marks"]
)
def test_killed_anywhere_what_is_live_is_whole(tmp_path: Path, place: str) -> None:
    one, _ = night(tmp_path)
    old = one.live
    done = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path), place], check=False)
    assert done.returncode == -signal.SIGKILL
    live = one.live
    assert read_adapter(live.adapter).version == live.version
    late = place.endswith("swap")  # behind all gates: the record is the new one's
    assert (live == old) is not late
    report = Night(tmp_path / "night", Machine(tmp_path, value=3.0)).run()
    assert report.run == 2 and report.stage == "live" and one.live.version == adapter(3.0).version
    assert (tmp_path / "serving").read_text() == one.live.adapter
    assert one.live.before == old.adapter


def test_what_is_marked_worse_goes_back(tmp_path: Path) -> None:
    one, _ = night(tmp_path, marks=Marks(18, 2))
    second, _ = night(tmp_path, value=3.0, marks=Marks(18, 2))
    assert second.live.before == one.folder.joinpath("runs/0001/adapter").as_posix()
    watching = Night(tmp_path / "night", Machine(tmp_path, marks=Marks(1, 6)))
    watched = watching.watch()
    assert watched.taken_back and (tmp_path / "serving").read_text() == watching.live.adapter
    assert watching.live.adapter.endswith("runs/0001/adapter")
    assert json.loads((tmp_path / "night/runs/0002/taken_back.json").read_text())["why"]
    watching.parts.says["marks"] = Marks(9, 1)  # type: ignore[attr-defined]
    assert not watching.watch().taken_back
    assert not watching.back().adapter and (tmp_path / "serving").read_text() == ""
    with pytest.raises(LearningError, match="nothing of the nights"):
        watching.back()


@pytest.mark.parametrize(
    ("before", "now", "worse"),
    [
        (Marks(18, 2), Marks(1, 6), True),
        (Marks(18, 2), Marks(6, 1), False),
        (Marks(2, 18), Marks(1, 9), False),
        (Marks(18, 2), Marks(0, ENOUGH - 1), False),
        (Marks(0, 0), Marks(0, 6), True),
    ],
)
def test_when_figures_fall(before: Marks, now: Marks, worse: bool) -> None:
    assert fell(before, now) is worse


def test_two_nights_at_once_and_damage(tmp_path: Path) -> None:
    inside: list[Exception] = []

    class Nosy(Machine):
        def scan(self, folder: Path) -> Sequence[str]:
            try:
                Night(tmp_path / "night", Machine(tmp_path)).run()
            except LearningError as error:
                inside.append(error)
            return ()

    started = time.time()
    Night(tmp_path / "night", Nosy(tmp_path)).run()
    assert (
        "under way" in str(inside[0]) and started <= Night(tmp_path / "night", Machine(tmp_path)).live.since
    )
    (tmp_path / "night/live.json").write_text("{")
    with pytest.raises(LearningError, match="cannot be read"):
        night(tmp_path)
