"""A process: an agent with a window of its own.

What: keeps a conversation, mounts, grants, quotas and a mailbox; takes questions and starts their turns; obeys
    signals; is forked, waited for and reaped.
Invariant: one turn at a time, the others queue or are refused. All state changes on the kernel's loop or under
    `_lock`; whatever must outlive the kernel is journalled before it is seen.
Interface: `ask`, `aask`, `mount`, `forget`, `fork`, `send`, `receive`, `signal`, `wait`, `close`; `stat`, `state`;
    `correct`, `prefer`, `good`, `bad` for what the user thought of a turn.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from time import perf_counter, time
from typing import TYPE_CHECKING, Any, Literal

from llmos.abi.errors import Cancelled, ConfigError, LLMOSError, ProcessError, QuotaExceeded, TurnRefused
from llmos.abi.events import Done
from llmos.abi.labels import USER, Label, join
from llmos.abi.limits import PAGE_TOKENS
from llmos.abi.machine import Exit, Signal, Stat, State
from llmos.abi.manifest import Syscall
from llmos.abi.progress import Progress, silent
from llmos.kernel import grounding
from llmos.kernel.execution import Asking, Execution
from llmos.kernel.grants import Grant, covers
from llmos.kernel.journal.records import (
    Asked,
    Exceeded,
    Exited,
    Feedback,
    Forgot,
    Received,
    Sent,
    Signalled,
    Started,
)
from llmos.kernel.journal.state import Exchange, Mail
from llmos.kernel.layout import DEFAULT_MAX_TOKENS, Layout, lay_out, lay_out_messages, raw
from llmos.kernel.ledger import Ledger, Quota
from llmos.kernel.mailbox import Mailbox
from llmos.kernel.prompt import Message
from llmos.kernel.scheduler import Priority
from llmos.kernel.syscalls import SyscallTable
from llmos.kernel.trap import Trap
from llmos.kernel.turn import Turn

if TYPE_CHECKING:
    from llmos.abi.mount import Mount
    from llmos.kernel.journal.records import Spawned
    from llmos.kernel.journal.state import ProcessState, RunningTurn
    from llmos.kernel.kernel import Kernel

log = logging.getLogger("llmos.process")

RUNNING: ContextVar[Turn | None] = ContextVar("RUNNING", default=None)
"""The turn that code on the loop runs for, so that whoever reads it can be asked."""


@dataclass(frozen=True, slots=True)
class _Question:
    """A question that waits for its turn; laid out already where nothing stood before it."""

    turn: Turn
    text: str
    label: Label
    asking: Asking
    started: float
    layout: Layout | None = None
    resumed: RunningTurn | None = None


class Process:
    """Made by `Kernel.spawn` and `fork`."""

    def __init__(self, kernel: Kernel, pid: int, spawned: Spawned, mounts: Sequence[Mount] = ()) -> None:
        self.kernel, self.pid, self.spawned = kernel, pid, spawned
        self.parent, self.expert, self.path = spawned.parent, spawned.expert, spawned.path
        self.priority = Priority[spawned.priority.upper()]
        self.grants = tuple(map(Grant.parse, spawned.grants))
        above: Ledger | None = None if spawned.parent == 0 else kernel.process(spawned.parent).ledger
        self.ledger: Ledger = Ledger(spawned.quotas, above)
        self.mounts = list(mounts)
        self.approved: set[tuple[str, str, str]] = set()
        self.calls = 0
        self.conversation: list[Exchange] = []
        self.going = asyncio.Event()  # cleared while stopped
        self.going.set()
        self.trap = Trap(self)
        self.exit: Exit | None = None
        self.phase: Literal["new", "ready", "running", "waiting"] = "new"
        self._ended, self._gone = threading.Event(), asyncio.Event()  # the same, for threads and for the loop
        self._ending = False  # TERM: no turn after the ones that wait
        self._born = time()
        self._turns = self._branches = 0
        self._questions: deque[_Question] = deque()
        self._execution: Execution | None = None
        self._server: asyncio.Task[None] | None = None
        self.mailbox = Mailbox(pid)
        self._lock = threading.Lock()
        self._busy = 0  # turns that run, wait, or are being laid out
        self._open: list[Turn] = []  # those that run or wait, in order
        if "seconds" in self.ledger.quotas:
            kernel.loop.call(self._watch_clock)

    # -- questions -----------------------------------------------------------------------------------------------

    def ask(
        self,
        question: str = "",
        *,
        messages: Sequence[Message] | None = None,
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
        queue: bool = False,
        label: Label = USER,
        detached: bool = False,
    ) -> Turn:
        """Start a turn.

        Args:
            question: what to ask; with `raw`, the text to continue as a base model would.
            messages: a whole conversation, in place of the question and of what this process remembers.
            tools: syscalls that whoever asks carries out: a turn that makes such calls ends by `reason` "calls",
                and `turn.result.calls` has them. In place of the process's own.
            tool_choice: `auto`, `required`, `none`, or the name of the one that must be called.
            max_tokens: of the answer; None for as many as the window leaves, at most 512.
            seed: of the random bits, where temperature is above 0.
            temperature: 0 (also None) is greedy.
            stop: texts that end the answer where they appear, themselves not shown.
            returns: a type (a pydantic model, a dataclass, list[int], ...): the answer is JSON of it, `turn.value`
                an instance.
            schema: the same as a JSON schema.
            queue: wait behind the turns that are under way, instead of being refused.
            label: whose words the question is.
            detached: nobody will read along; the turn does not wait for its reader.

        Raises:
            TurnRefused: a turn is running, or the process has ended.
            WindowOverflow: the question does not fit the window.
        """
        started = perf_counter()
        asking = Asking(
            max_tokens=max_tokens, seed=self.spawned.seed if seed is None else seed,
            temperature=temperature or 0.0, top_k=top_k, top_p=top_p, min_p=min_p,
            repetition_penalty=repetition_penalty, stop=tuple(stop), raw=raw, schema=_schema(returns, schema),
            tools=tuple(tool.model_dump(mode="json") for tool in tools), choice=tool_choice,
        )  # fmt: skip
        number, first = self._enter(queue)
        try:
            if messages is not None and not first:
                raise TurnRefused(
                    f"process {self.pid} is answering", do="give messages to a process that is idle"
                )
            layout = self.lay_out(question, label, asking, messages) if first else None
            turn = Turn(self.pid, number, lambda: self._cancel(number), returns=returns, detached=detached)
            self.kernel.append(self.pid, Asked(number, question, label, asking.dump()))
        except BaseException:
            self._leave()
            raise
        with self._lock:
            self._open.append(turn)
        waiting = _Question(turn, question, label, asking, started, layout)
        self.kernel.loop.call(self._enqueue, waiting)
        return turn

    async def aask(self, question: str, **options: Any) -> Turn:
        """`ask` for async programs: the window is laid out on another thread."""
        return await asyncio.to_thread(self.ask, question, **options)

    def mount(self, mount: Mount, progress: Progress = silent) -> None:
        """Put a body of documents within this process's reach."""
        self.kernel.volume(mount, progress)
        self.mounts.append(mount)

    def forget(self) -> None:
        """Empty the conversation; mounts stay."""
        self.conversation.clear()
        self.kernel.append(self.pid, Forgot())

    def _enter(self, queue: bool) -> tuple[int, bool]:
        """Take the next turn's number; whether nothing stands before it."""
        with self._lock:
            if self.exit is not None or self._ending:
                raise TurnRefused(f"process {self.pid} has ended", do="spawn another")
            if self._busy and not queue:
                raise TurnRefused(
                    f"process {self.pid} is still answering",
                    do="read that turn to its end, cancel it, or ask with queue=True",
                )
            self._busy += 1
            self._turns += 1
            return self._turns, self._busy == 1

    def _leave(self, turn: Turn | None = None) -> None:
        with self._lock:
            self._busy -= 1
            if turn is not None:
                self._open.remove(turn)

    def lay_out(
        self, question: str, label: Label, asking: Asking, messages: Sequence[Message] | None = None
    ) -> Layout:
        """The window for a question: room is left for the answer, as long as was asked for or at least a short one."""
        kernel = self.kernel
        whole = self.window
        budget = max(whole - (asking.max_tokens or min(DEFAULT_MAX_TOKENS, whole // 2)), 1)
        if asking.raw:
            return raw(kernel.raw_tokens(question), budget, kernel.tokenizer, label)
        table = self._table(asking)
        tools = () if table is None else table.tools
        described = USER if table is None or asking.tools else join(map(kernel.apps.label_of, table.syscalls))
        if messages is not None:
            return lay_out_messages(kernel.prompt, kernel.tokenizer, budget, messages, tools, described)
        passages = kernel.search(question, self.mounts, grounding.PASSAGES) if self.mounts else None
        return lay_out(
            kernel.prompt,
            kernel.tokenizer,
            budget,
            question,
            label=label,
            instructions=str(self.spawned.settings.get("instructions", "")),
            passages=passages,
            conversation=self.conversation,
            tools=tools,
            tools_label=described,
        )

    @property
    def window(self) -> int:
        """Tokens that its window may hold."""
        return min(self.kernel.window, self.ledger.limit("pages") * PAGE_TOKENS)

    def _table(self, asking: Asking) -> SyscallTable | None:
        """The syscalls of a turn: what was granted, or what the asker carries out; None for none."""
        if asking.raw or asking.choice == "none":
            return None
        if asking.tools:
            found = [Syscall.model_validate(tool) for tool in asking.tools]
            named = [s for s in found if asking.choice in (s.name, "auto", "required")]
            if not named:
                names = ", ".join(s.name for s in found)
                raise ConfigError(
                    f"there is no tool {asking.choice!r} to choose", do=f"choose one of {names}"
                )
            return SyscallTable(named, self.kernel.tokenizer)
        if not self.grants:
            return None
        granted = [s for s in self.kernel.syscalls.values() if any(g.names(s.name) for g in self.grants)]
        return SyscallTable(granted, self.kernel.tokenizer) if granted else None

    @property
    def current(self) -> Turn | None:
        """The turn that runs, or the next one that waits; None where nothing is asked."""
        with self._lock:
            return self._open[0] if self._open else None

    # -- on the loop ---------------------------------------------------------------------------------------------

    def _enqueue(self, question: _Question) -> None:
        self._questions.append(question)
        if self._server is None or self._server.done():
            self._server = asyncio.ensure_future(self._serve())

    async def _serve(self) -> None:
        """Answer what was asked, one question after the other."""
        while self._questions:
            question = self._questions.popleft()
            outcome: Done | BaseException = Cancelled("the kernel was closed while the turn ran")
            try:
                outcome = await self._turn(question)
            except LLMOSError as e:
                outcome = e
                if isinstance(e, QuotaExceeded):
                    self.exceeded("tokens" if self.ledger.left("tokens") < 1 else "syscalls")
            except Exception as e:  # a fault of ours ends the turn, not the process or the kernel
                log.exception("turn %s of process %s failed", question.turn.number, self.pid)
                outcome = ProcessError("the turn failed", why=f"{type(e).__name__}: {e}", do="report this")
            finally:  # who reads the end of a turn may ask the next question
                self._leave(question.turn)
                self.phase = "waiting"
                question.turn.put(outcome)
        if self._ending:
            self.end("TERM")

    async def _turn(self, question: _Question) -> Done:
        kernel, turn, asking = self.kernel, question.turn, question.asking
        layout = question.layout
        self.phase = "ready"
        RUNNING.set(turn)
        try:
            if layout is None:
                await self.going.wait()
                layout = await asyncio.to_thread(self.lay_out, question.text, question.label, asking)
            execution = self._execution = Execution(
                self, turn, question.text, asking, layout,
                grounded=bool(self.mounts) and not asking.raw, table=self._table(asking),
                started=question.started, resumed=question.resumed,
            )  # fmt: skip
            if question.resumed is None:
                started = Started(
                    turn.number,
                    layout.tokens,
                    asking.seed,
                    self.path,
                    label=layout.taint,
                    layout=layout.dump(),
                )
                await kernel.durable(self.pid, started)
            done = await execution.run()
            if done.answer and question.text and not asking.raw:
                kept = grounding.uncited(done.answer) if self.mounts else done.answer
                self.conversation.append(Exchange(turn.number, question.text, kept, execution.layout.taint))
            return done
        finally:
            self._execution = None

    def _cancel(self, number: int) -> None:
        self.kernel.loop.call(self._cancel_here, number)

    def _cancel_here(self, number: int) -> None:
        if self._execution is not None and self._execution.turn.number == number:
            self._execution.cancel()
        for question in [q for q in self._questions if q.turn.number == number]:
            self._questions.remove(question)
            self._leave(question.turn)
            question.turn.put(Cancelled(f"turn {number} was cancelled before it began"))

    async def asettled(self) -> Exchange | None:
        """Wait until nothing is asked any more; the last exchange, None where there was none."""
        while self._server is not None and not self._server.done():
            await asyncio.wait([self._server])
        return self.conversation[-1] if self.conversation else None

    def next_call(self) -> int:
        """The number of the next call."""
        self.calls += 1
        return self.calls

    def _watch_clock(self) -> None:
        left = self.ledger.limit("seconds") - (time() - self._born)
        asyncio.get_running_loop().call_later(max(left, 0), self.exceeded, "seconds")

    def exceeded(self, quota: Quota) -> None:
        """On the loop: end, for a quota is used up."""
        if self.exit is None:
            limit = self.ledger.limit(quota)
            self.kernel.append(self.pid, Exceeded(quota, limit, limit))
            self.end(f"{quota} quota exceeded", journal=False)

    # -- signals and the tree ------------------------------------------------------------------------------------

    def signal(self, signal: Signal, sender: int = 0) -> None:
        """INT stops the turn, STOP and CONT hold and release the process, TERM lets it finish, KILL ends it."""
        self.kernel.append(self.pid, Signalled(signal, sender))
        self.kernel.loop.call(self.obey, signal)

    def obey(self, signal: Signal) -> None:
        """On the loop: what a signal does."""
        match signal:
            case "INT":
                if self._execution is not None:
                    self._execution.cancel()
            case "STOP" | "CONT":
                stopped = signal == "STOP"
                (self.going.clear if stopped else self.going.set)()
                if self._execution is not None:
                    self._execution.pause(stopped)
            case "TERM":
                self._ending = True
                if self._server is None or self._server.done():
                    self.end("TERM")
            case "KILL":
                self.end("KILL")

    def end(self, reason: str, *, journal: bool = True) -> None:
        """On the loop: become a zombie; children go to the kernel, the parent is told."""
        if self.exit is not None:
            return
        answer = self.conversation[-1].answer if self.conversation else ""
        self.exit = Exit(self.pid, reason, answer)
        if journal:
            self.kernel.append(self.pid, Exited(reason))
        for question in self._questions:
            self._leave(question.turn)
            question.turn.put(Cancelled(f"process {self.pid} ended: {reason}"))
        self._questions.clear()
        if self._execution is not None:
            self._execution.cancel()
            self.going.set()
        self.kernel.ended(self)
        self._ended.set()
        self._gone.set()

    def wait(self, timeout: float | None = None) -> Exit:
        """Wait for the process to end, and reap it. TimeoutError: it has not ended in time."""
        if not self._ended.wait(timeout):
            raise TimeoutError(f"process {self.pid} has not ended after {timeout} s")
        assert self.exit is not None
        self.kernel.reap(self)
        return self.exit

    async def await_(self, timeout: float | None = None) -> Exit:
        """`wait` for async programs on the kernel's loop."""
        await asyncio.wait_for(self._gone.wait(), timeout)
        return self.wait(0)

    async def halt(self) -> None:
        """On the loop: stop where it stands. What is unfinished is so in the journal, and goes on at the next boot."""
        if self._server is not None and not self._server.done():
            self._server.cancel()
            await asyncio.wait([self._server])
        for question in self._questions:
            question.turn.put(Cancelled("the kernel was closed before the turn began"))

    def close(self) -> Exit:
        """End the process now, and reap it."""
        self.signal("KILL")
        return self.wait()

    def fork(self, count: int = 1) -> list[Process]:
        """Children that know what this process knows: conversation, mounts, grants. Their windows share its pages
        until they differ; their random bits are their own.

        Raises:
            TurnRefused: a turn is running; ProcessError: too many processes.
        """
        with self._lock:
            if self._busy:
                raise TurnRefused(f"process {self.pid} is answering", do="fork it between two turns")
        return [self.branch() for _ in range(count)]

    def branch(self) -> Process:
        """One child that knows the conversation as it stands; the turn under way is not part of it yet."""
        self._branches += 1
        spawned = replace(self.spawned, parent=self.pid, forked=True, path=(*self.path, self._branches))
        child = self.kernel.add(spawned, self.mounts)
        child.conversation = list(self.conversation)
        child._turns, child.calls = self._turns, self.calls
        return child

    def child(self, grants: Iterable[str]) -> Process:
        """A child with a conversation of its own, the same mounts and class, and these grants."""
        spawned = replace(self.spawned, parent=self.pid, grants=tuple(grants), quotas={})
        return self.kernel.add(spawned, self.mounts)

    def may_grant(self, grants: Iterable[Grant]) -> bool:
        """Whether a child may have these: at most what its parent has."""
        return all(covers(self.grants, grant) for grant in grants)

    # -- what the user thought of it -----------------------------------------------------------------------------

    def correct(self, turn: int, text: str) -> None:
        """What turn `turn` should have answered. ProcessError: there was no such turn."""
        self._feedback(Feedback(turn, "correct", text))

    def prefer(self, turn: int, over: int) -> None:
        """The answer of `turn` was better than that of `over`."""
        self._feedback(Feedback(turn, "prefer", over=over))

    def good(self, turn: int) -> None:
        """The answer of `turn` was good."""
        self._feedback(Feedback(turn, "good"))

    def bad(self, turn: int) -> None:
        """The answer of `turn` was bad."""
        self._feedback(Feedback(turn, "bad"))

    def _feedback(self, feedback: Feedback) -> None:
        for turn in (feedback.turn, feedback.turn if feedback.over is None else feedback.over):
            if not 0 < turn <= self._turns:
                raise ProcessError(
                    f"process {self.pid} has had no turn {turn}", why=f"it has had {self._turns}",
                    do="name one by its number (`turn.number`)",
                )  # fmt: skip
        self.kernel.journal.wait(self.kernel.append(self.pid, feedback))

    # -- mail ----------------------------------------------------------------------------------------------------

    async def asend(self, to: int, content: Any, label: Label = USER, timeout: float | None = None) -> None:
        """Put mail into the box of process `to`; waits while it is full.

        Raises:
            NoSuchProcess: it has ended; MailboxFull: it did not read for `timeout` seconds.
        """

        async def send() -> Mail:
            return Mail(
                await self.kernel.durable(self.pid, Sent(to, content, label)), self.pid, content, label
            )

        await self.kernel.process(to).mailbox.put(send, timeout)

    async def areceive(self, timeout: float | None = None) -> Mail:
        """The oldest letter in this process's box; waits for one. TimeoutError: for `timeout` seconds."""
        return await self.mailbox.take(
            lambda mail: self.kernel.durable(self.pid, Received(mail.number)), timeout
        )

    def send(self, to: int, content: Any, *, label: Label = USER, timeout: float | None = None) -> None:
        """`asend` for programs that wait. Content is anything that JSON holds."""
        self.kernel.loop.run(self.asend(to, content, label, timeout))

    def receive(self, timeout: float | None = None) -> Mail:
        """`areceive` for programs that wait."""
        return self.kernel.loop.run(self.areceive(timeout))

    # -- looking -------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        if self.exit is not None:
            return "zombie"
        return self.phase if self.going.is_set() else "stopped"

    def stat(self) -> Stat:
        """The process as a line of `ps`."""
        ledger = self.ledger
        return Stat(
            self.pid, self.parent, self.expert or "agent", self.state, self.priority.name.lower(), self._turns,
            ledger.tokens, ledger.syscalls, ledger.pages, time() - self._born,
        )  # fmt: skip

    # -- after a crash -------------------------------------------------------------------------------------------

    def restore(self, state: ProcessState) -> None:
        """Stand as the journal says, and go on with what was asked."""
        self._turns, self.calls = state.turns, state.calls
        self.conversation = list(state.conversation)
        if state.ended is not None:
            self.exit = Exit(self.pid, state.ended, self.conversation[-1].answer if self.conversation else "")
            self._ended.set()
            self._gone.set()
            return
        self.mailbox = Mailbox(self.pid, state.mailbox)
        self._ending = state.ending
        if state.stopped:
            self.going.clear()
        for asked in state.asked:
            running = state.turn if state.turn and state.turn.started.turn == asked.turn else None
            asking = Asking.load(dict(asked.options))
            turn = Turn(self.pid, asked.turn, lambda n=asked.turn: self._cancel(n), detached=True)  # type: ignore[misc]
            layout = None
            if running is not None:
                started = running.started
                layout = Layout.load(started.window, started.layout, self.kernel.tokenizer)
                self.approved |= {_approval(running, a) for a in running.approvals if a.allowed}
            with self._lock:
                self._busy += 1
                self._open.append(turn)
            self._enqueue(_Question(turn, asked.text, asked.label, asking, perf_counter(), layout, running))


def _approval(turn: RunningTurn, approval: Any) -> tuple[str, str, str]:
    from llmos.kernel.monitor import value_key

    syscall = next((c.intent.syscall for c in turn.calls if c.intent.call == approval.call), "")
    return syscall, approval.argument, value_key(approval.value)


def _schema(returns: Any, schema: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The JSON schema of an answer, as the grammar takes it."""
    if returns is not None:
        from pydantic import TypeAdapter

        schema = TypeAdapter(returns).json_schema()
    if schema is None:
        return None
    from llmos.abi.schema import simplify

    return simplify(schema).schema
