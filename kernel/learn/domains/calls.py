"""The machine's own syscalls: did the calls do what was asked?

What: errands for the calculator and the files app; a level has one more than the one before. The answer is calls as
    JSON, a line each. They are made: by a kernel whose model says them and nothing else, under the grammar of its
    grants, before the monitor, by the real apps, in a folder that the errand laid out.
Invariant: judged by what came of it, never by which calls were made: the results that were read, and what the folder
    holds then, have to be what the right calls come to. Dates lie in years that nobody asks about. The teacher mixes
    up arguments or takes the wrong call for one errand, more often than not.
Interface: `Calls(levels, lapse, tokens)`, a `Domain`.
"""

from __future__ import annotations

import atexit
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import count
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from llmos.abi.config import Config
from llmos.abi.events import Call, Result
from llmos.drivers.yamlfile import check
from llmos.kernel.engine.scripted import (
    CLOSE,
    END,
    OPEN,
    START,
    ScriptedRunner,
    byte_tokenizer,
    chat_template,
)
from llmos.kernel.learn.domains import Task

if TYPE_CHECKING:
    from llmos.kernel.kernel import Kernel

GRANTS = (
    "calculator.weekday", "calculator.days_between", "calculator.add_to_date",
    "files.write", "files.append", "files.edit",
)  # fmt: skip
HINT = (
    'Answer with calls, one a line, as {"name": "calculator.weekday", "arguments": {"date": "2100-01-31"}}. There are '
    "calculator: weekday(date), days_between(start, end), add_to_date(date, amount, unit); files: write(path, text), "
    "append(path, text), edit(path, old, new)."
)
ALMOST = 0.1  # what calls are worth that could all be made, and did something else
LONGEST = 2000  # characters of an answer
WORDS = tuple(
    "copper lantern meadow pebble violin harbour saffron walnut ribbon glacier tunnel orchard basil falcon".split()
)
FILES = (
    "plan.txt",
    "stock.txt",
    "songs.txt",
    "route.txt",
    "ideas.txt",
    "guests.txt",
    "tools.txt",
    "menu.txt",
)
UNITS = ("days", "weeks", "months", "years")
Said = tuple[str, Mapping[str, object]]
"""A syscall, and what it is called with."""


@dataclass(frozen=True, slots=True)
class Errand:
    """As it is put, as training never puts it, the call that does it, and the teacher's slip; of values by place."""

    says: str
    else_says: str
    call: Callable[[list[str]], Said]
    slip: Callable[[list[str]], Said]


def _weekday(date: str) -> Said:
    return "calculator.weekday", {"date": date}


def _between(start: str, end: str) -> Said:
    return "calculator.days_between", {"start": start, "end": end}


def _later(date: str, amount: int, unit: str) -> Said:
    return "calculator.add_to_date", {"date": date, "amount": amount, "unit": unit}


def _write(path: str, text: str) -> Said:
    return "files.write", {"path": path, "text": text}


def _append(path: str, text: str) -> Said:
    return "files.append", {"path": path, "text": text}


def _edit(path: str, old: str, new: str) -> Said:
    return "files.edit", {"path": path, "old": old, "new": new}


ERRANDS = {
    "weekday": Errand("which day of the week is {0}", "look up the weekday of {0}", lambda v: _weekday(v[0]),
                      lambda v: _later(v[0], 1, "days")),
    "between": Errand("how many days are there from {0} to {1}", "count the days until {1}, from {0} on",
                      lambda v: _between(v[0], v[1]), lambda v: _between(v[1], v[0])),
    "later": Errand("which date is {1} {2} after {0}", "{1} {2} have gone by since {0}: what is the date",
                    lambda v: _later(v[0], int(v[1]), v[2]), lambda v: _later(v[0], -int(v[1]), v[2])),
    "write": Errand('make {0} say "{1}" and nothing else', 'all that stands in {0} shall be "{1}"',
                    lambda v: _write(v[0], v[1]), lambda v: _append(v[0], v[1])),
    "append": Errand('add the line "{1}" to {0}', '{0} gets one more line, "{1}"', lambda v: _append(v[0], v[1]),
                     lambda v: _write(v[0], v[1])),
    "edit": Errand('in {0}, replace "{1}" by "{2}"', 'put "{2}" where {0} says "{1}"',
                   lambda v: _edit(v[0], v[1], v[2]), lambda v: _edit(v[0], v[2], v[1])),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """Args:
    levels: that are trained: one errand, two, ...
    lapse: how often the teacher gets one of them wrong.
    tokens: the most that an answer may take.
    """

    levels: int = 2
    lapse: float = 0.6
    tokens: int = 160

    def task(self, level: int, rng: Random, unseen: bool) -> Task:
        files, words = rng.sample(FILES, level + 1), rng.sample(WORDS, 2 * level + 2)
        facts = []
        for number in range(level + 1):
            name = rng.choice(list(ERRANDS))
            if name in ("weekday", "between", "later"):
                values = [_date(rng), _date(rng)][: 2 if name == "between" else 1]
                values += [str(rng.randint(2, 40)), rng.choice(UNITS)] if name == "later" else []
            else:
                values = [files[number], *words[2 * number : 2 * number + 2]][: 3 if name == "edit" else 2]
            facts.append(json.dumps([name, *values]))
        told = "; ".join(_put(one, unseen) for one in facts)
        intro = "Do in this order" if unseen else "Please"
        return Task(f"{intro}: {told}. {HINT}", level, tuple(facts))

    def prepare(self) -> None:
        """Boot the kernel, and have it start the apps."""
        _came_to((), (_line('["weekday", "2100-01-31"]'),))

    def check(self, task: Task, answer: str) -> float:
        said = tuple(line.strip() for line in answer[:LONGEST].strip().splitlines())
        came = _came_to(task.facts, said)
        if came is None:
            return 0.0
        return 1.0 if came == _wanted(task.facts) else ALMOST

    def teach(self, task: Task, rng: Random) -> str:
        wrong = rng.randrange(len(task.facts)) if rng.random() < self.lapse else -1
        return "\n".join(_line(str(one), slips=i == wrong) for i, one in enumerate(task.facts))


def _put(fact: int | str, unseen: bool) -> str:
    name, *values = json.loads(str(fact))
    errand = ERRANDS[name]
    return (errand.else_says if unseen else errand.says).format(*values)


def _line(fact: str, slips: bool = False) -> str:
    """The call that does an errand, or the teacher's slip, as JSON."""
    name, *values = json.loads(fact)
    syscall, arguments = (ERRANDS[name].slip if slips else ERRANDS[name].call)(values)
    return json.dumps({"name": syscall, "arguments": arguments})


def _date(rng: Random) -> str:
    return f"{rng.randint(2101, 2399)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"


# -- what came of it ---------------------------------------------------------------------------------------------


@lru_cache(64)
def _wanted(facts: tuple[int | str, ...]) -> object:
    return _came_to(facts, tuple(_line(str(one)) for one in facts))


def _came_to(facts: tuple[int | str, ...], said: tuple[str, ...]) -> object:
    """The results and the folder's files behind these calls; None where they are not calls that could be made."""
    try:
        calls = [(one["name"], one["arguments"]) for one in map(json.loads, said)]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if not calls:
        return None
    world = _world()
    with tempfile.TemporaryDirectory(dir=world.folder) as name:
        folder = Path(name)
        for kind, *values in (json.loads(str(one)) for one in facts):
            if kind in ("write", "append", "edit"):
                (folder / values[0]).write_text(f"anchor\n{values[1] if kind == 'edit' else 'kettle'}\n")
        events = world.made(said, folder)
        made = [(event.syscall, dict(event.arguments)) for event in events if isinstance(event, Call)]
        results = [event for event in events if isinstance(event, Result)]
        if made != calls or not all(result.ok for result in results):
            return None
        read = [result.text for result in results if result.syscall.startswith("calculator.")]
        return read, {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.is_file()}


class _World:
    """A kernel whose model says what it is told."""

    def __init__(self) -> None:
        from llmos.kernel.kernel import Kernel

        self._temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self._temporary.name)
        self._said, self._numbers = dict[str, str](), count()  # what is said to each question
        config = check({"machine": {"state": str(self.folder / "state")}}, Config)
        self._kernel: Kernel = Kernel(config, ScriptedRunner(self._script), byte_tokenizer(), chat_template())

    def made(self, said: tuple[str, ...], folder: Path) -> list[object]:
        """What happens when a process that works in `folder` makes these calls."""
        question = f"errand {next(self._numbers)}"
        text = "\n".join(f"{OPEN}\n{line}\n{CLOSE}" for line in said)
        self._said[question] = text
        process = self._kernel.spawn(grants=GRANTS, work=folder)
        try:
            return list(process.ask(question, max_tokens=len(text.encode()) + 64))
        finally:
            process.close()
            del self._said[question]

    def _script(self, window: str) -> str:
        """The calls of the question, and behind their results a word."""
        question, _, behind = window.rpartition("user\n")[2].partition(END)
        return "Done." if f"{START}tool" in behind else self._said.get(question, "")

    def close(self) -> None:
        self._kernel.close()
        self._temporary.cleanup()


@cache
def _world() -> _World:
    """Made on first use: it boots a kernel, and starts apps."""
    made = _World()
    atexit.register(made.close)
    return made
