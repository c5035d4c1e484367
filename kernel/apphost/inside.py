"""Pure apps that the owner trusts, in the kernel's own process.

What: calls the app's methods without a process in between.
Invariant: only pure apps get here. A call that does not stop cannot be killed here, so an app that once ran on
    past its end is `stuck`: from then on it runs in a process like all others.
Interface: `Inside(source).call(...)`; `stuck`.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from llmos.abi.app import App, syscalls_of
from llmos.abi.loading import load
from llmos.abi.manifest import Syscall
from llmos.abi.signature import Reply, Signature
from llmos.drivers.mcp.call import RunningCall
from llmos.drivers.mcp.meta import CallMeta

if TYPE_CHECKING:
    from llmos.drivers.mcp.client import OnProgress

GRACE_SECONDS = 1.0  # that a cancelled call may need to notice


class Inside:
    """One app; its instance is made by its first call."""

    def __init__(self, source: str) -> None:
        self.stuck = False
        self._source = source

    @functools.cached_property
    def _app(self) -> App:
        return load(self._source)()

    @functools.cached_property
    def _methods(self) -> dict[str, tuple[Callable[..., Any], Signature]]:
        found = {}
        for method, _ in syscalls_of(type(self._app)):
            signature = Signature.read(self._app.app_name, getattr(type(self._app), method))
            found[signature.name] = (getattr(self._app, method), signature)
        return found

    async def call(
        self,
        syscall: Syscall,
        arguments: Mapping[str, Any],
        meta: CallMeta,
        ask: Callable[[str, str, Mapping[str, Any] | None], Awaitable[str]],
        on_progress: OnProgress | None,
    ) -> Reply:
        """One call; raises AppErrors only, and CancelledError."""
        method, signature = self._methods[syscall.name]

        async def progress(done: float, total: float | None, message: str) -> None:
            if on_progress is not None:
                on_progress(done, total, message)

        call = RunningCall(meta, (), progress, functools.partial(ask, meta.id))
        ended = threading.Event()
        try:
            reply = await signature.invoke(method, arguments, call, ended=ended.set)
            await call.flush()
            return reply
        except asyncio.CancelledError:
            asyncio.get_running_loop().call_later(GRACE_SECONDS, self._look_again, ended)
            raise
        finally:
            call.cancelled = True

    def _look_again(self, ended: threading.Event) -> None:
        self.stuck = self.stuck or not ended.is_set()
