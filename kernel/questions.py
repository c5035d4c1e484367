"""The questions of a process: those that wait, and the one whose turn runs.

What: takes numbers for turns, refuses or queues, and answers one question after the other on the loop.
Invariant: one turn at a time. Who has read the end of a turn may ask the next question. A turn always ends: by its
    answer, by a typed error, or by the reason why it was given up.
Interface: `Questions(process)`: `enter`, `leave`, `add`, `cancel`, `interrupt`, `pause`, `give_up`, `halt`, `abandon`,
    `settled`, `restore`; `current`, `running`, `count`, `phase`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Literal

from llmos.abi.errors import Cancelled, LLMOSError, ProcessError, QuotaExceeded, TurnRefused
from llmos.abi.events import Done
from llmos.abi.labels import USER, Label
from llmos.kernel.execution import Asking, Execution
from llmos.kernel.far import execution_of
from llmos.kernel.journal.records import Started
from llmos.kernel.journal.state import Exchange
from llmos.kernel.layout import Layout
from llmos.kernel.turn import Turn

if TYPE_CHECKING:
    from llmos.kernel.journal.state import ProcessState, RunningTurn
    from llmos.kernel.process import Process

log = logging.getLogger("llmos.process")

RUNNING: ContextVar[Turn | None] = ContextVar("RUNNING", default=None)
"""The turn that code on the loop runs for, so that whoever reads it can be asked."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question that waits for its turn; laid out already where nothing stood before it."""

    turn: Turn
    text: str
    label: Label
    asking: Asking
    started: float
    layout: Layout | None = None
    resumed: RunningTurn | None = None


class Questions:
    """What is asked of one process."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.count = 0  # turns so far: their numbers
        self.phase: Literal["new", "ready", "running", "waiting"] = "new"
        self._waiting: deque[Question] = deque()
        self._execution: Execution | None = None
        self._shown: Layout | None = None  # the window of the turn before
        self._server: asyncio.Task[None] | None = None
        self._lock = threading.Lock()
        self._busy = 0  # turns that run, wait, or are being laid out
        self._open: list[Turn] = []  # those that run or wait, in order

    # -- any thread ----------------------------------------------------------------------------------------------

    def enter(self, queue: bool) -> tuple[int, bool]:
        """Take the next turn's number; whether nothing stands before it. TurnRefused."""
        with self._lock:
            if self._busy and not queue:
                raise TurnRefused(
                    f"process {self._process.pid} is still answering",
                    do="read that turn to its end, cancel it, or ask with queue=True",
                )
            self._busy += 1
            self.count += 1
            return self.count, self._busy == 1

    def leave(self) -> None:
        """Give a number back that led to no turn."""
        with self._lock:
            self._busy -= 1

    def add(self, question: Question) -> None:
        """Have a question answered when its turn comes."""
        with self._lock:
            self._open.append(question.turn)
        self._process.kernel.loop.call(self._enqueue, question)

    def cancel(self, number: int) -> None:
        """Give turn `number` up, running or not."""
        self._process.kernel.loop.call(self._cancel, number)

    @property
    def current(self) -> Turn | None:
        """The turn that runs, or the next one that waits; None where nothing is asked."""
        with self._lock:
            return self._open[0] if self._open else None

    @property
    def idle(self) -> bool:
        """Nothing is asked, and nothing about to be."""
        with self._lock:
            return self._busy == 0

    @property
    def swapped(self) -> bool:
        """The turn that runs has had to leave the pool, and waits to come back."""
        execution = self._execution
        return execution is not None and execution.swapped

    @property
    def window(self) -> Layout | None:
        """The window of the turn that runs, or ran last in this kernel's life."""
        execution = self._execution
        return self._shown if execution is None else execution.layout

    @property
    def asked(self) -> tuple[str, Label]:
        """What the turn that runs was asked, with the label of all that its window has read; "" where none runs, or a
        whole conversation was given in place of a question."""
        execution = self._execution
        return ("", USER) if execution is None else (execution.question, execution.layout.taint)

    # -- on the loop ---------------------------------------------------------------------------------------------

    def interrupt(self) -> None:
        """Stop the turn that runs; what it has said becomes its answer."""
        if self._execution is not None:
            self._execution.cancel()

    def pause(self, paused: bool) -> None:
        """Hold the turn that runs, or let it go on."""
        if self._execution is not None:
            self._execution.pause(paused)

    def give_up(self, why: str) -> None:
        """The process ends: nothing is answered any more."""
        for question in self._waiting:
            self._close(question, Cancelled(why))
        self._waiting.clear()
        self.interrupt()

    async def halt(self) -> None:
        """The kernel closes: the turn that runs is left where the journal has it, to go on at the next boot. Its words
        must stop coming after this, not before: that would be an end."""
        if self._server is not None and self.serving:
            self._server.cancel()
            await asyncio.wait([self._server])

    def abandon(self) -> None:
        """The kernel has closed, and its loop with it: tell who waits for turns that have not begun. What is unfinished
        is so in the journal, and goes on at the next boot."""
        for question in self._waiting:
            question.turn.put(Cancelled("the kernel was closed before the turn began"))

    async def settled(self) -> None:
        """Wait until nothing is asked any more."""
        while self.serving:
            assert self._server is not None
            await asyncio.wait([self._server])

    @property
    def serving(self) -> bool:
        """Some turn runs or waits."""
        return self._server is not None and not self._server.done()

    def restore(self, state: ProcessState) -> None:
        """Ask again what the journal says is not answered, from where its turn stood."""
        process = self._process
        self.count = state.turns
        for asked in state.asked:
            running = state.turn if state.turn and state.turn.started.turn == asked.turn else None
            turn = Turn(process.pid, asked.turn, partial(self.cancel, asked.turn), detached=True)
            layout = None
            if running is not None:
                started = running.started
                layout = Layout.load(started.window, started.layout, process.kernel.tokenizer)
            asking = Asking.load(dict(asked.options))
            with self._lock:
                self._busy += 1
                self._open.append(turn)
            self._enqueue(Question(turn, asked.text, asked.label, asking, perf_counter(), layout, running))

    def _enqueue(self, question: Question) -> None:
        self._waiting.append(question)
        if self._execution is not None and self._process.view.blends:
            expect = partial(self._process.ahead.expect, question.text, queued=True)
            self._process.kernel.loop.asyncio.run_in_executor(None, expect)
        if not self.serving and not self._process.kernel.loop.closing:
            self._server = asyncio.ensure_future(self._serve())

    def _cancel(self, number: int) -> None:
        if self._execution is not None and self._execution.turn.number == number:
            self._execution.cancel()
        for question in [q for q in self._waiting if q.turn.number == number]:
            self._waiting.remove(question)
            self._close(question, Cancelled(f"turn {number} was cancelled before it began"))

    def _close(self, question: Question, outcome: Done | BaseException) -> None:
        """End a turn. The reader is told last: it may ask the next question at once."""
        with self._lock:
            self._busy -= 1
            self._open.remove(question.turn)
        question.turn.put(outcome)

    async def _serve(self) -> None:
        """Answer what was asked, one question after the other."""
        process = self._process
        while self._waiting:
            question = self._waiting.popleft()
            outcome: Done | BaseException = Cancelled("the kernel was closed while the turn ran")
            try:
                outcome = await self._answer(question)
            except LLMOSError as e:
                outcome = e
                if isinstance(e, QuotaExceeded):
                    process.exceeded(e.quota)
            except Exception as e:  # a fault of ours ends the turn, not the process or the kernel
                log.exception("turn %s of process %s failed", question.turn.number, process.pid)
                outcome = ProcessError("the turn failed", why=f"{type(e).__name__}: {e}", do="report this")
            finally:
                self.phase = "waiting"
                self._close(question, outcome)
        process.served()

    async def _answer(self, question: Question) -> Done:
        process, turn, asking = self._process, question.turn, question.asking
        layout = question.layout
        self.phase = "ready"
        RUNNING.set(turn)
        try:
            if layout is None:
                await process.going.wait()
                process.ahead.leave()
                layout = await asyncio.to_thread(process.view.lay_out, question.text, question.label, asking)
            execution = self._execution = execution_of(process, asking)(
                process, turn, question.text, asking, layout,
                grounded=bool(process.mounts) and not asking.raw, table=process.view.table(asking),
                started=question.started, resumed=question.resumed,
            )  # fmt: skip
            if question.resumed is None:
                if question.text:
                    await execution.begin(question.label)
                layout = execution.layout
                began = Started(
                    turn.number,
                    layout.tokens,
                    asking.seed,
                    process.path,
                    label=layout.taint,
                    layout=layout.dump(),
                )
                await process.kernel.durable(process.pid, began)
            done = await execution.run()
            if done.answer and question.text and not asking.raw:
                kept = execution.kept(done.answer)
                process.conversation.append(
                    Exchange(turn.number, question.text, kept, execution.layout.taint, question.label)
                )
            return done
        finally:
            if self._execution is not None:
                self._shown = self._execution.layout
            self._execution = None
