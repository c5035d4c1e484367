"""How a running call puts questions to the model.

What: passes a question on to whoever called, and stops the call's clock meanwhile.
Invariant: the time that the model thinks is not the app's; several questions at once stop the clock once.
Interface: `Asker(context, clock)`; `await asker(prompt, schema)`. Loop thread only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from llmos.abi.errors import AskRefused
from llmos.kernel.apphost.values import CallContext


class Asker:
    """The questions of one call."""

    def __init__(self, context: CallContext, clock: asyncio.Timeout) -> None:
        self._ask, self._clock = context.on_ask, clock
        self._open, self._left = 0, 0.0

    async def __call__(self, prompt: str, schema: Mapping[str, Any] | None) -> str:
        if self._ask is None:
            raise AskRefused("this call may not ask the model")
        now = asyncio.get_running_loop().time
        self._open += 1
        if self._open == 1:
            self._left = (self._clock.when() or now()) - now()
            self._clock.reschedule(None)
        try:
            return await asyncio.wrap_future(self._ask(prompt, schema))
        finally:
            self._open -= 1
            if self._open == 0:
                with suppress(RuntimeError):  # the call is over
                    self._clock.reschedule(now() + self._left)
