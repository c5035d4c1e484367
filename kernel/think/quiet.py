"""Calls that a verifier makes while a turn thinks: they calculate or read, and leave no trace.

What: `quietly` has the monitor judge a call, makes it, and says what it came to.
Invariant: only syscalls of effect `none` or `read`, by a grant for that one call. Nothing of it is journalled: what is
    thought leaves no trace but the answer.
Interface: `quietly(turn, name, arguments) -> (value, label)`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmos.abi.errors import CallDenied
from llmos.abi.labels import Label, join
from llmos.kernel.grants import Grant
from llmos.kernel.journal.records import Intent
from llmos.kernel.monitor import Attempt

if TYPE_CHECKING:
    from llmos.kernel.think.execution import Thinking

QUIET = frozenset({"none", "read"})  # effects of what may be called while thinking


async def quietly(turn: Thinking, name: str, arguments: Mapping[str, Any]) -> tuple[Any, Label | None]:
    """What a syscall comes to, and its label; None where it fails, and for both where there is none of that name.

    Raises:
        CallDenied: it does more than calculate or read, or the monitor does not allow it.
    """
    process, kernel = turn.process, turn.process.kernel
    syscall = (await asyncio.to_thread(lambda: kernel.syscalls)).get(name)
    if syscall is None:
        return None, None
    if syscall.effect not in QUIET:
        raise CallDenied(
            f"{name} was not called while thinking", why=f"its effect is {syscall.effect}",
            do="have the process call it, which is done once",
        )  # fmt: skip
    labels = dict.fromkeys(arguments, turn.layout.taint)
    await process.trap.judge(turn, Attempt(syscall, arguments, labels), 0, (Grant(name),))
    key = f"{kernel.machine_id}-{process.pid}-{turn.turn.number}-thinking"
    intent = Intent(turn.turn.number, 0, name, dict(arguments), key, syscall.retry, labels)
    outcome = await kernel.apps.call(process, syscall, intent)
    return None if outcome.error is not None else outcome.value, join([syscall.label, outcome.label])
