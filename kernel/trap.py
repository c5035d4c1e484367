"""The trap: what happens between a call that a model wrote and the result that it reads.

What: the monitor decides, whoever must be asked is asked, the journal records the intent, the app runs in its own
    process while others keep decoding, the journal records the result, and the window gets it with its label.
Invariant: no app is called before its intent is durable, no result is seen before it is. After a crash a call takes
    effect as its `retry` says: `keyed` and `query` once, `safe` perhaps again with the result used once; `never` is
    not repeated: its process stands stopped until somebody says how to go on. Nothing an app does ends the kernel.
Interface: `Trap(process).answer(execution, invocations, open_calls) -> segments`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from llmos.abi.errors import CallDenied, LLMOSError
from llmos.abi.events import Ask, Call, Result
from llmos.abi.labels import USER, Label, join
from llmos.kernel.journal.records import Approval, Intent, Parked
from llmos.kernel.journal.records import Result as ResultRecord
from llmos.kernel.monitor import Allow, Attempt, Deny, decide, provenance
from llmos.kernel.prompt import Part
from llmos.kernel.syscalls import Invocation, error_text, error_told, result_text

if TYPE_CHECKING:
    from llmos.abi.manifest import Syscall
    from llmos.kernel.execution import Execution
    from llmos.kernel.grants import Grant
    from llmos.kernel.journal.state import OpenCall
    from llmos.kernel.process import Process
    from llmos.memory.window import Segment

PARALLEL = frozenset({"none", "read", "fetch"})  # effects whose calls may run side by side
SHARE = 4  # a result's share of the window: one in so many; the rest of it is read on demand
UNKNOWN = {
    "type": "OutcomeUnknown",
    "message": "the machine stopped while this call ran: it may have happened; it was not repeated",
}


class Trap:
    """A process's way into the kernel."""

    def __init__(self, process: Process) -> None:
        self._process, self._kernel = process, process.kernel

    async def answer(
        self,
        execution: Execution,
        invocations: Sequence[Invocation],
        begun: Sequence[OpenCall] = (),
        *,
        told: Callable[[Sequence[Part]], Sequence[Part]] = lambda _: (),
    ) -> list[Segment]:
        """Carry out what one answer called for: neighbours that may run side by side do, results come in order.

        Args:
            begun: calls of this answer that the journal knew before a crash.
            told: what the model is told behind these results.

        Raises:
            QuotaExceeded: the process may not make so many calls; none was made.
        """
        self._process.ledger.take("syscalls", max(len(invocations) - len(begun), 0))
        known = _match(invocations, begun)
        results: list[Part] = []
        group: list[asyncio.Task[Part]] = []
        async with asyncio.TaskGroup() as tasks:
            for invocation, before in zip(invocations, known, strict=True):
                effect = self._kernel.syscalls[invocation.syscall].effect
                number = before.intent.call if before is not None else self._process.next_call()
                if effect not in PARALLEL and group:
                    await asyncio.wait(group)
                work = tasks.create_task(self._call(execution, invocation, number, before))
                group.append(work)
                if effect not in PARALLEL:
                    await work
            results = [await task for task in group]
        return self._kernel.prompt.results(results, told(results))

    async def _call(
        self, execution: Execution, invocation: Invocation, number: int, before: OpenCall | None
    ) -> Part:
        syscall = self._kernel.syscalls[invocation.syscall]
        with self._kernel.trace.syscall(self._process.pid, number, syscall.name):
            if before is None:
                await execution.tell(Call(number, syscall.name, invocation.arguments))
                record = await self._fresh(execution, syscall, invocation, number)
            else:
                record = await self._again(execution, syscall, before)
        text = error_text(record.error) if record.error is not None else result_text(record.value)
        folder = self._kernel.workspace(self._process.pid) if record.files else None
        files = () if folder is None else tuple(str(folder / name) for name in record.files)
        await execution.tell(Result(number, syscall.name, record.error is None, text, record.label, files))
        return Part("result", self.head(number, text), record.label, syscall.name)

    async def _fresh(
        self, execution: Execution, syscall: Syscall, invocation: Invocation, number: int
    ) -> ResultRecord:
        """A call that nobody has heard of: judge it, then make it."""
        layout, turn = execution.layout, execution.turn.number
        arguments = invocation.arguments
        labels = {name: provenance(value, layout.said, layout.taint) for name, value in arguments.items()}
        label = join([*labels.values(), syscall.label])
        process = self._process
        try:
            if invocation.failed:
                raise CallDenied(invocation.failed, do="the same call was not made again")
            await self.judge(execution, Attempt(syscall, arguments, labels), number, process.grants)
        except LLMOSError as e:
            return await self._keep(_failed(turn, number, e, USER))
        key = f"{self._kernel.machine_id}-{process.pid}-{number}"
        intent = Intent(turn, number, syscall.name, arguments, key, syscall.retry, labels)
        await self._kernel.durable(process.pid, intent)
        return await self._keep(await self._make(syscall, intent, label))

    async def _again(self, execution: Execution, syscall: Syscall, before: OpenCall) -> ResultRecord:
        """A call that the journal knows: what came of it, or what may be done where nobody knows."""
        intent = before.intent
        if before.result is not None:
            return before.result
        label = join([*intent.labels.values(), syscall.label])
        if intent.retry == "never":
            if not before.parked:
                why = f"{syscall.name} was running when the machine stopped, and must not be repeated"
                self._process.going.clear()
                await self._kernel.durable(self._process.pid, Parked(intent.turn, intent.call, why))
            await self._process.going.wait()  # until somebody who has looked says CONT
            return await self._keep(ResultRecord(intent.turn, intent.call, None, UNKNOWN, label))
        if intent.retry == "query":
            found = await self._kernel.apps.query(self._process, syscall, intent.key, intent.call)
            if found is not None:
                return await self._keep(
                    ResultRecord(
                        intent.turn,
                        intent.call,
                        found.value,
                        found.error,
                        join([label, found.label]),
                        found.files,
                    )
                )
        return await self._keep(await self._make(syscall, intent, label))

    async def judge(
        self, execution: Execution, attempt: Attempt, number: int, grants: Sequence[Grant]
    ) -> None:
        """Return when the call may happen; CallDenied where it may not."""
        process, syscall = self._process, attempt.syscall
        decision = decide(
            attempt, grants, execution.layout.taint, self._kernel.policy, frozenset(process.approved)
        )
        match decision:
            case Allow():
                return
            case Deny(why):
                raise CallDenied(f"{syscall.name} was denied", why=why)
        for doubt in decision.doubts:
            asked = Ask(number, syscall.name, doubt.argument, doubt.value, doubt.why, doubt.label)
            await execution.tell(asked)
            allowed = await self._kernel.ask(asked)
            await self._kernel.durable(
                process.pid,
                Approval(
                    execution.turn.number,
                    number,
                    doubt.argument,
                    doubt.value,
                    allowed,
                    self._kernel.asker,
                    syscall.name,
                ),  # fmt: skip
            )
            if not allowed:
                raise CallDenied(
                    f"{syscall.name} was not approved", why=f"{doubt.argument}: {doubt.why}",
                    do="go on without it, or say what you would need it for",
                )  # fmt: skip
            process.approved.add((syscall.name, *doubt.key))

    async def _make(self, syscall: Syscall, intent: Intent, label: Label) -> ResultRecord:
        """Have the app do it."""
        apps = self._kernel.apps
        with self._kernel.trace.app(self._process.pid, intent.call, syscall.name, apps.ps):
            outcome = await apps.call(self._process, syscall, intent)
        label = join([label, outcome.label])
        return ResultRecord(intent.turn, intent.call, outcome.value, outcome.error, label, outcome.files)

    async def _keep(self, record: ResultRecord) -> ResultRecord:
        await self._kernel.durable(self._process.pid, record)
        return record

    def head(self, number: int, text: str) -> str:
        """As much of a result as its share of the window holds, and how to read on."""
        most = self._kernel.window // SHARE * 3  # characters: a token has three or more
        if len(text) <= most:
            return text
        return (
            f"{text[:most]}\n[{len(text) - most} characters more: read on with results.read, call {number}]"
        )


def _match(invocations: Sequence[Invocation], begun: Sequence[OpenCall]) -> list[OpenCall | None]:
    """What the journal knows of each invocation; nothing of those that were denied, which are judged again."""
    left = list(begun)
    known: list[OpenCall | None] = []
    for made in invocations:
        at = next(
            (
                i
                for i, c in enumerate(left)
                if (c.intent.syscall, c.intent.arguments) == (made.syscall, made.arguments)
            ),
            None,
        )
        known.append(None if at is None else left.pop(at))
    return known


def _failed(turn: int, call: int, error: LLMOSError, label: Label) -> ResultRecord:
    return ResultRecord(turn, call, None, error_told(error), label)
