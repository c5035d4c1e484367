"""What the journal remembers: a closed set of record bodies.

What: one frozen dataclass a kind of event, and their JSON.
Invariant: what was written is read back equal, also by a later version: a kind or field never changes its meaning,
    a new one has a default. Bodies are never rewritten, for the hash chain stands on their bytes.
Interface: the dataclasses of `Body`; `Record` (a body with its place); `encode`, `decode`, `prepare`. Do not store what
    can be computed from records before it, but for tokens: replay compares them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from math import isfinite
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import ConfigDict, PlainSerializer, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from llmos.abi.errors import JournalError
from llmos.abi.labels import USER, Label

MAX_BODY_BYTES = 64 << 20  # of one record; larger results belong in a file that the record names

Tokens = tuple[int, ...]


def _plain(value: Any) -> Any:
    """The value, if JSON gives it back equal; a serializer would else turn NaN into null and sets into lists."""
    match value:
        case None | bool() | str():
            return value
        case int() | float() if type(value) in (int, float) and isfinite(value):
            return value
        case list():
            return [_plain(v) for v in value]
        case dict() if all(type(k) is str for k in value):
            return {k: _plain(v) for k, v in value.items()}
    raise ValueError(f"{value!r:.60} is not plain JSON")


Json = Annotated[Any, PlainSerializer(_plain)]


class _Strict:
    """Reading refuses what this version does not know."""

    __slots__ = ()
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", ser_json_inf_nan="constants")


@dataclass(frozen=True, slots=True)
class Booted(_Strict):
    """A kernel started on this journal. `weights` is the identity that KV and replay depend on."""

    version: str
    weights: str = ""


@dataclass(frozen=True, slots=True)
class Spawned(_Strict):
    """The process exists from here on.

    Args:
        parent: pid, 0 for the kernel.
        seed: of its sampler; `path` is the path of forks that led to it.
        forked: it starts as a copy of its parent's conversation and running turn at this record.
        settings: whatever else its expert needs to be laid out again (mounts, instructions, window).
    """

    parent: int = 0
    expert: str = ""
    priority: Literal["realtime", "interactive", "batch"] = "interactive"
    grants: tuple[str, ...] = ()
    quotas: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    path: tuple[int, ...] = ()
    forked: bool = False
    settings: Mapping[str, Json] = field(default_factory=dict)

    def mounting(self, mounts: Sequence[Json]) -> Spawned:
        """The same process with these mounts."""
        return replace(self, settings={**self.settings, "mounts": list(mounts)})

    def adapting(self, adapters: Sequence[str]) -> Spawned:
        """The same process with these versions of adapters behind it, the last of them in use."""
        return replace(self, settings={**self.settings, "adapters": list(adapters)})

    def placing(self, reference: str, place: str) -> Spawned:
        """The same process with something in its place."""
        placed = {**self.settings.get("placed", {}), reference: place}
        kept = {name: where for name, where in placed.items() if where}
        return replace(self, settings={**self.settings, "placed": kept})


@dataclass(frozen=True, slots=True)
class Asked(_Strict):
    """A message for the process, which waits until its turn is started; `options` as `ask` was given them."""

    turn: int
    text: str
    label: Label = USER
    options: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Started(_Strict):
    """The turn runs. `window` are the tokens as laid out; `strategy` the sampler's parameters."""

    turn: int
    window: Tokens
    seed: int = 0
    path: tuple[int, ...] = ()
    strategy: Mapping[str, Json] = field(default_factory=dict)
    label: Label = USER
    layout: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sampled(_Strict):
    """Tokens that the model chose; `position` is the first one's place, counted from the window's start.

    A position before the end of what is known takes back what was there.
    """

    turn: int
    position: int
    tokens: Tokens


@dataclass(frozen=True, slots=True)
class Forced(_Strict):
    """Tokens that entered the running turn without the model's choice: a grammar's, or the results of all calls up
    to `call`."""

    turn: int
    position: int
    tokens: Tokens
    call: int | None = None
    label: Label = USER


@dataclass(frozen=True, slots=True)
class Considered(_Strict):
    """The running turn has thought, and will answer with these tokens; `reason` is why they end, `tree` how it came to
    them, `label` of what helped to choose them beside the window."""

    turn: int
    tokens: Tokens
    reason: str = "stop"
    confidence: float | None = None
    tree: Mapping[str, Json] = field(default_factory=dict)
    label: Label = USER


@dataclass(frozen=True, slots=True)
class Intent(_Strict):
    """A syscall that may happen from here on; `call` numbers it within the process, `key` makes it once."""

    turn: int
    call: int
    syscall: str
    arguments: Mapping[str, Json]
    key: str
    retry: Literal["safe", "keyed", "query", "never"]
    labels: Mapping[str, Label] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result(_Strict):
    """What came of a syscall: a value, or the error (type and message) that the process will see; `files` are the
    names of what it brought into the working volume."""

    turn: int
    call: int
    value: Json = None
    error: Mapping[str, str] | None = None
    label: Label = USER
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Approval(_Strict):
    """Somebody was asked and answered, for this literal value of one syscall's argument alone. What was allowed stands
    for the process's life, or until it is said again and not allowed (`turn` and `call` are 0 where nobody asked)."""

    turn: int
    call: int
    argument: str
    value: Json
    allowed: bool
    by: str = "user"
    syscall: str = ""  # "" in journals of before it was kept: nothing is allowed by these any more


@dataclass(frozen=True, slots=True)
class Parked(_Strict):
    """A call of unknown outcome that must not be repeated: the process stands stopped until it is told."""

    turn: int
    call: int
    why: str


@dataclass(frozen=True, slots=True)
class Finished(_Strict):
    """The turn is over; question and answer are now part of the conversation, `label` is of all it read."""

    turn: int
    answer: str
    reason: str
    label: Label = USER
    usage: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mounted(_Strict):
    """The bodies of documents within the process's reach from here on."""

    mounts: tuple[Json, ...]


@dataclass(frozen=True, slots=True)
class Forgot(_Strict):
    """The conversation was emptied, from turn `since` on."""

    since: int = 0


@dataclass(frozen=True, slots=True)
class Granted(_Strict):
    """Its owner has changed what the process may call: to this."""

    grants: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Placed(_Strict):
    """Its owner has said where something stands that the process can read (`turn 3`, a source, or a source and a
    position): always in its windows, there while there is room, never there, or (empty) as the kernel sees fit."""

    reference: str
    place: Literal["pinned", "in", "out", ""]


@dataclass(frozen=True, slots=True)
class Adapted(_Strict):
    """The process runs with another adapter from its next turn on: the last of these versions, behind which stand those
    that it can go back to; "" is the model alone."""

    adapters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Signalled(_Strict):
    """A signal reached the process; `sender` is a pid, 0 for the user or the kernel."""

    signal: Literal["INT", "STOP", "CONT", "TERM", "KILL"]
    sender: int = 0


@dataclass(frozen=True, slots=True)
class Sent(_Strict):
    """This process sent mail to the process `to`; the record's sequence is the mail's number."""

    to: int
    content: Json
    label: Label = USER


@dataclass(frozen=True, slots=True)
class Received(_Strict):
    """This process took the mail with that number out of its box."""

    mail: int


@dataclass(frozen=True, slots=True)
class Exceeded(_Strict):
    """A quota was used up, and that ended the process."""

    quota: str
    limit: float
    used: float


@dataclass(frozen=True, slots=True)
class Exited(_Strict):
    """The process ended; it stays a zombie until it is reaped, and its children belong to the kernel."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Reaped(_Strict):
    """Its parent (or the kernel) has waited for the process; nothing of it is left but these records."""


@dataclass(frozen=True, slots=True)
class Feedback(_Strict):
    """What the user thought of a turn: `text` corrects it, `over` is the turn that it was preferred to, of the process
    `of` where that is another one."""

    turn: int
    verdict: Literal["good", "bad", "correct", "prefer"]
    text: str = ""
    over: int | None = None
    of: int = 0


Body = (
    Booted
    | Spawned
    | Asked
    | Started
    | Sampled
    | Forced
    | Intent
    | Result
    | Approval
    | Parked
    | Finished
    | Forgot
    | Signalled
    | Sent
    | Received
    | Exceeded
    | Exited
    | Reaped
    | Feedback
    | Mounted
    | Granted
    | Placed
    | Considered
    | Adapted
)
KINDS: Mapping[str, type[Body]] = {kind.__name__.lower(): kind for kind in get_args(Body)}
_NAMES = {kind: name for name, kind in KINDS.items()}


@dataclass(frozen=True, slots=True)
class Record:
    """A body and its place: `seq` counts from 1 without gaps, `time` is in seconds since 1970."""

    seq: int
    time: float
    pid: int
    body: Body


@cache
def _adapter(name: str) -> TypeAdapter[Body]:
    return TypeAdapter(KINDS[name])


def _reason(error: Exception) -> str:
    lines = [line.strip(" :") for line in str(error).splitlines()]
    return lines[min(1, len(lines) - 1)][:200]


def prepare() -> None:
    """Compile what writes and reads each kind: a tenth of a second that a step should not meet."""
    for name in KINDS:
        _adapter(name)


def name_of(kind: type[Body]) -> str:
    """The name that a kind is stored under."""
    try:
        return _NAMES[kind]
    except KeyError:
        raise JournalError(
            f"{kind.__name__} is not a kind of record", do=f"use one of {', '.join(KINDS)}"
        ) from None


def encode(body: Body) -> tuple[str, bytes]:
    """Kind and JSON of a body; what equals its default is left out.

    Raises:
        JournalError: a field has a value that JSON cannot hold, or the whole is too large.
    """
    name = name_of(type(body))
    try:
        blob = _adapter(name).dump_json(body, exclude_defaults=True, warnings="error")
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise JournalError(
            f"a record of kind {name!r} cannot be written", why=_reason(error),
            do="give values that JSON holds as they are",
        ) from None  # fmt: skip
    if len(blob) > MAX_BODY_BYTES:
        raise JournalError(
            f"a record of kind {name!r} with {len(blob):,} bytes is too large", why=f"the limit is {MAX_BODY_BYTES:,}",
            do="store the content in a file and let the record name it",
        )  # fmt: skip
    return name, blob


def decode(kind: str, blob: bytes) -> Body:
    """The body that `encode` was given.

    Raises:
        JournalError: of a kind or with fields that this version does not know.
    """
    try:
        return _adapter(kind).validate_json(blob)
    except (KeyError, ValidationError) as error:
        raise JournalError(
            f"a record of kind {kind!r} is not understood", why=_reason(error),
            do="read this journal with the version of llmos that wrote it",
        ) from None  # fmt: skip
