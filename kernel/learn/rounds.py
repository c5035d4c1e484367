"""Rounds of self-improvement, as they are kept: what was drawn, how it was judged, what is learnt from it.

What: one JSON file a round. A run that goes on takes what it drew before from there, and draws the rest.
Invariant: a round is whole or not there, and never drawn twice: the samples are part of a run like its data. A folder
    belongs to one run; one begun with other settings is refused.
Interface: `Round`; `Rounds(folder)`: `get(number)`, `keep(round)`; `belongs(folder, settings)`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmos.abi.errors import CheckpointError
from llmos.kernel.learn.policy import Lesson
from llmos.kernel.learn.saved import keep


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Args:
    number: 0-based.
    adapter: version of the one that answered.
    answers, right, reward, tokens: how many there were, how many right, their rewards and tokens together.
    groups, equal: questions, and those whose answers were all worth the same.
    cut: answers that did not end by themselves.
    faults: checks that failed, and what the last one said.
    tally: by level, rewards together and answers.
    shown: a question with its best and its worst answer, for people.
    seconds: that drawing and judging took.
    """

    number: int
    adapter: str
    answers: int
    right: int
    reward: float
    tokens: int
    groups: int
    equal: int
    cut: int
    faults: int
    fault: str
    tally: dict[int, tuple[float, int]]
    shown: tuple[str, str, str]
    seconds: float
    lessons: tuple[Lesson, ...]


@dataclass(frozen=True, slots=True)
class Rounds:
    """The rounds of one run."""

    folder: Path

    def get(self, number: int) -> Round | None:
        """A round that was kept; None where it was not.

        Raises:
            CheckpointError: what lies there is no round.
        """
        path = self._path(number)
        try:
            said = json.loads(path.read_bytes())
            return Round(**said | {
                "tally": {int(level): (float(r), int(n)) for level, (r, n) in said["tally"].items()},
                "shown": tuple(said["shown"]),
                "lessons": tuple(
                    Lesson(tuple(one["tokens"]), tuple(one["logprobs"]), one["worth"]) for one in said["lessons"]
                ),
            })  # fmt: skip
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise CheckpointError(
                f"{path} is damaged", why=f"{type(error).__name__}: {error}",
                do="choose another --out: without it the run cannot go on the way it went",
            ) from None  # fmt: skip

    def keep(self, made: Round) -> None:
        """Raises DiskFull."""
        keep(self._path(made.number), asdict(made))

    def _path(self, number: int) -> Path:
        return self.folder / f"round-{number:05d}.json"


def belongs(folder: Path, settings: Mapping[str, Any]) -> None:
    """See that a folder is of a run with these settings; an empty one becomes it.

    Raises:
        CheckpointError: it is of another run.
    """
    path, wanted = folder / "settings.json", json.loads(json.dumps(settings))
    try:
        said = json.loads(path.read_bytes())
    except FileNotFoundError:
        keep(path, wanted)
        return
    except ValueError:
        said = {}
    if said != wanted:
        other = [name for name in wanted if said.get(name) != wanted[name]]
        raise CheckpointError(
            f"{folder} is of another run", why=f"it was begun with another {' and '.join(other)}",
            do="run with the settings it was begun with, or choose another --out",
        )  # fmt: skip
