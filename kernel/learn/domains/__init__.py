"""Domains in which an answer can be checked: what is asked, what is right, how hard it is, and who teaches it first.

What: `Domain`, a frozen dataclass that makes tasks by level, checks answers, and has a teacher who is not perfect;
    those shipped by name, others by `package.module:Class`.
Invariant: what is held out is never learnt from: by content (every eighth task, by its hash), by wording (questions put
    in ways that training never uses) and by size (a level beyond those that are trained). A task is a function of
    domain, level, split and random numbers. Nothing here imports jax: a referee's process is light.
Interface: `Task`, `Domain`, `Split`, `draw(domain, split, level, rng)`, `named(name)`, `DOMAINS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, is_dataclass
from hashlib import blake2b
from importlib import import_module
from random import Random
from typing import Any, Literal, Protocol, cast

from llmos.abi.errors import ConfigError, LearningError

Split = Literal["train", "fresh", "wording", "size"]
HELD_OUT: tuple[Split, ...] = ("fresh", "wording", "size")
EIGHTH = 8
TRIES = 2000  # for a task of the wanted side


@dataclass(frozen=True, slots=True)
class Task:
    """A question, how hard it is, and what whoever checks an answer has to know: numbers or words."""

    question: str
    level: int
    facts: tuple[int | str, ...]

    @property
    def kept_back(self) -> bool:
        """Whether tasks of this content, in whatever order, are held out."""
        content = repr((self.level, sorted(map(str, self.facts))))
        digest = blake2b(content.encode(), digest_size=4).digest()
        return int.from_bytes(digest, "little") % EIGHTH == 0


class Domain(Protocol):
    """A frozen dataclass whose fields are numbers, words and truth values. Where it has a method `prepare`, a referee
    calls it once, before the first check."""

    @property
    def levels(self) -> int:
        """How many are trained, the easiest 0; level `levels` is the size that is held out."""

    @property
    def tokens(self) -> int:
        """The most that an answer may take."""

    def task(self, level: int, rng: Random, unseen: bool) -> Task:
        """A task of that level; `unseen` puts the question in a way that training does not use."""

    def check(self, task: Task, answer: str) -> float:
        """How good an answer is: 1 is right, 0 worthless. What it raises counts as 0."""

    def teach(self, task: Task, rng: Random) -> str:
        """What the teacher of the imitation stage answers; the teacher errs."""


def draw(domain: Domain, split: Split, level: int, rng: Random) -> Task:
    """A task of one side of the divide.

    Raises:
        LearningError: the domain makes none of that side.
    """
    if split == "size":
        return domain.task(domain.levels, rng, unseen=False)
    for _ in range(TRIES):
        task = domain.task(level, rng, unseen=split == "wording")
        if task.kept_back == (split != "train"):
            return task
    raise LearningError(
        f"{TRIES} tasks of level {level} are all {'held out' if split == 'train' else 'for training'}",
        why=f"{type(domain).__name__} makes too few different tasks of this level",
        do="give the level more numbers to choose from",
    )


def described(domain: Domain) -> dict[str, Any]:
    """A domain as JSON: where its class is, and its fields."""
    kind = type(domain)
    return {"domain": f"{kind.__module__}:{kind.__qualname__}", "fields": asdict(cast(Any, domain))}


def restored(said: dict[str, Any]) -> Domain:
    """What `described` said. Raises ConfigError."""
    made: Domain = _class(said["domain"])(**said["fields"])
    return made


def named(name: str) -> Domain:
    """A domain that is shipped, or `package.module:Class` with its own defaults.

    Raises:
        ConfigError: there is none of that name, or it is no domain.
    """
    if (make := DOMAINS.get(name)) is not None:
        return make()
    if ":" not in name:
        raise ConfigError(
            f"there is no domain {name!r}", why=f"there are {', '.join(DOMAINS)}",
            do="name one of these, or your own as package.module:Class",
        )  # fmt: skip
    made: Domain = _class(name)()
    return made


def _class(path: str) -> Callable[..., Any]:
    module, _, name = path.partition(":")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"the domain {path!r} cannot be imported", why=str(error)) from None
    wanted = ("levels", "tokens", "task", "check", "teach")
    missing = [w for w in wanted if not hasattr(found, w) and w not in _fields(found)]
    if not is_dataclass(found) or missing:
        raise ConfigError(
            f"{path!r} is no domain", why=f"it lacks {', '.join(missing)}" if missing else "it is no dataclass",
            do="see llmos.kernel.learn.domains.Domain",
        )  # fmt: skip
    return cast(Callable[..., Any], found)


def _fields(found: Any) -> list[str]:
    return [field.name for field in fields(found)] if is_dataclass(found) else []


def _arithmetic() -> Domain:
    from llmos.kernel.learn.domains.arithmetic import Arithmetic

    return Arithmetic()


def _calculator() -> Domain:
    from llmos.kernel.learn.domains.calculator import Calculator

    return Calculator()


def _countdown() -> Domain:
    from llmos.kernel.learn.domains.countdown import Countdown

    return Countdown()


def _twenty_four() -> Domain:
    from llmos.kernel.learn.domains.countdown import Countdown

    return Countdown(goal=24, least=4, levels=1)


def _programs() -> Domain:
    from llmos.kernel.learn.domains.programs import Programs

    return Programs()


def _calls() -> Domain:
    from llmos.kernel.learn.domains.calls import Calls

    return Calls()


DOMAINS: dict[str, Callable[[], Domain]] = {
    "arithmetic": _arithmetic,
    "calculator": _calculator,
    "countdown": _countdown,
    "twenty-four": _twenty_four,
    "programs": _programs,
    "calls": _calls,
}
