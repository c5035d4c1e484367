"""What a client can ask of processes, its own and others.

Interface: verbs, by their names.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Literal

from llmos.abi import wire
from llmos.abi.errors import ProcessError
from llmos.abi.labels import USER
from llmos.abi.machine import Place, Signal
from llmos.abi.manifest import Syscall
from llmos.abi.progress import Progress
from llmos.kernel.gate.verbs.verb import Labelled, Mounted, accepting, named, told, verb, whole
from llmos.kernel.prompt import Message

if TYPE_CHECKING:
    from llmos.kernel.gate.client import Request
    from llmos.kernel.gate.reading import Reading
    from llmos.kernel.kernel import Kernel
    from llmos.kernel.process import Process
    from llmos.kernel.turn import Turn


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
    accepting(request)

    def make(progress: Progress) -> Process:
        kernel: Kernel = request.kernel
        return kernel.spawn(
            mounts, grants=grants, instructions=instructions, expert=expert, user=user, priority=priority,
            quotas=quotas, seed=seed, fidelity=fidelity, work=work, model=model, adapter=adapter, progress=progress,
        )  # fmt: skip

    process = await told(request, make, undo=lambda made: made.signal("KILL"))
    request.client.own(process)
    return named(process)


@verb
async def process(request: Any, *, pid: int) -> dict[str, Any]:
    """Who has that pid now."""
    return named(request.kernel.process(pid))


@verb
async def fork(request: Any, *, pid: int, count: int = 1) -> list[dict[str, Any]]:
    """Children that know what a process knows."""
    accepting(request)
    children = request.process(pid).fork(count)
    for child in children:
        request.client.own(child)
    return [named(child) for child in children]


@verb
async def mount(request: Any, *, pid: int, mount: Mounted) -> None:
    """Put documents within a process's reach."""
    asked: Process = request.process(pid)
    await told(request, lambda progress: asked.mount(mount, progress))


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
    accepting(request)
    asked: Process = request.process(pid)
    asking = asyncio.ensure_future(
        asked.aask(
            question, messages=messages, tools=tools, tool_choice=tool_choice, max_tokens=max_tokens, seed=seed,
            temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=repetition_penalty,
            stop=stop, raw=raw, schema=schema, think=think, queue=queue, label=label, detached=detached,
        )
    )  # fmt: skip
    turn = await whole(asking, undo=lambda made: None if detached else made.cancel())
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


@verb
async def checkpoint(request: Any, *, pid: int, path: str) -> str:
    """Write a process to a file."""
    return str(await asyncio.to_thread(request.process(pid).checkpoint, path))


@verb
async def resume(request: Any, *, path: str) -> dict[str, Any]:
    """A process from a file; it is nobody's."""
    accepting(request)
    return named(await asyncio.to_thread(request.kernel.resume, path))


async def _stream(request: Request, turn: Turn) -> None:
    reading = request.reading = request.gate.reading(turn)
    async with aclosing(reading.parts(approves=request.client.approves)) as parts:
        await request.part({"turn": turn.number})
        async for part in parts:
            await request.part(part)
