"""A process: an agent with a window of its own.

What: keeps a conversation, mounts, grants, quotas and a mailbox; takes questions and starts their turns; obeys
    signals; is forked, waited for and reaped.
Invariant: one turn at a time, the others queue or are refused. All state changes on the kernel's loop or under
    `_lock`; whatever must outlive the kernel is journalled before it is seen.
Interface: `ask`, `aask`, `expect`, `fork`, `send`, `receive`, `signal`, `wait`, `close`, `checkpoint`; `stat`, `state`;
    what its owner does: owned.py.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter, time
from typing import TYPE_CHECKING, Any, TypeVar

from llmos.abi.errors import QuotaExceeded, TurnRefused
from llmos.abi.labels import USER, Label
from llmos.abi.machine import Exit, Signal, Stat, State
from llmos.abi.manifest import Syscall
from llmos.kernel.ahead import Ahead
from llmos.kernel.execution import Asking
from llmos.kernel.grants import Grant, covers
from llmos.kernel.journal.records import (
    Asked,
    Exceeded,
    Exited,
    Received,
    Sent,
    Signalled,
)
from llmos.kernel.journal.state import Exchange, Mail
from llmos.kernel.ledger import Ledger
from llmos.kernel.mailbox import Mailbox
from llmos.kernel.monitor import value_key
from llmos.kernel.owned import Owned
from llmos.kernel.prompt import Message
from llmos.kernel.questions import Question, Questions
from llmos.kernel.scheduler import Priority
from llmos.kernel.trap import Trap
from llmos.kernel.turn import Turn
from llmos.kernel.view import View

if TYPE_CHECKING:
    from llmos.abi.mount import Mount
    from llmos.kernel.journal.records import Spawned
    from llmos.kernel.journal.state import ProcessState
    from llmos.kernel.kernel import Kernel

T = TypeVar("T")


class Process(Owned):
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
        self.view = View(self)
        self.ahead = Ahead(self)
        self.going = asyncio.Event()  # cleared while stopped
        self.going.set()
        self.trap = Trap(self)
        self.exit: Exit | None = None
        self._ended, self._gone = threading.Event(), asyncio.Event()  # the same, for threads and for the loop
        self._ending = False  # TERM: no turn after the ones that wait
        self._born = time()
        self._branches = 0
        self.questions = Questions(self)
        self.mailbox = Mailbox(pid)
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
        think: Any = None,
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
            tool_choice: `auto`, `required`, `none`, or the name of the one that must be called. Without `tools`,
                `required` makes the answer begin with a call of the process's own; the rest is open.
            max_tokens: of the answer; None for as many as the window leaves, at most 512.
            seed: of the random bits, where temperature is above 0.
            temperature: 0 (also None) is greedy.
            stop: texts that end the answer where they appear, themselves not shown.
            returns: a type (a pydantic model, a dataclass, list[int], ...): the answer is JSON of it, `turn.value`
                an instance.
            schema: the same as a JSON schema.
            think: how long to think before answering: a time ("30s"), a multiple of a plain answer ("8x"), or tokens
                (4000); or how, a strategy of `llmos.kernel.think`. `turn.confidence` and `turn.tree` tell of it.
            queue: wait behind the turns that are under way, instead of being refused.
            label: whose words the question is.
            detached: nobody will read along; the turn does not wait for its reader.

        Raises:
            ConfigError: a way to think that there is not.
            TurnRefused: a turn is running, or the process has ended; or what is asked cannot be thought about.
            QuotaExceeded: the question needs more pages than the process may have, which ends it.
            WindowOverflow: the question does not fit the window.
        """
        started = perf_counter()
        asking = Asking(
            max_tokens=max_tokens, seed=self.spawned.seed if seed is None else seed,
            temperature=temperature or 0.0, top_k=top_k, top_p=top_p, min_p=min_p,
            repetition_penalty=repetition_penalty, stop=tuple(stop), raw=raw, schema=_schema(returns, schema),
            tools=tuple(tool.model_dump(mode="json") for tool in tools), choice=tool_choice,
            think=self._thinking(think, raw),
        )  # fmt: skip
        if self.exit is not None or self._ending:
            raise TurnRefused(f"process {self.pid} has ended", do="spawn another")
        number, first = self.questions.enter(queue)
        try:
            if messages is not None and not first:
                raise TurnRefused(
                    f"process {self.pid} is answering", do="give messages to a process that is idle"
                )
            if first:
                self.ahead.leave()
            layout = self.view.lay_out(question, label, asking, messages) if first else None
            turn = Turn(
                self.pid, number, lambda: self.questions.cancel(number), returns=returns, detached=detached
            )
            self.kernel.append(self.pid, Asked(number, question, label, asking.dump()))
        except BaseException as e:
            self.questions.leave()
            if isinstance(e, QuotaExceeded):
                self.kernel.loop.call(self.exceeded, e.quota)
            raise
        self.questions.add(Question(turn, question, label, asking, started, layout))
        return turn

    def expect(self, question: str = "") -> None:
        """Say what may be asked next, as far as it is known (a line that is being typed; "" for anything): what its
        window will need is brought while nobody waits. Whatever is asked then is answered as it would be without."""
        if self.questions.idle:
            self.ahead.expect(question)

    def _thinking(self, think: Any, raw: bool) -> dict[str, Any] | None:
        """How a turn is to think, as the journal has it."""
        if think is None:
            return None
        from llmos.kernel.think.forms import dump, strategy_of

        dumped = dump(strategy_of(think))
        if raw or self.spawned.settings.get("model"):
            raise TurnRefused(
                "this cannot be thought about",
                why="a remote model's words cannot be forked"
                if not raw
                else "a text that goes on has no answer",
                do="leave `think` out",
            )
        return dumped

    async def aask(self, question: str = "", **options: Any) -> Turn:
        """`ask` for async programs: the window is laid out on another thread."""
        return await asyncio.to_thread(self.ask, question, **options)

    def served(self) -> None:
        """On the loop: nothing is asked any more."""
        if self._ending:
            self.end("TERM")

    async def asettled(self) -> Exchange | None:
        """Wait until nothing is asked any more; the last exchange, None where there was none."""
        await self.questions.settled()
        return self.conversation[-1] if self.conversation else None

    @property
    def window(self) -> int:
        """Tokens that its window may hold."""
        return self.view.size

    @property
    def current(self) -> Turn | None:
        """The turn that runs, or the next one that waits; None where nothing is asked."""
        return self.questions.current

    def next_call(self) -> int:
        """The number of the next call."""
        self.calls += 1
        return self.calls

    def _watch_clock(self) -> None:
        left = self.ledger.limit("seconds") - (time() - self._born)
        asyncio.get_running_loop().call_later(max(left, 0), self.exceeded, "seconds")

    def exceeded(self, quota: str) -> None:
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
                self.questions.interrupt()
            case "STOP" | "CONT":
                stopped = signal == "STOP"
                (self.going.clear if stopped else self.going.set)()
                self.questions.pause(stopped)
            case "TERM":
                self._ending = True
                if not self.questions.serving:
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
        self.ahead.leave()
        self.questions.give_up(f"process {self.pid} ended: {reason}")
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
        """`wait` for async programs."""
        await self._on_loop(asyncio.wait_for(self._gone.wait(), timeout))
        return self.wait(0)

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
        self._between_turns("fork it")
        return [self.branch() for _ in range(count)]

    def branch(self) -> Process:
        """One child that knows the conversation as it stands; the turn under way is not part of it yet."""
        self._branches += 1
        spawned = replace(self.spawned, parent=self.pid, forked=True, path=(*self.path, self._branches))
        child = self.kernel.add(spawned, self.mounts)
        child.conversation = list(self.conversation)
        child.questions.count, child.calls = self.questions.count, self.calls
        return child

    def child(self, grants: Iterable[str], *, mounted: bool = True) -> Process:
        """A child with a conversation of its own, the same class and, where it is `mounted`, mounts, and these
        grants."""
        spawned = replace(self.spawned, parent=self.pid, grants=tuple(grants), quotas={})
        return self.kernel.add(spawned if mounted else spawned.mounting(()), self.mounts if mounted else ())

    def may_grant(self, grants: Iterable[Grant]) -> bool:
        """Whether a child may have these: at most what its parent has."""
        return all(covers(self.grants, grant) for grant in grants)

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

        await self._on_loop(self.kernel.process(to).mailbox.put(send, timeout))

    async def areceive(self, timeout: float | None = None) -> Mail:
        """The oldest letter in this process's box; waits for one. TimeoutError: for `timeout` seconds."""
        took = self.mailbox.take(lambda mail: self.kernel.durable(self.pid, Received(mail.number)), timeout)
        return await self._on_loop(took)

    def send(self, to: int, content: Any, *, label: Label = USER, timeout: float | None = None) -> None:
        """`asend` for programs that wait. Content is anything that JSON holds."""
        self.kernel.loop.run(self.asend(to, content, label, timeout))

    def receive(self, timeout: float | None = None) -> Mail:
        """`areceive` for programs that wait."""
        return self.kernel.loop.run(self.areceive(timeout))

    async def _on_loop(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` comes to on the kernel's loop, for whoever awaits it on another."""
        loop = self.kernel.loop
        return await work if loop.here else await asyncio.wrap_future(loop.start(work))

    # -- looking -------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        if self.exit is not None:
            return "zombie"
        if not self.going.is_set():
            return "stopped"
        return "swapped" if self.questions.swapped else self.questions.phase

    def stat(self) -> Stat:
        """The process as a line of `ps`."""
        ledger = self.ledger
        return Stat(
            self.pid, self.parent, self.expert or "agent", self.state, self.priority.name.lower(), self.questions.count,
            ledger.tokens, ledger.syscalls, ledger.pages, time() - self._born, self.adapter,
        )  # fmt: skip

    def checkpoint(self, path: str | Path) -> Path:
        """Write the process to a file that `Kernel.resume` goes on from; where it lies.

        Raises:
            CheckpointError: the process has ended, or the file cannot be written.
            DiskFull: there is no room for it.
        """
        from llmos.kernel.checkpoint import save

        return save(self, Path(path))

    # -- after a crash -------------------------------------------------------------------------------------------

    def restore(self, state: ProcessState) -> None:
        """Stand as the journal says, and go on with what was asked."""
        self.calls = state.calls
        self.conversation = list(state.conversation)
        self.approved = {(a.syscall, a.argument, value_key(a.value)) for a in state.approved}
        if state.ended is not None:
            self.exit = Exit(self.pid, state.ended, self.conversation[-1].answer if self.conversation else "")
            self._ended.set()
            self._gone.set()
            return
        self.mailbox = Mailbox(self.pid, state.mailbox)
        self._ending = state.ending
        if state.stopped:
            self.going.clear()
        self.questions.restore(state)


def _schema(returns: Any, schema: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The JSON schema of an answer, as the grammar takes it."""
    if returns is not None:
        from pydantic import TypeAdapter

        schema = TypeAdapter(returns).json_schema()
    if schema is None:
        return None
    from llmos.abi.schema import simplify

    return simplify(schema).schema
