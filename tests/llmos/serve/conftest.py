"""A scripted kernel behind a real server on a free port."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import openai
import pytest

from llmos.kernel.kernel import Kernel
from llmos.serve.server import Limits, Server, listen
from llmos.testing import scripted_kernel

__all__ = ["scripted_kernel"]

MODEL = "qwen2.5-coder-0.5b"  # the name that the default configuration has


class Gate:
    """Holds the engine before a step: `close`, `open`, and `let(n)` for n steps."""

    def __init__(self, kernel: Kernel) -> None:
        self._open, self._left = True, 0
        self._changed = threading.Condition()
        self.steps = 0
        runner: Any = kernel.runner
        forward = runner.forward

        def gated(batch: Any) -> Any:
            with self._changed:
                self._changed.wait_for(lambda: self._open or self._left > 0)
                self._left = max(self._left - 1, 0)
                self.steps += 1
            return forward(batch)

        runner.forward = gated

    def close(self) -> None:
        with self._changed:
            self._open, self._left = False, 0

    def let(self, steps: int) -> None:
        with self._changed:
            self._left = steps
            self._changed.notify()

    def open(self) -> None:
        with self._changed:
            self._open = True
            self._changed.notify()


@dataclass(frozen=True)
class Served:
    """A server, its kernel, a client, and a gate before the engine's steps."""

    kernel: Kernel
    server: Server
    client: openai.OpenAI
    gate: Gate

    def chat(self, text: str = "hello", **options: Any) -> Any:
        messages = [{"role": "user", "content": text}]
        return self.client.chat.completions.create(model=MODEL, messages=messages, **options)  # type: ignore[call-overload]

    def idle(self) -> bool:
        """No process is left, and the engine holds no sequence."""
        return not self.kernel.ps() and not self.kernel.engine._sequences


Serve = Callable[..., Served]


@pytest.fixture
def serve(scripted_kernel: Callable[..., Kernel]) -> Iterator[Serve]:
    """Makes servers: `serve(script, limits=…, keys=…)`; further keywords go to the runner."""
    with ExitStack() as open_:

        def make(
            script: Callable[[str], str] | str = "Hello there.",
            *,
            limits: Limits | None = None,
            keys: tuple[str, ...] = (),
            **runner: Any,
        ) -> Served:
            kernel = scripted_kernel((lambda _: script) if isinstance(script, str) else script, **runner)
            gate = Gate(kernel)
            server = open_.enter_context(Server(kernel, listen(port=0), keys=keys, limits=limits))
            open_.callback(gate.open)
            client = openai.OpenAI(
                base_url=server.url, api_key=keys[0] if keys else "-", max_retries=0, timeout=30
            )
            open_.enter_context(client)
            return Served(kernel, server, client, gate)

        yield make
