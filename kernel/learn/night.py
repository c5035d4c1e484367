"""The night shift: from what people marked to an adapter that is live, or not at all.

What: a run goes through stages (harvested, scanned, taught, gated, live), each kept on disk when it is over; what is
    live is one small file. A run first watches what the last one put live, and takes it back where its figures fell.
Invariant: what is live changes in one rename, behind all gates, and to an adapter that is whole: a run killed at any
    point leaves the old one live, and the next goes on where it stopped. A gate that cannot say yes says no.
    Every run leaves one report, as JSON and as text.
Interface: `Night(folder, parts)`: `.run() -> Report`, `.watch() -> Watched`, `.live`; `Parts`, what a night asks of the
    machine; `Gate`, what a gate says.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from llmos.abi.errors import LearningError, LLMOSError
from llmos.drivers.weights.adapter import read_adapter
from llmos.drivers.whole import write_whole
from llmos.kernel.learn.poison import at_least
from llmos.memory.disk import disk_errors

Stage = Literal["begun", "harvested", "scanned", "taught", "gated", "live", "refused", "idle"]
ENDS: tuple[Stage, ...] = ("live", "refused", "idle")
ENOUGH = 6  # marks, before what is live is judged by them
DOUBT = 0.05  # chance of so many bad marks by luck, below which they are none
ADAPTER = "adapter"
_MEND = "free some space and run the night again: it goes on where it stopped"


@dataclass(frozen=True, slots=True)
class Gate:
    """What a gate says of an adapter; `figures` are what it stands on."""

    name: str
    passed: bool
    why: str
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Marks:
    """How people marked answers in some time: bad ones are those that were corrected or called bad."""

    good: int = 0
    bad: int = 0

    @property
    def count(self) -> int:
        return self.good + self.bad


@dataclass(frozen=True, slots=True)
class Live:
    """What answers now: a folder (`""`: no adapter), since when, and what was live before and how it was marked."""

    adapter: str = ""
    version: str = ""
    since: float = 0.0
    run: int = 0
    before: str = ""
    marks_before: Marks = field(default_factory=Marks)

    @classmethod
    def load(cls, said: Mapping[str, Any]) -> Live:
        """What `asdict` gave."""
        return cls(**{**said, "marks_before": Marks(**said["marks_before"])})


@dataclass(frozen=True, slots=True)
class Watched:
    """What became of what is live: how it was marked, and whether it was taken back."""

    marks: Marks
    before: Marks
    taken_back: bool
    why: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a run came to; also in its folder, as `report.json` and `report.txt`."""

    run: int
    stage: Stage
    why: str
    facts: Mapping[str, Any]
    gates: tuple[Gate, ...]
    watched: Watched | None
    seconds: float

    def text(self) -> str:
        """For people."""
        ends = {"live": "is live", "refused": "was refused", "idle": "had nothing to learn"}
        lines = [f"run {self.run} {ends.get(self.stage, self.stage)}{': ' if self.why else ''}{self.why}"]
        if self.watched is not None:
            lines.append(f"  watched: {self.watched.why}")
        lines += [f"  {name}: {_shown(value)}" for name, value in self.facts.items()]
        lines += [f"  gate {g.name}: {'passed' if g.passed else 'REFUSED'}, {g.why}" for g in self.gates]
        return "\n".join([*lines, f"  {self.seconds:.0f} s"])


class Parts(Protocol):
    """What a night asks of the machine. Each may be called again after a kill, with the same folder."""

    def harvest(self, folder: Path) -> Mapping[str, Any]:
        """Leave data sets in `folder`; facts for the report, of which `rows` says how many there are to learn from, and
        `data` names them: what was gone through before is not gone through again."""

    def scan(self, folder: Path) -> Sequence[str]:
        """Why the data sets must not be learnt from."""

    def teach(self, folder: Path, start: Path | None, out: Path) -> Mapping[str, Any]:
        """Leave an adapter at `out`, from `start` on; facts for the report."""

    def gates(self, folder: Path) -> Sequence[tuple[str, Callable[[Path | None, Path], Gate]]]:
        """By name, what judges (the adapter that is live, the new one)."""

    def swap(self, adapter: Path | None) -> None:
        """Have whoever serves now answer with this adapter; with none, by the model alone."""

    def marks(self, since: float, until: float) -> Marks:
        """How answers of that time were marked."""


class Night:
    """The nights of one expert; `folder` is its own."""

    def __init__(self, folder: Path, parts: Parts, clock: Callable[[], float] = time.time) -> None:
        self.folder, self.parts, self._clock = folder, parts, clock

    @property
    def live(self) -> Live:
        """What is live by the record of the nights. LearningError: the record is damaged."""
        return _read(self.folder / "live.json", Live.load) or Live()

    def run(self) -> Report:
        """Watch what is live, then learn; a run that was killed is gone on with.

        Raises:
            LearningError: another night of the expert is under way, or a record is damaged.
            Whatever a part raises; what is live is untouched then, and the next run goes on.
        """
        began = self._clock()
        with _alone(self.folder):
            watched = self._watch()
            number, state = self._unfinished()
            place = self._place(number)
            state = state or {"stage": "begun", "facts": {}, "gates": []}
            while state["stage"] not in ENDS:
                state = self._next(number, place, state)
                _write(place / "state.json", state)
            gates = tuple(Gate(**gate) for gate in state["gates"])
            report = Report(
                number,
                state["stage"],
                state.get("why", ""),
                state["facts"],
                gates,
                watched,
                self._clock() - began,
            )
            _write(place / "report.json", asdict(report))
            _write(place / "report.txt", report.text() + "\n")
        return report

    def watch(self) -> Watched:
        """Take what is live back, where it is marked worse than what was there before. Raises as `run`."""
        with _alone(self.folder):
            return self._watch() or Watched(Marks(), Marks(), False, "nothing of the nights is live")

    def back(self, why: str = "asked for") -> Live:
        """Have the adapter that was live before answer again. LearningError: there is nothing to go back from."""
        with _alone(self.folder):
            live = self.live
            if not live.adapter:
                raise LearningError("nothing of the nights is live", do="run one: llmos learn night")
            return self._take_back(live, why)

    # -- stages --------------------------------------------------------------------------------------------------

    def _next(self, number: int, place: Path, state: Mapping[str, Any]) -> dict[str, Any]:
        """The state after one more stage."""
        match state["stage"]:
            case "begun":
                place.mkdir(parents=True, exist_ok=True)
                facts = dict(self.parts.harvest(place))
                idle = "" if facts.get("rows") else "nobody has marked anything that can be learnt from"
                last = _read(self._place(number - 1) / "state.json", dict)
                if not idle and last and facts.get("data") and last["facts"].get("data") == facts["data"]:
                    idle = f"nothing was marked since run {number - 1}"
                return {**state, "stage": "idle" if idle else "harvested", "why": idle, "facts": facts}
            case "harvested":
                reasons = list(self.parts.scan(place))
                return {**state, "stage": "refused" if reasons else "scanned", "why": "; ".join(reasons)}
            case "scanned":
                learnt = self.parts.teach(place, _path(self.live.adapter), place / ADAPTER)
                return {**state, "stage": "taught", "facts": {**state["facts"], **learnt}}
            case "taught":
                gates = list(self._judge(place, state))
                refused = [f"{g.name}: {g.why}" for g in gates if not g.passed]
                return {
                    **state,
                    "stage": "refused" if refused else "gated",
                    "why": "; ".join(refused),
                    "gates": [asdict(g) for g in gates],
                }
        self._go_live(number, place / ADAPTER)
        return {**state, "stage": "live"}

    def _judge(self, place: Path, state: Mapping[str, Any]) -> Iterator[Gate]:
        """All gates; one that fails by an error has not said yes. What one said is kept: it is not asked again."""
        old, new = _path(self.live.adapter), place / ADAPTER
        against = {"against": str(old or "")}  # somebody may have gone back in between
        same = state.get("against") == against["against"]
        said = {gate["name"]: Gate(**gate) for gate in state["gates"] if same}
        for name, gate in self.parts.gates(place):
            if name not in said:
                try:
                    said[name] = gate(old, new)
                except LLMOSError as error:
                    said[name] = Gate(name, False, f"{type(error).__name__}: {error}")
                _write(
                    place / "state.json", {**state, **against, "gates": [asdict(g) for g in said.values()]}
                )
            yield said[name]

    def _go_live(self, number: int, adapter: Path) -> None:
        """The record first, in one rename, then whoever serves: killed in between, the next run tells them."""
        live, now = self.live, self._clock()
        if live.run != number:
            before = self.parts.marks(live.since, now)
            version = read_adapter(adapter).version
            live = Live(str(adapter), version, now, number, live.adapter, before)
            _write(self.folder / "live.json", asdict(live))
        self.parts.swap(adapter)

    # -- watching ------------------------------------------------------------------------------------------------

    def _watch(self) -> Watched | None:
        live = self.live
        if not live.adapter:
            return None
        marks, before = self.parts.marks(live.since, self._clock()), live.marks_before
        worse = fell(before, marks)
        why = f"{marks.bad} of {marks.count} marks since it went live are bad, {before.bad} of {before.count} before"
        if worse:
            self._take_back(live, why)
        return Watched(marks, before, worse, f"{why}: {'taken back' if worse else 'it stays'}")

    def _take_back(self, live: Live, why: str) -> Live:
        back = _path(live.before)
        version = "" if back is None else read_adapter(back).version
        old = Live(live.before, version, self._clock(), live.run)
        self.parts.swap(back)  # first: killed in between, the next watch takes it back once more
        _write(self._place(live.run) / "taken_back.json", {"why": why, "at": old.since})
        _write(self.folder / "live.json", asdict(old))
        return old

    def _place(self, number: int) -> Path:
        return self.folder / "runs" / f"{number:04}"

    def _unfinished(self) -> tuple[int, dict[str, Any] | None]:
        """The run to go on with, or the number of a new one."""
        numbers = sorted(int(p.name) for p in (self.folder / "runs").glob("[0-9]*") if p.name.isdecimal())
        if not numbers:
            return 1, None
        state = _read(self._place(numbers[-1]) / "state.json", dict)
        if state is None or state["stage"] not in ENDS:
            return numbers[-1], state
        return numbers[-1] + 1, None


def fell(before: Marks, now: Marks) -> bool:
    """Whether marks got worse: so many bad ones are unlikely by the share of bad ones before (one more of each counted
    there, as there may be few)."""
    usual = (before.bad + 1) / (before.count + 2)
    return now.count >= ENOUGH and at_least([usual] * now.count, now.bad) < DOUBT


# -- files -----------------------------------------------------------------------------------------------------------


def _alone(folder: Path) -> Any:
    """One night at a time."""
    import fcntl
    from contextlib import contextmanager

    @contextmanager
    def held() -> Iterator[None]:
        with disk_errors(folder, "night", _MEND):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LearningError(
                    "a night of this expert is under way", why=f"another process holds {folder / 'lock'}",
                    do="wait for it, or end it: it goes on where it stopped",
                ) from None  # fmt: skip
            yield
        finally:
            os.close(handle)

    return held()


def _read(path: Path, form: Callable[[Any], Any]) -> Any:
    try:
        return form(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise LearningError(
            f"{path} cannot be read", why=str(error), do="move it away; what is live is kept by the kernel"
        ) from None


def _write(path: Path, content: object) -> None:
    """The whole file, or the one before it."""
    text = content if isinstance(content, str) else json.dumps(content, indent=1, ensure_ascii=False)
    with disk_errors(path, "night", _MEND):
        write_whole(path, text.encode(), private=True)


def _path(text: str) -> Path | None:
    return Path(text) if text else None


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
