"""Replay: a process once more, from its journal.

What: computes every turn of a process again, from its recorded window, with the recorded results of its calls, and
    compares the words with those that the journal holds.
Invariant: it is the turn's own code that runs (`kernel.execution`): only what it would journal, and the apps that it
    would call, are taken away. Nothing is written, nobody is called, other processes go on beside it.
Interface: `replay(kernel, pid, folder) -> Replay`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

from llmos.abi.errors import LLMOSError, NoSuchProcess, ProcessError
from llmos.abi.machine import Divergence, Replay
from llmos.kernel.engine.sequence import Emitted, Finished, Item, Request, Stream
from llmos.kernel.execution import Asking, Execution
from llmos.kernel.grants import Grant
from llmos.kernel.journal import MachineState, Record, read
from llmos.kernel.journal.records import Body, Booted, Exceeded, Exited, Signalled, Spawned
from llmos.kernel.journal.records import Finished as TurnFinished
from llmos.kernel.journal.state import ProcessState, Run, RunningTurn, fold_all
from llmos.kernel.layout import Layout
from llmos.kernel.process import Process
from llmos.kernel.trace import OFF
from llmos.kernel.turn import Turn
from llmos.memory.window import Segment

if TYPE_CHECKING:
    from llmos.kernel.engine.sequence import BlockingStream
    from llmos.kernel.kernel import Kernel

_WHOLE = ("stop", "length", "calls")  # how a turn ends that came to its end
_ENDS = (TurnFinished, Exited, Exceeded, Signalled)  # what may end a turn


@dataclass(frozen=True, slots=True)
class _Burst:
    """Words that were written in one go, and the results that came in behind them."""

    position: int
    tokens: tuple[int, ...]
    results: Run | None
    whole: bool  # they ended by themselves, not by a cancellation, a stop text or a crash


@dataclass(frozen=True, slots=True)
class _Recorded:
    """A turn as the journal has it; `before` is its process as it stood when the turn ended."""

    running: RunningTurn
    before: ProcessState
    finished: TurnFinished | None
    weights: str

    def asking(self) -> tuple[str, Asking] | None:
        """The question and how it was put."""
        number = self.running.started.turn
        return next(
            ((a.text, Asking.load(dict(a.options))) for a in self.before.asked if a.turn == number), None
        )

    def bursts(self, stops: bool) -> list[_Burst]:
        """Its words, in the order in which they were written."""
        found: list[_Burst] = []
        at, tokens = len(self.running.started.window), tuple[int, ...]()
        for run in self.running.runs:
            if run.call is None:
                tokens += run.tokens
            else:
                found.append(_Burst(at, tokens, run, True))
                at, tokens = at + len(tokens) + len(run.tokens), ()
        ended = self.finished is not None and self.finished.reason in _WHOLE
        return [*found, _Burst(at, tokens, None, ended and not stops)]


def replay(kernel: Kernel, pid: int, folder: Path | None = None) -> Replay:
    """Run a process again.

    Args:
        folder: of the journal; None for the kernel's own.

    Raises:
        NoSuchProcess: the journal does not know it, or has forgotten how it began.
        JournalError: it cannot be read.
        ProcessError: a remote model wrote its words.
    """
    spawned, turns = _past(read(folder or kernel.state), pid)
    if spawned.settings.get("model"):
        raise ProcessError(
            f"process {pid} cannot be run again", why="its words came from a remote model",
            do="read them in the journal",
        )  # fmt: skip
    if spawned.grants:
        _ = kernel.apps  # not from the loop, which it waits for
    return kernel.loop.run(_Rerun(kernel, pid, spawned).run(turns))


def _past(records: Iterable[Record], pid: int) -> tuple[Spawned, list[_Recorded]]:
    """How the process began, and its turns."""
    state, waiting = MachineState(), list[Record]()
    spawned: Spawned | None = None
    turns: list[_Recorded] = []
    weights = ""

    def look() -> ProcessState | None:
        nonlocal state
        state = fold_all(state, waiting)
        waiting.clear()
        return state.processes.get(pid)

    for record in records:
        body = record.body
        if isinstance(body, Booted):
            weights = body.weights
        elif record.pid == pid and isinstance(body, Spawned):
            spawned = body
        elif record.pid == pid and isinstance(body, _ENDS) and (before := look()) and before.turn is not None:
            waiting.append(record)
            after = look()
            if after is None or after.turn is None:
                finished = body if isinstance(body, TurnFinished) else None
                turns.append(_Recorded(before.turn, before, finished, weights))
            continue
        waiting.append(record)
    if (last := look()) and last.turn is not None:
        turns.append(_Recorded(last.turn, last, None, weights))
    if spawned is None:
        raise NoSuchProcess(
            f"the journal does not say how process {pid} began", why="it never was, or is long gone",
            do="`llmos journal` shows what is known",
        )  # fmt: skip
    return spawned, turns


class _RecordEnds(Exception):
    """The journal says no more about this turn."""


@dataclass(slots=True)
class _Comparison:
    """What the words of one turn are held against."""

    turn: int
    left: Iterator[_Burst]
    burst: _Burst = field(default_factory=lambda: _Burst(0, (), None, False))
    at: int = 0  # in the burst
    tokens: int = 0
    found: tuple[int, int | None, int | None] | None = None  # position, expected, got

    @property
    def here(self) -> tuple[int, int | None, None]:
        """The place that has been reached, and the token that is expected there."""
        tokens = self.burst.tokens
        return self.burst.position + self.at, tokens[self.at] if self.at < len(tokens) else None, None


class _Rerun:
    """One process, run again. On the loop."""

    def __init__(self, kernel: Kernel, pid: int, spawned: Spawned) -> None:
        self._kernel = kernel
        self._engine = _Engine(kernel)
        quotas = {name: limit for name, limit in spawned.quotas.items() if name == "pages"}  # of a window
        alone = replace(spawned, parent=0, quotas=quotas)
        self._process = Process(cast("Kernel", _Quiet(kernel, self._engine)), pid, alone)
        self._process.trap = cast(Any, self._engine)
        self._mounted = bool(spawned.settings.get("mounts"))
        self._notes: list[str] = []

    async def run(self, turns: Sequence[_Recorded]) -> Replay:
        done, tokens, divergence = 0, 0, None
        for recorded in turns:
            compared = await self._turn(recorded)
            if compared is None:
                continue
            done, tokens = done + 1, tokens + compared.tokens
            if compared.found is not None:
                divergence = self._divergence(compared)
                break
        weights = self._kernel.runner.identity
        then = tuple(dict.fromkeys(recorded.weights for recorded in turns))
        if any(name != weights for name in then):
            self._notes.append("the weights are not those of the journal, so the words may differ")
        return Replay(self._process.pid, done, tokens, divergence, then, weights, tuple(self._notes))

    async def _turn(self, recorded: _Recorded) -> _Comparison | None:
        """Run one turn; None where the journal does not say enough."""
        started, process = recorded.running.started, self._process
        asked = recorded.asking()
        if asked is None or not started.layout:
            self._notes.append(f"turn {started.turn} cannot be run again: its question is not in the journal")
            return None
        question, asking = asked
        if asking.think is not None:
            self._notes.append(
                f"turn {started.turn} was thought about: what it came to hangs on the time it had"
            )
            return None
        compared = _Comparison(started.turn, iter(recorded.bursts(stops=bool(asking.stop))))
        self._engine.compared = compared
        process.conversation = list(recorded.before.conversation)
        process.grants = tuple(map(Grant.parse, recorded.before.spawned.grants))
        layout = Layout.load(started.window, started.layout, self._kernel.tokenizer)
        execution = Execution(
            process, Turn(process.pid, started.turn, lambda: None, detached=True), question, asking, layout,
            grounded=(self._mounted or bool(layout.passages)) and not asking.raw,
            table=process.view.table(asking), started=perf_counter(),
        )  # fmt: skip
        try:
            await execution.run()
        except _RecordEnds:
            self._notes.append(f"turn {started.turn} was not finished")
        except LLMOSError as error:
            if compared.found is None and (recorded.finished is None or recorded.finished.reason != "error"):
                self._notes.append(f"turn {started.turn} ended with an error: {error}")
                compared.found = compared.here
        return compared

    def _divergence(self, compared: _Comparison) -> Divergence:
        assert compared.found is not None
        position, expected, got = compared.found
        texts = ["" if t is None else self._kernel.tokenizer.decode([t]) for t in (expected, got)]
        return Divergence(compared.turn, position, expected, got, *texts)


class _Quiet:
    """The kernel as a process sees it that is run again: nothing is journalled."""

    def __init__(self, kernel: Kernel, engine: _Engine) -> None:
        self.engine, self.trace = engine, OFF
        self._kernel = kernel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kernel, name)

    def append(self, pid: int, body: Body) -> int:
        return 0

    async def durable(self, pid: int, body: Body) -> int:
        return 0


class _Engine:
    """The engine, watched, and the trap: results are those that were recorded."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.compared: _Comparison | None = None

    def submit(self, request: Request) -> BlockingStream:
        return self._kernel.engine.submit(request)

    def start(self, request: Request, stream: Stream) -> None:
        compared = self.compared
        assert compared is not None
        burst = next(compared.left, None)
        if burst is None or not (burst.tokens or burst.whole):
            raise _RecordEnds
        compared.burst, compared.at = burst, 0
        most = request.max_tokens if burst.whole else min(request.max_tokens, len(burst.tokens))
        self._kernel.engine.start(
            replace(request, hint=burst.tokens, max_tokens=most), _Watched(self._kernel, compared, stream)
        )

    async def answer(self, *_: object, told: object) -> list[Segment]:
        assert self.compared is not None
        results = self.compared.burst.results
        if results is None:
            raise _RecordEnds
        return [Segment("result", results.tokens, results.label)]


class _Watched(Stream):
    """Stands between the engine and a turn's stream; not a `ProcessStream`, so what passes is not journalled."""

    def __init__(self, kernel: Kernel, compared: _Comparison, reader: Stream) -> None:
        super().__init__()
        self._kernel, self._compared, self._reader = kernel, compared, reader
        reader.attach(self._asked)

    def _asked(self) -> None:
        self.cancelled, self.paused = self._reader.cancelled, self._reader.paused
        self._wake()

    @property
    def full(self) -> bool:
        return self._reader.full

    def put(self, item: Item) -> None:
        """On the engine's thread."""
        compared, whole = self._compared, self._compared.burst.whole
        place, expected, _ = compared.here
        if compared.found is None and not self.cancelled:
            if isinstance(item, Emitted) and item.id != expected and (whole or expected is not None):
                compared.found = place, expected, item.id
                self._reader.cancel()
            elif isinstance(item, Emitted):
                compared.tokens += expected is not None
            elif isinstance(item, Finished) and expected is not None and whole:
                compared.found = compared.here
        compared.at += isinstance(item, Emitted)
        self._kernel.loop.call(self._reader.put, item)
