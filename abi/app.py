"""How an app is written.

What: an app is a class; its methods marked `@syscall` are what processes may call. Type hints and docstrings
    are the schema (`llmos.abi.manifest` reads them), the decorator declares what a call does to the world.
Invariant: what can be wrong with a declaration is an error while its class is defined (names, effects,
    duplicates) or when its manifest is read (types), never when a model calls it. Standard library only.
Interface: `App`, `syscall`, `query`; the markers `Target` and `Payload`; `Call`, the context that a method gets
    when it asks for one; the parts `Text`, `Image`, `File`.

    class Rates(App):
        \"\"\"Currency rates.\"\"\"

        @syscall(effect="fetch", retry="safe")
        def rate(self, base: Annotated[str, Target, "ISO 4217"], quote: str, call: Call) -> float:
            \"\"\"Units of `quote` for one unit of `base`.\"\"\"
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar, get_args, overload

from llmos.abi.errors import ManifestError
from llmos.abi.labels import Label
from llmos.abi.limits import MIN_APP_BYTES

Effect = Literal["none", "read", "execute", "fetch", "write", "send", "pay", "destroy", "admin"]
"""What a call does to the world, mildest first; `admin` changes what others may do."""

Retry = Literal["safe", "keyed", "query", "never"]
"""What may follow a call whose result was lost. `safe`: call again. `keyed`: call again with the same
`call.key`, which the app makes take effect once. `query`: ask the app's companion first. `never`: nothing."""

Returns = Literal["user", "store", "untrusted"]
"""The integrity of what a call returns; the kernel joins it with the labels of the arguments."""

DEADLINE = 30.0  # seconds that a call may take where its syscall says nothing else
DECLARED = "__syscall__"  # the attribute under which a method keeps its `Declaration`

_APP_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


class Target:
    """Marks a parameter that decides whom or what a call reaches: `to: Annotated[str, Target]`."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Callable[[Any], dict[str, Any]]) -> Any:
        return {**handler(core), f"x-{cls.__name__.lower()}": True}


class Payload(Target):
    """Marks a parameter whose content leaves with the call: `text: Annotated[str, Payload]`."""


@dataclass(frozen=True, slots=True)
class Text:
    """Text to read; a method may return a plain `str` in its place."""

    text: str


@dataclass(frozen=True, slots=True)
class Image:
    """An encoded picture: the bytes of a PNG, JPEG, ... and their media type."""

    data: bytes
    mime: str = "image/png"


@dataclass(frozen=True, slots=True)
class File:
    """A file by value, so that nobody has to open a path that an app names."""

    name: str
    data: bytes
    mime: str = "application/octet-stream"


Part = Text | Image | File


class Call(Protocol):
    """Who calls, and what a method may ask of the kernel. A method gets one by a parameter of this type.

    Attributes:
        pid: the calling process.
        expert: its expert's name, "" without one.
        volume: the folder of its working volume, None without one.
        key: the same for every repetition of one call, different for all others: the idempotency key.
        label: of what the arguments were made from: what an app keeps of them, it keeps under this.
        cancelled: True once nobody waits for the result any more; a long method looks now and then.
    """

    @property
    def pid(self) -> int: ...
    @property
    def expert(self) -> str: ...
    @property
    def volume(self) -> Path | None: ...
    @property
    def key(self) -> str: ...
    @property
    def label(self) -> Label: ...
    @property
    def cancelled(self) -> bool: ...

    def secret(self, name: str) -> str:
        """A secret that the app declared (`class Mail(App, secrets=["smtp"])`); SecretMissing without one."""
        ...

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Tell how far the call is; never blocks."""
        ...

    @overload
    def ask(self, prompt: str) -> str: ...
    @overload
    def ask(self, prompt: str, returns: type[T]) -> T: ...
    def ask(self, prompt: str, returns: type[Any] = str) -> Any:
        """Put a question to the model, charged to the caller and under its labels. Blocks: for sync methods.

        Raises:
            AskRefused: the caller's kernel does not answer questions, or not this one.
        """
        ...

    @overload
    async def aask(self, prompt: str) -> str: ...
    @overload
    async def aask(self, prompt: str, returns: type[T]) -> T: ...
    async def aask(self, prompt: str, returns: type[Any] = str) -> Any:
        """The same for async methods."""
        ...


@dataclass(slots=True)
class Declaration:
    """What `@syscall` says about a method; `query` is the name of its companion, or ""."""

    effect: Effect
    retry: Retry
    returns: Returns
    deadline: float
    query: str = ""


def syscall(
    *,
    effect: Effect,
    retry: Retry = "never",
    returns: Returns | None = None,
    deadline: float = DEADLINE,
) -> Callable[[F], F]:
    """Marks a method as a syscall.

    Args:
        effect: what a call does to the world.
        retry: what may be done about a call whose result was lost.
        returns: how far its result may be believed. Without it: as far as its arguments where the effect is
            "none" (it has nothing else to be wrong from), else "untrusted".
        deadline: seconds, after which a call is cancelled.

    Raises:
        ManifestError: an effect, retry or label that does not exist, or a deadline that is not positive.
    """
    for word, allowed, kind in ((effect, Effect, "effect"), (retry, Retry, "retry")):
        _one_of(word, get_args(allowed), kind)
    if returns is not None:
        _one_of(returns, get_args(Returns), "label")
    if not 0 < deadline < float("inf"):
        raise ManifestError(f"a deadline of {deadline} seconds", do="give a positive number")
    label: Returns = returns or ("user" if effect == "none" else "untrusted")

    def mark(function: F) -> F:
        if not callable(function):
            raise ManifestError(f"@syscall on {function!r}", do="put it directly on a method")
        setattr(function, DECLARED, Declaration(effect, retry, label, deadline))
        return function

    return mark


def query(method: Callable[..., Any]) -> Callable[[F], F]:
    """Marks the companion of a `retry="query"` syscall: told a key, it says what came of that call.

    It returns what the call returned, or None where the key never took effect:

        @syscall(effect="send", retry="query")
        def send(self, to: Annotated[str, Target], text: Annotated[str, Payload], call: Call) -> Receipt: ...

        @query(send)
        def sent(self, key: str) -> Receipt | None: ...
    """
    declared = getattr(method, DECLARED, None)
    if not isinstance(declared, Declaration) or declared.retry != "query":
        raise ManifestError(
            f"{getattr(method, '__name__', method)!r} has no use for a companion",
            why='its retry is not "query"',
            do='mark it `@syscall(..., retry="query")`',
        )

    def mark(function: F) -> F:
        declared.query = function.__name__
        return function

    return mark


class _Body(dict[str, Any]):
    """The namespace of an app's class: a syscall that another definition would hide is an error."""

    def __setitem__(self, name: str, value: Any) -> None:
        if hasattr(self.get(name), DECLARED):
            raise ManifestError(f"two definitions of the syscall {name!r}", do="rename one of them")
        super().__setitem__(name, value)


class _AppType(type):
    @classmethod
    def __prepare__(cls, name: str, bases: tuple[type, ...], /, **options: Any) -> _Body:
        return _Body()


class App(metaclass=_AppType):
    """The base of every app: `class Notes(App, stateful=True): ...`.

    Class options:
        name: what processes call it by; the class's name in lower case where it is not given.
        stateful: keeps something between calls, so every agent gets a process of its own. Others share one.
        pure: depends on its arguments alone and touches nothing outside; one that the machine's owner trusts
            may run in the kernel's process.
        secrets: names of the secrets that its calls may be given.
        max_memory: bytes of private memory that each of its processes may hold, where that is more than most need
            (`limits.MAX_APP_BYTES`); the machine's owner has the last word.
        settings: a pydantic model or a dataclass of what the machine's owner may say to it (`llmos.abi.settings`).
    """

    app_name: ClassVar[str] = ""
    stateful: ClassVar[bool] = False
    pure: ClassVar[bool] = False
    secrets: ClassVar[tuple[str, ...]] = ()
    max_memory: ClassVar[int] = 0
    settings: ClassVar[type[Any] | None] = None

    def __init_subclass__(
        cls,
        *,
        name: str = "",
        stateful: bool = False,
        pure: bool = False,
        secrets: Sequence[str] = (),
        max_memory: int = 0,
        settings: type[Any] | None = None,
    ) -> None:
        super().__init_subclass__()
        cls.app_name = name or _WORD_START.sub("_", cls.__name__).lower()
        cls.stateful, cls.pure = stateful, pure
        cls.secrets = (secrets,) if isinstance(secrets, str) else tuple(secrets)
        cls.max_memory = max_memory
        cls.settings = settings or cls.settings
        check_app_name(cls.app_name, do=f'give one: `class {cls.__name__}(App, name="...")`')
        if max_memory and max_memory < MIN_APP_BYTES:
            raise ManifestError(
                f"{cls.app_name}: max_memory of {max_memory} bytes",
                why="no program of Python starts in that",
                do=f"give at least {MIN_APP_BYTES} (64 MiB), or nothing",
            )
        if pure and (stateful or secrets):
            raise ManifestError(f"{cls.app_name}: pure, and yet stateful or with secrets", do="choose one")
        for method, declared in syscalls_of(cls):
            if declared.retry == "query" and not declared.query:
                raise ManifestError(
                    f'{cls.app_name}.{method} says retry="query", but nobody can be asked',
                    do=f"write its companion: `@query({method}) def ...(self, key: str) -> ... | None`",
                )
            if pure and declared.effect != "none":
                raise ManifestError(
                    f"{cls.app_name} says pure, but {method} says effect={declared.effect!r}",
                    do="drop one of the two",
                )

    def close(self) -> None:
        """Called once before the app's process ends in good order."""


def syscalls_of(app: type[App]) -> Iterator[tuple[str, Declaration]]:
    """(method's name, declaration) of every syscall of an app's class, inherited ones included, in order."""
    names = dict.fromkeys(name for base in reversed(app.__mro__) for name in vars(base))
    for name in names:
        declared = getattr(getattr(app, name, None), DECLARED, None)
        if isinstance(declared, Declaration):
            yield name, declared


def check_app_name(name: str, do: str = "choose another") -> None:
    """ManifestError for a name that no app may have: it is part of syscalls' names, and of files'."""
    if not _APP_NAME.fullmatch(name):
        why = "a name is up to 32 of a-z, 0-9, _ and -, and begins with a letter"
        raise ManifestError(f"{name!r} is no name for an app", why=why, do=do)


def _one_of(word: object, allowed: tuple[str, ...], kind: str) -> None:
    if word not in allowed:
        raise ManifestError(f"{word!r} is no {kind}", do=f"choose one of {', '.join(allowed)}")
