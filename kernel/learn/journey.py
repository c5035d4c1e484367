"""From a model as it is to one that is better than its teacher, measured on the way.

What: before; an imperfect teacher is imitated; then the model improves on its own answers. Behind each stage it is
    asked what it never learnt from: fresh tasks, questions in other words, a size beyond those that it saw.
Invariant: the held-out tasks are the same at every stage and for every seed. Marks are kept as they are made: a journey
    that was stopped goes on, and measures nothing twice. Nothing held out decides anything.
Interface: `Plan`, `travel(weights, domain, out, plan, ...)` -> `Journey`; `Witness`, who is told.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from llmos.abi.errors import CheckpointError
from llmos.drivers.weights.adapter import read_adapter
from llmos.kernel.learn.arena import Arena, Mark
from llmos.kernel.learn.course import Course, Watcher
from llmos.kernel.learn.domains import Domain
from llmos.kernel.learn.rl import Effort, Improved, Watch, imitate, improve, settings
from llmos.kernel.learn.rounds import belongs
from llmos.kernel.learn.saved import keep

if TYPE_CHECKING:
    from llmos.drivers.weights import Weights
    from llmos.drivers.weights.adapter import Adapter

Marks = tuple[Mark, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Args:
    imitate: answers of the teacher that are learnt first; 0 leaves the stage out.
    course: how they are learnt.
    effort: how the model improves on itself then.
    held_out: tasks of each held-out set that it is asked at each stage; 0 measures nothing.
    """

    imitate: int = 0
    course: Course = field(default_factory=lambda: Course(epochs=2.0, window=256, batch=2048, micro=4))
    effort: Effort = field(default_factory=Effort)
    held_out: int = 60


class Witness(Watcher, Watch, Protocol):
    """Who is told of a journey."""

    def stage(self, name: str) -> None:
        """A stage begins."""

    def marked(self, name: str, marks: Marks) -> None:
        """A stage's marks: of `before`, `teacher`, `imitation` or `after`; `<stage>, drawn` of answers drawn, not the
        likeliest."""


@dataclass(frozen=True, slots=True)
class Journey:
    """What came of it: marks by stage, and the last stage's run."""

    marks: dict[str, Marks]
    improved: Improved


def travel(
    weights: Weights,
    domain: Domain,
    out: Path,
    plan: Plan,
    *,
    start: Adapter | None = None,
    watch: Witness | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Journey:
    """Go through all stages; the adapter is left in `out`/adapter.

    Raises as `imitate` and `improve`; CheckpointError also where the marks that were kept cannot be read.
    """
    belongs(out / "journey", settings(weights, domain, plan.effort, start) | _named(plan))
    kept = out / "journey" / "marks.json"
    marks: dict[str, Marks] = _read(kept)

    def mark(name: str, make: Callable[[], Marks]) -> None:
        if name not in marks and plan.held_out:
            marks[name] = make()
            keep(kept, {stage: [dataclasses.asdict(m) for m in made] for stage, made in marks.items()})
        if watch is not None and name in marks:
            watch.marked(name, marks[name])

    def both(name: str, adapter: Adapter | None) -> None:
        mark(name, lambda: arena.marks(plan.held_out, adapter=adapter))
        mark(f"{name}, drawn", lambda: arena.marks(plan.held_out, adapter=adapter, greedy=False))

    with Arena(weights, domain, plan.effort.window, mode=plan.effort.mode) as arena:
        both("before", start)
        if plan.imitate:
            mark("teacher", lambda: arena.marks_of_teacher(plan.held_out))
            folder = out / "imitation"
            if watch is not None:
                watch.stage("imitation")
            if not (folder / "curve.json").is_file() or not (folder / "adapter").is_dir():
                imitate(weights, domain, folder, plan.imitate, plan.course, watch, stop)
            start = read_adapter(folder / "adapter")
            both("imitation", start)
        if watch is not None:
            watch.stage("self-improvement")
        improved = improve(
            weights, domain, out, plan.effort, arena=arena, start=start, watch=watch, stop=stop
        )
        both("after", improved.adapter)
    return Journey(marks, improved)


def _named(plan: Plan) -> dict[str, Any]:
    """What else must not change between a journey and its resumption."""
    course = dataclasses.asdict(plan.course)
    del course["save_every"]
    return {"imitate": plan.imitate, "course": course, "held_out": plan.held_out}


def _read(path: Path) -> dict[str, Marks]:
    try:
        said = json.loads(path.read_bytes())
        return {name: tuple(Mark(**one) for one in made) for name, made in said.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is damaged", why=f"{type(error).__name__}: {error}",
            do="move it away: what it held is measured again",
        ) from None  # fmt: skip
