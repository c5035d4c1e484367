"""What a client can ask a kernel for.

What: one function a verb; its signature is what may stand in `with`, checked by pydantic.
Invariant: nothing here blocks the loop. A client that goes while something is begun for it does not leave it behind.
Interface: `VERBS`: name -> `verb(request, given)`, which returns the request's value or raises.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, ValidationError, validate_call

from llmos.abi import wire
from llmos.abi.errors import ProcessError, TurnRefused
from llmos.abi.labels import USER, Label, load_label
from llmos.abi.machine import Place, Signal
from llmos.abi.manifest import Syscall
from llmos.abi.mount import Mount
from llmos.abi.progress import Progress, Unit
from llmos.kernel.journal.records import Body, encode
from llmos.kernel.prompt import Message

if TYPE_CHECKING:
    from llmos.kernel.gate.client import Request
    from llmos.kernel.gate.reading import Reading
    from llmos.kernel.kernel import Kernel
    from llmos.kernel.process import Process
    from llmos.kernel.turn import Turn

T = TypeVar("T")
Verb = Callable[["Request", Mapping[str, Any]], Awaitable[Any]]
VERBS: dict[str, Verb] = {}


def _loaded(load: Callable[[Any], T]) -> BeforeValidator:
    def read(told: Any) -> T:
        try:
            return load(told)
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"{told!r:.80} is none") from error

    return BeforeValidator(read)


Labelled = Annotated[Label, _loaded(load_label)]  # a default is not validated
Mounted = Annotated[Mount, _loaded(Mount.load)]

BATCH = 256  # records that are read at once
PROGRESS_S = 0.1  # between two reports
FOLLOW_S = 0.2  # between two looks at the end of the journal


def verb(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Make a function a verb."""
    checked = validate_call(config={"arbitrary_types_allowed": True, "extra": "forbid"})(function)
    name = function.__name__.rstrip("_")

    async def call(request: Request, given: Mapping[str, Any]) -> Any:
        try:
            return await checked(request, **given)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise ProcessError(f"{name} was asked for wrongly: {where}: {first['msg']}") from None

    VERBS[name] = call
    return function


# -- processes ---------------------------------------------------------------------------------------------------


@verb
async def spawn(
    request: Any,
    *,
    mounts: tuple[Mounted, ...] = (),
    grants: tuple[str, ...] = (),
    instructions: str = "",
    expert: str = "",
    user: str = "",
    priority: str = "interactive",
    quotas: dict[str, float] | None = None,
    seed: int = 0,
    fidelity: Literal["exact", "blend"] = "exact",
    work: str | None = None,
    model: str = "",
    adapter: str | None = None,
) -> dict[str, Any]:
    """A new process, which is this client's."""
    _open(request)

    def make(progress: Progress) -> Process:
        kernel: Kernel = request.kernel
        return kernel.spawn(
            mounts, grants=grants, instructions=instructions, expert=expert, user=user, priority=priority,
            quotas=quotas, seed=seed, fidelity=fidelity, work=work, model=model, adapter=adapter, progress=progress,
        )  # fmt: skip

    process = await _told(request, make, undo=lambda made: made.signal("KILL"))
    request.client.own(process)
    return _named(process)


@verb
async def process(request: Any, *, pid: int) -> dict[str, Any]:
    """Who has that pid now."""
    return _named(request.kernel.process(pid))


@verb
async def fork(request: Any, *, pid: int, count: int = 1) -> list[dict[str, Any]]:
    """Children that know what a process knows."""
    _open(request)
    children = request.process(pid).fork(count)
    for child in children:
        request.client.own(child)
    return [_named(child) for child in children]


@verb
async def mount(request: Any, *, pid: int, mount: Mounted) -> None:
    """Put documents within a process's reach."""
    asked: Process = request.process(pid)
    await _told(request, lambda progress: asked.mount(mount, progress))


@verb
async def unmount(request: Any, *, pid: int, path: str) -> None:
    """Take documents out of a process's reach."""
    request.process(pid).unmount(path)


@verb
async def grant(request: Any, *, pid: int, grants: tuple[str, ...]) -> None:
    """Change what a process may call."""
    await asyncio.to_thread(request.process(pid).grant, grants)


@verb
async def place(request: Any, *, pid: int, reference: str, place: Place) -> None:
    """Say where something stands that a process can read."""
    await asyncio.to_thread(request.process(pid).place, reference, place)


@verb
async def keep(request: Any, *, pid: int) -> None:
    """A process does not end with this client."""
    request.process(pid)
    request.client.release(pid)


@verb
async def expect(request: Any, *, pid: int, question: str = "") -> None:
    """What may be asked next."""
    await asyncio.to_thread(request.process(pid).expect, question)


@verb
async def holdings(request: Any, *, pid: int) -> Any:
    """What a process was given."""
    held = request.process(pid).holdings()
    return {
        "grants": list(held.grants), "mounts": [mount.dump() for mount in held.mounts], "work": held.work,
        "placed": dict(held.placed), "turn": held.turn,
    }  # fmt: skip


@verb
async def withdraw(request: Any, *, pid: int, syscall: str = "") -> None:
    """Take back what has been approved."""
    request.process(pid).withdraw(syscall)


@verb
async def forget(request: Any, *, pid: int, since: int = 0) -> None:
    """Empty its conversation, from a turn on."""
    request.process(pid).forget(since)


@verb
async def conversation(request: Any, *, pid: int) -> list[Any]:
    """What it has been asked and has answered."""
    return [wire.dump(exchange) for exchange in request.process(pid).conversation]


@verb
async def send(
    request: Any, *, pid: int, to: int, content: Any, label: Labelled = USER, timeout: float | None = None
) -> None:
    """Mail from one process to another."""
    await request.process(pid).asend(to, content, label, timeout)


@verb
async def receive(request: Any, *, pid: int, timeout: float | None = None) -> Any:
    """The oldest letter in a process's box."""
    return wire.dump(await request.process(pid).areceive(timeout))


@verb
async def signal(request: Any, *, pid: int, signal: Signal, sender: int = 0) -> None:
    """Signal a process."""
    request.process(pid).signal(signal, sender)


@verb
async def wait(request: Any, *, pid: int, timeout: float | None = None) -> Any:
    """How a process ended, when it has."""
    try:
        end = await request.process(pid).await_(timeout)
    except TimeoutError:
        raise TimeoutError(f"process {pid} has not ended after {timeout} s") from None
    return wire.dump(end)


@verb
async def feedback(
    request: Any,
    *,
    pid: int,
    verdict: Literal["correct", "prefer", "good", "bad"],
    turn: int,
    text: str | None = None,
    over: int | None = None,
    of: int = 0,
) -> None:
    """What the user thought of a turn."""
    asked: Process = request.process(pid)
    more = [value for value in (text, over) if value is not None]
    right = len(more) == (verdict in ("correct", "prefer")) and (verdict == "correct") == (text is not None)
    if not right or (of and verdict != "prefer"):
        raise ProcessError(
            f"feedback {verdict!r} was asked for wrongly", do="`correct` has a text, `prefer` over"
        )
    await asyncio.to_thread(getattr(asked, verdict), turn, *more, *((of,) if of else ()))


# -- turns -------------------------------------------------------------------------------------------------------


@verb
async def ask(
    request: Any,
    *,
    pid: int,
    question: str = "",
    messages: tuple[Message, ...] | None = None,
    tools: tuple[Syscall, ...] = (),
    tool_choice: str = "auto",
    max_tokens: int | None = None,
    seed: int | None = None,
    temperature: float | None = None,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    stop: tuple[str, ...] = (),
    raw: bool = False,
    schema: dict[str, Any] | None = None,
    think: dict[str, Any] | str | int | None = None,
    queue: bool = False,
    label: Labelled = USER,
    detached: bool = False,
) -> None:
    """A turn: its number, then its events."""
    _open(request)
    asked: Process = request.process(pid)
    asking = asyncio.ensure_future(
        asked.aask(
            question, messages=messages, tools=tools, tool_choice=tool_choice, max_tokens=max_tokens, seed=seed,
            temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=repetition_penalty,
            stop=stop, raw=raw, schema=schema, think=think, queue=queue, label=label, detached=detached,
        )
    )  # fmt: skip
    turn = await _whole(asking, undo=lambda made: None if detached else made.cancel())
    if detached:
        request.client.release(pid)
    await _stream(request, turn)


@verb
async def follow(request: Any, *, pid: int) -> None:
    """The turn that a process is at, from its beginning; no part where it is at none."""
    turn = request.process(pid).current
    if turn is not None:
        await _stream(request, turn)


@verb
async def cancel(request: Any, *, pid: int, turn: int) -> None:
    """Stop a turn; what was written so far becomes its answer."""
    reading: Reading | None = request.gate.readings.get((pid, turn))
    if reading is not None:
        reading.turn.cancel()


async def _stream(request: Request, turn: Turn) -> None:
    reading = request.reading = request.gate.reading(turn)
    async with aclosing(reading.parts(approves=request.client.approves)) as parts:
        await request.part({"turn": turn.number})
        async for part in parts:
            await request.part(part)


# -- the machine -------------------------------------------------------------------------------------------------


@verb
async def ps(request: Any) -> list[Any]:
    """Every process."""
    return [wire.dump(stat) for stat in request.kernel.ps()]


@verb
async def stat(request: Any, *, pid: int) -> Any:
    """One process."""
    return wire.dump(request.process(pid).stat())


@verb
async def top(request: Any) -> Any:
    """The whole machine at this moment."""
    return wire.dump(request.kernel.top())


@verb
async def pmap(request: Any, *, pid: int, look: bool = False) -> list[Any]:
    """What stands in a process's window."""
    request.process(pid)
    return [wire.dump(region) for region in await asyncio.to_thread(request.kernel.pmap, pid, look=look)]


@verb
async def fill(request: Any, *, pid: int, budget: int, look: bool = False) -> Any:
    """Compute ahead of need what a process's windows are put together of."""
    request.process(pid)
    fill = partial(request.kernel.fill, pid, budget, look=look)
    return wire.dump(await _told(request, lambda progress: fill(progress=progress)))


@verb
async def adapters(request: Any) -> list[Any]:
    """The adapters that are kept here, and who runs with them."""
    return [wire.dump(stat) for stat in await asyncio.to_thread(request.kernel.adapters.list)]


@verb
async def adapt(request: Any, *, target: int | str, path: str | None) -> str:
    """Have a process or an expert run with an adapter; its version."""
    version: str = await asyncio.to_thread(request.kernel.adapters.use, target, path)
    return version


@verb
async def unadapt(request: Any, *, target: int | str) -> str:
    """Have a process or an expert go back to what it ran with before; the version of that."""
    version: str = await asyncio.to_thread(request.kernel.adapters.back, target)
    return version


@verb
async def next_distribution(request: Any, *, text: str, k: int = 10, pid: int = 0) -> list[Any]:
    """What the model thinks comes next."""
    return await asyncio.to_thread(request.kernel.next_distribution, text, k, pid)


@verb
async def passed(request: Any, *, pid: int) -> list[Any]:
    """A process's last turn as it passed."""
    return [wire.dump(one) for one in await asyncio.to_thread(request.kernel.passed, pid)]


@verb
async def why(request: Any, *, pid: int, call: bool = False) -> Any:
    """What its last answer or call stood on."""
    return wire.dump(
        await _told(request, lambda progress: request.kernel.why(pid, call=call, progress=progress))
    )


@verb
async def syscalls(request: Any) -> list[Any]:
    """Every syscall of the machine."""
    found = await asyncio.to_thread(lambda: request.kernel.syscalls)
    return [syscall.model_dump(mode="json") for syscall in found.values()]


@verb
async def replay(request: Any, *, pid: int) -> Any:
    """Run a process again from the journal."""
    return wire.dump(await asyncio.to_thread(request.kernel.replay, pid))


@verb
async def checkpoint(request: Any, *, pid: int, path: str) -> str:
    """Write a process to a file."""
    return str(await asyncio.to_thread(request.process(pid).checkpoint, path))


@verb
async def resume(request: Any, *, path: str) -> dict[str, Any]:
    """A process from a file; it is nobody's."""
    _open(request)
    return _named(await asyncio.to_thread(request.kernel.resume, path))


@verb
async def journal(request: Any, *, pid: int | None = None, after: int = 0, follow: bool = False) -> None:
    """Records, one a part; with `follow` also those to come."""
    source = request.kernel.journal
    only = None if follow else pid  # who follows reads on behind every record: none is looked at twice

    def some() -> list[Any]:
        return list(islice(source.records(only, after=after), BATCH))

    while True:
        records = await asyncio.to_thread(some)
        for record in records:
            after = record.seq
            if pid is None or record.pid == pid:
                await request.part([record.seq, record.time, record.pid, *_body(record.body)])
        if not records:
            if not follow:
                return
            await asyncio.sleep(FOLLOW_S)


@verb
async def shutdown(request: Any, *, now: bool = False) -> None:
    """Stop the kernel: when the turns under way are answered, or now."""
    await request.gate.drain(now)


# -- helpers -----------------------------------------------------------------------------------------------------


def _open(request: Request) -> None:
    if request.gate.draining:
        raise TurnRefused(
            "the kernel is going down", why="it finishes what is under way", do="start it again: `llmos up`"
        )


def _named(process: Process) -> dict[str, Any]:
    return {
        "pid": process.pid,
        "parent": process.parent,
        "expert": process.expert,
        "window": process.view.size,
    }


def _body(body: Body) -> tuple[str, Any]:
    kind, blob = encode(body)
    return kind, json.loads(blob)


async def _whole(work: asyncio.Future[T], undo: Callable[[T], object]) -> T:
    """What `work` comes to. Where nobody waits for it any more, it is undone."""

    def ended(work: asyncio.Future[T]) -> None:
        if not work.cancelled() and work.exception() is None:
            undo(work.result())

    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        work.add_done_callback(ended)
        raise


async def _told(
    request: Request, work: Callable[[Progress], T], undo: Callable[[T], object] = lambda _: None
) -> T:
    """Run slow work on a thread, and tell the client how far it is."""
    at: list[tuple[str, int, int, Unit]] = []

    def progress(task: str, done: int, total: int, unit: Unit = "items", /) -> None:
        at[:] = [(task, done, total, unit)]

    async def tell() -> None:
        told: object = None
        while True:
            await asyncio.sleep(PROGRESS_S)
            if at and at[0] != told:
                told = at[0]
                await request.part({"progress": told})

    doing, telling = asyncio.ensure_future(asyncio.to_thread(work, progress)), asyncio.ensure_future(tell())
    try:
        return await _whole(doing, undo)
    finally:
        telling.cancel()
