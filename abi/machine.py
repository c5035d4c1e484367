"""What a kernel looks like from outside: the same for one in this process and for one behind a socket.

What: the protocols of kernel, process and turn, and the values that they tell about themselves.
Invariant: `kernel.Kernel` and `attach.RemoteKernel` both fit `Machine`; mypy and one scenario that tests run on
    both see to it. What is here needs no jax and no engine.
Interface: `Machine`, `AnyProcess`, `AnyTurn`; `Stat`, `Exit`, `AppStat`, `AdapterStat`, `Top`, `Region`, `Passed`,
    `Holdings`; `Divergence`, `Replay`, `Influence`, `Why`; `Signal`, `State`, `Place`. Times are seconds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol

from llmos.abi.labels import USER, Label
from llmos.abi.limits import PAGE_TOKENS
from llmos.abi.progress import Progress, silent

if TYPE_CHECKING:
    from llmos.abi.config import Config
    from llmos.abi.events import Citation, Done, Event, StopReason, ThoughtTree, Timings, Usage
    from llmos.abi.manifest import Syscall
    from llmos.abi.mount import Mount

Signal = Literal["INT", "STOP", "CONT", "TERM", "KILL"]
Place = Literal["pinned", "in", "out", ""]
"""Where something that can be read stands: in every window, in those with room, in none, or as the kernel sees fit."""
State = Literal["new", "ready", "running", "waiting", "swapped", "stopped", "zombie"]


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended, and the last thing it said."""

    pid: int
    reason: str
    answer: str


@dataclass(frozen=True, slots=True)
class Stat:
    """A line of `ps`."""

    pid: int
    parent: int
    name: str
    state: str
    priority: str
    turn: int
    tokens: int
    syscalls: int
    pages: int
    seconds: float
    adapter: str = ""  # the version that it runs with


@dataclass(frozen=True, slots=True)
class AppStat:
    """A line of `ps` for an app's own process: `agent` is the pid that it works for, 0 for all; `os_pid` is 0 where
    none runs."""

    name: str  # "[calculator]"
    agent: int
    os_pid: int
    state: str
    calls: int
    active: int
    restarts: int
    memory: int  # bytes


@dataclass(frozen=True, slots=True)
class AdapterStat:
    """An adapter that this machine keeps; `used` are the experts and pids that run with it now."""

    version: str
    rank: int
    alpha: float
    base: str  # the model that it says it was trained on
    matrices: tuple[str, ...]
    size: int  # bytes
    used: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Region:
    """A stretch of a process's window that has one origin.

    Args:
        kind: system, user, assistant, syscall, result or knowledge.
        source: a file and position, a syscall's name, or "".
        start: its first token's place in the window.
        label: where its words came from and who may read them.
        attention: the share of the window's attention that the last answer gave it, 0 to 1; None where nobody looked.
    """

    kind: str
    source: str
    start: int
    tokens: int
    label: Label
    attention: float | None = None

    @property
    def pages(self) -> tuple[int, int]:
        """The first and the last page of the window that it touches."""
        return self.start // PAGE_TOKENS, max(self.start + self.tokens - 1, self.start) // PAGE_TOKENS


@dataclass(frozen=True, slots=True)
class Passed:
    """A stretch of the last turn with its words as the model reads and writes them, special words included; the answer
    is the last, `answer` True."""

    region: Region
    text: str
    answer: bool = False


@dataclass(frozen=True, slots=True)
class Influence:
    """What a stretch of the window does for words that were written behind it: `logprob` is theirs, in all, where the
    model does not see that stretch; `text` is its beginning."""

    region: Region
    text: str
    logprob: float


@dataclass(frozen=True, slots=True)
class Why:
    """What an answer or a call stood on.

    Attributes:
        text: what was written; `tokens` of it.
        logprob: of all these tokens, as the window stood (natural logarithm).
        influences: each stretch of the window, in the order in which the model reads them.
    """

    turn: int
    text: str
    tokens: int
    logprob: float
    influences: tuple[Influence, ...]


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a process's owner has given it: grants, documents, a working folder; `placed` says where he wants what it
    can read (`AnyProcess.place`), `turn` is the number of its last turn."""

    grants: tuple[str, ...]
    mounts: tuple[Mount, ...]
    work: str
    placed: Mapping[str, Place]
    turn: int


@dataclass(frozen=True, slots=True)
class Top:
    """The machine at one moment; counters are since boot."""

    processes: tuple[Stat, ...]
    apps: tuple[AppStat, ...]
    seconds: float
    steps: int
    computed: int  # tokens that have been through the model
    written: int  # tokens that it chose or a grammar forced
    preemptions: int
    pages: int  # of the pool
    pages_held: int  # by windows that are being computed
    faults: int = 0  # pages that came back from host memory or disk
    lost: int = 0  # pages that were damaged on disk, and computed again
    ram: int = 0  # bytes of pages in host memory
    disk: int = 0  # bytes of pages on disk


@dataclass(frozen=True, slots=True)
class Filling:
    """What stands in the page store ahead of need, or would, within a budget.

    Args:
        passages: of `of` that are mounted; `stored` of them were there before.
        tokens, bytes: of these passages; `missing` tokens were not there.
        seconds: that it took, or would take where only looked at.
        stopped: it was ended before it was through.
    """

    passages: int
    of: int
    stored: int
    tokens: int
    missing: int
    bytes: int
    seconds: float
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first token that a replay did not come to again; `expected` and `got` are ids, None for the answer's end,
    with their texts. `position` counts from the window's start."""

    turn: int
    position: int
    expected: int | None
    got: int | None
    expected_text: str
    got_text: str


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of running a process again from its journal.

    Attributes:
        turns, tokens: that were compared.
        recorded, weights: identities of the weights then and now; where they differ so may the words.
        notes: what could not be compared, and why.
    """

    pid: int
    turns: int
    tokens: int
    divergence: Divergence | None
    recorded: tuple[str, ...]
    weights: str
    notes: tuple[str, ...] = ()


class AnyMail(Protocol):
    """A letter that was received."""

    @property
    def number(self) -> int: ...
    @property
    def sender(self) -> int: ...
    @property
    def content(self) -> Any: ...
    @property
    def label(self) -> Label: ...


class AnyExchange(Protocol):
    """A question and its answer, as a conversation keeps them."""

    @property
    def turn(self) -> int: ...
    @property
    def question(self) -> str: ...
    @property
    def answer(self) -> str: ...


class AnyTurn(Protocol):
    """See `kernel.turn.Turn`."""

    @property
    def pid(self) -> int: ...
    @property
    def number(self) -> int: ...
    @property
    def result(self) -> Done: ...
    @property
    def answer(self) -> str: ...
    @property
    def value(self) -> Any: ...
    @property
    def reason(self) -> StopReason: ...
    @property
    def citations(self) -> tuple[Citation, ...]: ...
    @property
    def usage(self) -> Usage: ...
    @property
    def timings(self) -> Timings: ...
    @property
    def confidence(self) -> float | None: ...
    @property
    def tree(self) -> ThoughtTree | None: ...
    def __iter__(self) -> Iterator[Event]: ...
    def __aiter__(self) -> AsyncIterator[Event]: ...
    def cancel(self) -> None: ...
    async def aresult(self) -> Done: ...


class AnyProcess(Protocol):
    """See `kernel.process.Process`."""

    @property
    def pid(self) -> int: ...
    @property
    def parent(self) -> int: ...
    @property
    def expert(self) -> str: ...
    @property
    def state(self) -> State: ...
    @property
    def window(self) -> int: ...
    @property
    def conversation(self) -> Sequence[AnyExchange]: ...
    @property
    def current(self) -> AnyTurn | None: ...
    def ask(
        self,
        question: str = "",
        *,
        messages: Sequence[Any] | None = None,
        tools: Sequence[Syscall] = (),
        tool_choice: str = "auto",
        max_tokens: int | None = None,
        seed: int | None = None,
        temperature: float | None = None,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        stop: Sequence[str] = (),
        raw: bool = False,
        returns: Any = None,
        schema: Mapping[str, Any] | None = None,
        think: Any = None,
        queue: bool = False,
        label: Label = USER,
        detached: bool = False,
    ) -> AnyTurn: ...
    async def aask(self, question: str, **options: Any) -> AnyTurn: ...
    def expect(self, question: str = "") -> None: ...
    def mount(self, mount: Mount, progress: Progress = silent) -> None: ...
    def unmount(self, path: str | Path) -> None: ...
    def grant(self, grants: Sequence[str]) -> None: ...
    def withdraw(self, syscall: str = "") -> None: ...
    def place(self, reference: str, place: Place) -> None: ...
    def holdings(self) -> Holdings: ...
    def keep(self) -> None: ...
    def forget(self, since: int = 0) -> None: ...
    def fork(self, count: int = 1) -> Sequence[AnyProcess]: ...
    def send(self, to: int, content: Any, *, label: Label = USER, timeout: float | None = None) -> None: ...
    async def asend(
        self, to: int, content: Any, label: Label = USER, timeout: float | None = None
    ) -> None: ...
    def receive(self, timeout: float | None = None) -> AnyMail: ...
    async def areceive(self, timeout: float | None = None) -> AnyMail: ...
    def signal(self, signal: Signal, sender: int = 0) -> None: ...
    def wait(self, timeout: float | None = None) -> Exit: ...
    def close(self) -> Exit: ...
    def checkpoint(self, path: str | Path) -> Path: ...
    def stat(self) -> Stat: ...
    def correct(self, turn: int, text: str) -> None: ...
    def prefer(self, turn: int, over: int, of: int = 0) -> None: ...
    def good(self, turn: int) -> None: ...
    def bad(self, turn: int) -> None: ...


class AnyAdapters(Protocol):
    """See `kernel.adapters.Adapters`."""

    def list(self) -> Sequence[AdapterStat]: ...
    def use(self, target: int | str, path: str | Path | None) -> str: ...
    def back(self, target: int | str) -> str: ...


class Machine(Protocol):
    """See `kernel.kernel.Kernel`."""

    @property
    def adapters(self) -> AnyAdapters: ...

    @property
    def config(self) -> Config: ...
    @property
    def window(self) -> int: ...
    @property
    def boot_s(self) -> float: ...
    def __enter__(self) -> Machine: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def close(self) -> None: ...
    def spawn(
        self,
        mounts: Iterable[Mount | str | Path] = (),
        *,
        grants: Sequence[str] = (),
        instructions: str = "",
        expert: str = "",
        user: str = "",
        priority: str = "interactive",
        quotas: Mapping[str, float] | None = None,
        seed: int = 0,
        fidelity: Literal["exact", "blend"] = "exact",
        work: str | Path | None = None,
        model: str = "",
        adapter: str | Path | None = None,
        progress: Progress | None = None,
    ) -> AnyProcess: ...
    def process(self, pid: int) -> AnyProcess: ...
    def ps(self) -> Sequence[Stat]: ...
    def stat(self, pid: int) -> Stat: ...
    def top(self) -> Top: ...
    def pmap(self, pid: int, *, look: bool = False) -> Sequence[Region]: ...
    def fill(self, pid: int, budget: int, *, look: bool = False, progress: Progress = silent) -> Filling: ...
    def passed(self, pid: int) -> Sequence[Passed]: ...
    def why(self, pid: int, *, call: bool = False, progress: Progress = silent) -> Why: ...
    def next_distribution(self, text: str, k: int = 10, pid: int = 0) -> list[tuple[str, float]]: ...
    @property
    def syscalls(self) -> Mapping[str, Syscall]: ...
    def replay(self, pid: int) -> Replay: ...
    def resume(self, path: str | Path) -> AnyProcess: ...
