"""The `Call` that a method holds while it runs.

What: carries what a method asks of the kernel to whoever runs it: over the connection as MCP notifications and
    sampling in an app's own process, directly in the kernel's.
Invariant: `progress` never blocks and never floods: at most one notification in 50 ms, the last one always.
    Secrets are in memory only, and only those that the app declared.
Interface: `RunningCall(meta, declared, send_progress, send_ask)` implements `llmos.abi.app.Call`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from llmos.abi.errors import AskRefused, SecretMissing
from llmos.abi.signature import explain
from llmos.drivers.mcp.meta import CallMeta

PROGRESS_SECONDS = 0.05  # between two notifications of one call

SendProgress = Callable[[float, float | None, str], Awaitable[None]]
SendAsk = Callable[[str, Mapping[str, Any] | None], Awaitable[str]]


class RunningCall:
    """One call's context; made on the loop's thread, used from any."""

    def __init__(
        self, meta: CallMeta, declared: Sequence[str], send_progress: SendProgress, send_ask: SendAsk
    ) -> None:
        self.pid, self.expert, self.key = meta.pid, meta.expert, meta.key
        self.volume = Path(meta.volume) if meta.volume else None
        self.label = meta.label
        self.cancelled = False
        self._secrets = {name: value for name, value in meta.secrets.items() if name in declared}
        self._declared = declared
        self._send_progress, self._send_ask = send_progress, send_ask
        self._loop = asyncio.get_running_loop()
        self._news: tuple[float, float | None, str] | None = None
        self._teller: asyncio.Task[None] | None = None

    def secret(self, name: str) -> str:
        """A secret by name; SecretMissing where it was not declared or nobody gave it."""
        if name not in self._declared:
            raise SecretMissing(
                f"the app did not declare the secret {name!r}", do=f"class ...(App, secrets=[{name!r}])"
            )
        if name not in self._secrets:
            raise SecretMissing(f"there is no secret {name!r}", do="give it to the machine under this name")
        return self._secrets[name].get_secret_value()

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Tell how far the call is."""
        self._loop.call_soon_threadsafe(self._tell, (done, total, message))

    def _tell(self, news: tuple[float, float | None, str]) -> None:
        self._news = news
        if self._teller is None or self._teller.done():
            self._teller = self._loop.create_task(self._telling())

    async def _telling(self) -> None:
        while self._news is not None and not self.cancelled:
            news, self._news = self._news, None
            await self._send_progress(*news)
            await asyncio.sleep(PROGRESS_SECONDS)

    async def flush(self) -> None:
        """Send the last news, before the result goes."""
        if self._teller is not None:
            self._teller.cancel()
            await asyncio.wait([self._teller])
        if self._news is not None:
            news, self._news = self._news, None
            await self._send_progress(*news)

    def ask(self, prompt: str, returns: type[Any] = str) -> Any:
        """Put a question to the model and wait; not on the loop's thread."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop:
            raise AskRefused(
                "`call.ask` in an async method would wait for itself", do="`await call.aask(...)`"
            )
        return asyncio.run_coroutine_threadsafe(self.aask(prompt, returns), self._loop).result()

    async def aask(self, prompt: str, returns: type[Any] = str) -> Any:
        """Put a question to the model; AskRefused where it is not answered, or not as asked."""
        if returns is str:
            return await self._send_ask(prompt, None)
        adapter = TypeAdapter(returns)
        answer = await self._send_ask(prompt, adapter.json_schema())
        try:
            return adapter.validate_json(answer)
        except ValidationError as error:
            raise AskRefused("the answer is not what was asked for", why=explain(error)) from None
