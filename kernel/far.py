"""A process whose words a remote model writes: another CPU behind the same kernel.

What: a turn whose bursts go to an endpoint as messages, and come back as words and calls. Everything around them is the
    same: the window and its budget, the syscalls and their trap, the monitor, the journal, quotas, signals.
Invariant: what a remote reads leaves the machine: before each burst the monitor judges all of the window as the
    payload of a fetch whose target is the remote. A call counts once this kernel's own grammar has read it, in
    canonical form, as a call of what was granted. Nothing is shown before it is journalled. What it does not have is
    said: no pages, so no paging, swap or sharing of them; other words at each run, so a turn that a crash cut off ends
    by an error instead of going on, and no replay.
Interface: `execution_of(process, asking)`, the kind of turn that it is; `remote_of(model, config)` reads `remote:NAME`.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from time import perf_counter
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from llmos.abi.errors import AnswerCut, ConfigError, GrammarError, ProcessError
from llmos.abi.events import Event, Result, StopReason, Token
from llmos.abi.labels import USER, join
from llmos.abi.manifest import Syscall
from llmos.kernel.execution import Asking, Execution
from llmos.kernel.grants import Grant
from llmos.kernel.journal.records import Sampled
from llmos.kernel.monitor import Attempt
from llmos.kernel.remotes import endpoint
from llmos.kernel.stops import StopText
from llmos.kernel.syscalls import CLOSE, OPEN, Invocation, SyscallTable, answer_lark

if TYPE_CHECKING:
    from llmos.abi.config import Config
    from llmos.drivers.remote import Chat, Wrote
    from llmos.kernel.process import Process
    from llmos.kernel.prompt import Message

PREFIX = "remote:"
TELL = Syscall(
    name="remote.tell", tool="tell", description="Tell a remote model what stands in the window.", parameters={},
    targets=("model",), payload=("window",), effect="fetch", retry="safe", returns="untrusted", deadline=900,
)  # fmt: skip


def remote_of(model: str, config: Config) -> str:
    """The name in `remote:NAME`; ConfigError where the owner has named none so."""
    name = model.removeprefix(PREFIX)
    if name == model or name not in config.remotes:
        near = get_close_matches(name, config.remotes, 1)
        raise ConfigError(
            f"{model!r} is no model for a process",
            why=f"remotes are {', '.join(config.remotes) or 'none'}",
            do=f"did you mean '{PREFIX}{near[0]}'?"
            if near
            else f"name one under `remotes:`, and say {PREFIX}NAME",
        )
    return name


def execution_of(process: Process, asking: Asking) -> type[Execution]:
    """What carries out a turn of a process."""
    if process.spawned.settings.get("model"):
        return FarExecution
    if asking.think is not None:
        from llmos.kernel.think.execution import Thinking

        return Thinking
    return Execution


class FarExecution(Execution):
    """One turn of a process that a remote model speaks for. Lives on the loop."""

    def __init__(self, *args: Any, table: SyscallTable | None, **options: Any) -> None:
        super().__init__(*args, table=None, **options)
        self._offered = table
        self._name = str(self.process.spawned.settings["model"])
        self._names = {_safe(name): name for name in (table.syscalls if table else ())}
        self._messages = _given(self.layout.messages)
        self._wrote: list[Wrote] = []
        self._results: list[Result] = []
        self._made: list[Invocation] = []
        self._tokens: list[int] = []
        self._text = ""
        self._reason: StopReason = "stop"

    async def tell(self, event: Event) -> None:
        """Hand an event to the reader; results are remembered for the remote."""
        if isinstance(event, Result):
            self._results.append(event)
        await super().tell(event)

    def _calls(self, tokens: Sequence[int]) -> list[Invocation]:
        return self._made

    async def _burst(self, known: tuple[int, ...]) -> tuple[list[int], str, StopReason]:
        process = self.process
        if self.asking.raw:
            raise ProcessError("a remote model does not continue raw text", do="ask it a question")
        if self._resumed is not None:
            raise ProcessError(
                f"turn {self.turn.number} was cut off when the machine stopped",
                why="a remote model would not say the same words again",
                do="look at what its calls have done, and ask again",
            )
        await process.going.wait()
        self._answered()
        await self._permit()
        self._tokens, self._text, self._made, self._wrote = [], "", [], []
        limit = self._limit()
        if limit < 1 or self._cancelled:
            return [], "", "length" if limit < 1 else "cancelled"
        process.questions.phase = "running"
        self._work = asyncio.ensure_future(self._listen(limit))
        try:
            await self._work
        except asyncio.CancelledError:
            if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                raise  # the kernel closes
            self._reason, self._made = "cancelled", []
        finally:
            self._work = None
            process.questions.phase = "waiting"
        usage, count = self._usage, len(self._tokens)
        usage["prompt"] = usage["prompt"] or len(self.layout.tokens)
        usage["completion"] += count
        process.ledger.spend("tokens", count)
        self._within_quotas(self._reason, count)
        return self._tokens, self._text, self._reason

    def _answered(self) -> None:
        """Add the calls of the burst before, and their results, to what the remote reads."""
        if not self._wrote:
            return
        calls = [_call(str(n), w.name, w.arguments) for n, w in enumerate(self._wrote)]
        self._messages.append({"role": "assistant", "content": self._text or None, "tool_calls": calls})
        for place, result in enumerate(sorted(self._results, key=lambda result: result.number)):
            text = self.process.trap.head(result.number, result.text)
            self._messages.append({"role": "tool", "tool_call_id": str(place), "content": text})
        self._results.clear()

    async def _permit(self) -> None:
        """Return when the remote may read the window. CallDenied."""
        closed = [(text, label) for text, label in self.layout.said if label.readers is not None]
        kept = "\n".join(text for text, label in closed if self._name not in (label.readers or ()))
        labels = {"model": USER, "window": join(label for _, label in closed)}
        attempt = Attempt(TELL, {"model": self._name, "window": kept}, labels)
        await self.process.trap.judge(self, attempt, 0, (Grant(TELL.name),))

    def _chat(self, limit: int) -> Chat:
        """What the remote is asked. ProcessError for what the protocol cannot say."""
        from llmos.drivers.remote import Chat

        a, table = self.asking, self._offered
        if a.top_k or a.min_p or a.repetition_penalty != 1.0:
            raise ProcessError(
                "a remote model has no top_k, min_p or repetition_penalty", do="leave them out, or use top_p"
            )
        tools = [] if table is None else [dict(tool["function"]) for tool in table.tools]
        named = a.choice not in ("auto", "required", "none")
        drawn = a.temperature > 0
        return Chat(
            messages=tuple(self._messages),
            tools=[{"type": "function", "function": {**t, "name": _safe(t["name"])}} for t in tools],
            choice=_safe(a.choice) if named else a.choice,
            schema=a.schema,
            max_tokens=limit,
            temperature=a.temperature,
            top_p=a.top_p if drawn else None,
            seed=a.seed if drawn else None,
        )

    async def _listen(self, limit: int) -> None:
        """Take what the remote says, bit by bit."""
        from contextlib import aclosing

        from llmos.drivers.remote import Ended, Remote, Said, Used, Wrote

        remote = Remote(endpoint(self._kernel, self._name))
        stop, whole, self._reason = StopText(self.asking.stop), "", "stop"
        async with aclosing(remote.talk(self._chat(limit))) as events:
            async for event in events:
                await self.process.going.wait()
                match event:
                    case Said(text) if self.asking.schema is not None:
                        whole += text
                    case Said(text):
                        await self._say(stop.push(text))
                    case Wrote():
                        self._wrote.append(event)
                    case Used(prompt):
                        self._usage["prompt"] = max(self._usage["prompt"], prompt)
                    case Ended(reason):
                        self._reason = "length" if reason == "length" else "stop"
                if stop.met or len(self._tokens) >= limit:
                    self._reason = "stop" if stop.met else "length"
                    break
        await self._say(stop.flush())
        if whole and not self._wrote:
            await self._say(self._fitting(whole))
        if self._reason == "stop" and not stop.met:
            for wrote in self._wrote:
                await self._take(wrote)
        else:
            self._wrote.clear()

    async def _say(self, text: str) -> None:
        """Words, to the journal, then to the reader."""
        if not text:
            return
        self._text += text
        self._last = perf_counter()
        self._first = self._first or self._last
        await self._keep(self._kernel.tokenizer.encode(text))
        await self.tell(Token(text, -1))

    async def _keep(self, tokens: Sequence[int]) -> None:
        position = len(self.layout.tokens) + len(self._tokens)
        self._tokens += tokens
        await self._kernel.durable(self.process.pid, Sampled(self.turn.number, position, tuple(tokens)))

    def _fitting(self, text: str) -> str:
        """An answer of a schema as our own grammar writes it; AnswerCut where it does not fit."""
        schema = self.asking.schema or {}
        try:
            written = json.dumps(_canonical(from_json(text), schema), ensure_ascii=False)
            self._kernel.grammars.compile(answer_lark(schema)).take(self._kernel.tokenizer.encode(written))
        except (ValueError, GrammarError) as error:
            if self._reason == "length":
                return text  # it was cut off, and whoever asked is told so
            raise AnswerCut(
                f"what {self._name} answered is not of the form that was asked for", why=str(error)[:200],
                do="ask again, or ask for a simpler form",
            ) from None  # fmt: skip
        return written

    async def _take(self, wrote: Wrote) -> None:
        """A call, read by our own grammar. GrammarError: it is none that this process may write."""
        table, name = self._offered, self._names.get(wrote.name, "")
        if table is None or not name:
            raise GrammarError(
                f"{self._name} called {wrote.name[:80]!r}",
                why="that was not granted to this process",
                do="ask again",
            )
        syscall = table.syscalls[name]
        arguments = _canonical(dict(wrote.arguments), syscall.parameters)
        body = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
        encode = self._kernel.tokenizer.encode
        opening, closing = (
            encode(tag) if token is None else [token]
            for tag, token in ((OPEN, table.open), (CLOSE, self._kernel.tokenizer.control_id(CLOSE)))
        )
        tokens = [*opening, *encode(f"\n{body}\n"), *closing]
        try:
            self._kernel.grammars.compile(table.only([syscall]).lark(must_call=True)).take(tokens)
        except GrammarError as error:
            raise GrammarError(
                f"{self._name} wrote a call of {name} that does not fit", why=error.why[:200], do="ask again"
            ) from None
        await self._keep(tokens)
        self._made.append(Invocation(name, arguments))


def _safe(name: str) -> str:
    """A syscall's name as the protocol has them."""
    return re.sub(r"[^\w-]", "__", name)[-64:]


def _given(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages in the protocol's form; each result answers the first call before it that has none yet."""
    given: list[dict[str, Any]] = []
    waiting: list[str] = []
    for at, message in enumerate(messages):
        one: dict[str, Any] = {"role": message.role, "content": message.text}
        if message.calls:
            ids = [f"{at}-{n}" for n in range(len(message.calls))]
            waiting += ids
            one["tool_calls"] = [
                _call(i, _safe(c.syscall), c.arguments) for i, c in zip(ids, message.calls, strict=True)
            ]
        elif message.role == "tool":
            one["tool_call_id"] = waiting.pop(0) if waiting else ""
        given.append(one)
    return given


def _call(number: str, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    written = json.dumps(dict(arguments), ensure_ascii=False)
    return {"id": number, "type": "function", "function": {"name": name, "arguments": written}}


def _canonical(value: Any, schema: Mapping[str, Any]) -> Any:
    """A value as our grammar spells it: keys in the schema's order, whole numbers without a point."""
    if isinstance(value, dict):
        known = schema.get("properties", {})
        names = [*(name for name in known if name in value), *(name for name in value if name not in known)]
        return {name: _canonical(value[name], known.get(name, {})) for name in names}
    if isinstance(value, list):
        items = schema.get("items")
        return [_canonical(one, items if isinstance(items, Mapping) else {}) for one in value]
    if isinstance(value, float) and schema.get("type") == "integer" and value.is_integer():
        return int(value)
    return value
