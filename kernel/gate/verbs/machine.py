"""What a client can ask of the whole machine: what there is, what it does, what it did.

Interface: verbs, by their names.
"""

from __future__ import annotations

import asyncio
import json
from functools import partial
from itertools import islice
from typing import Any

from llmos.abi import wire
from llmos.kernel.gate.verbs.verb import told, verb
from llmos.kernel.journal.records import Body, encode

BATCH = 256  # records that are read at once
FOLLOW_S = 0.2  # between two looks at the end of the journal


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
    return wire.dump(await told(request, lambda progress: fill(progress=progress)))


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
        await told(request, lambda progress: request.kernel.why(pid, call=call, progress=progress))
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


def _body(body: Body) -> tuple[str, Any]:
    kind, blob = encode(body)
    return kind, json.loads(blob)
