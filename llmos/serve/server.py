"""The server: a socket, and uvicorn on the kernel's loop.

What: listens, serves, stops.
Invariant: without a key it listens on this machine alone. When it has stopped, nothing of it runs and the port is free.
Interface: `listen(host, port, keyed=…) -> socket`; `Server(kernel, socket, keys=…, limits=…)`, a context manager:
    `.url`, `.model`, `.wait()`, `.stop()`, `.close()`; `Limits`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import socket
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING

import uvicorn

from llmos.abi.errors import ConfigError
from llmos.serve.gate import Keys, is_loopback
from llmos.serve.service import Limits, Service

if TYPE_CHECKING:
    from llmos.kernel.kernel import Kernel

__all__ = ["HOST", "PORT", "Limits", "Server", "listen"]

HOST, PORT = "127.0.0.1", 8080
_BACKLOG = 256  # connections that wait to be taken
_PATIENCE = 2  # seconds for connections to end before they are cut


class Server:
    """Serves a kernel from the moment it is made. Any thread but the kernel's loop."""

    def __init__(
        self,
        kernel: Kernel,
        listening: socket.socket,
        *,
        keys: Iterable[str] = (),
        limits: Limits | None = None,
    ) -> None:
        """
        Args:
            listening: what `listen` gave; it is the server's from now on.
            keys: one of them must come with each request; without any, only this machine may ask.

        Raises:
            ConfigError: the address must not be served without a key; a key that is too short.
        """
        address, self.port = listening.getsockname()[:2]
        doors = Keys(keys)
        _check(address, bool(doors))
        self.url = f"http://{f'[{address}]' if ':' in address else address}:{self.port}/v1"
        self._socket = listening
        self._kernel = kernel
        self._service = Service(kernel, doors, limits or Limits())
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._service.application, http="h11", ws="none", lifespan="off", interface="asgi3",
                log_config=None, log_level="critical", access_log=False, proxy_headers=False, server_header=False,
                backlog=_BACKLOG, timeout_graceful_shutdown=_PATIENCE,
            )
        )  # fmt: skip
        self._serving: concurrent.futures.Future[None] = kernel.loop.start(self._serve())

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def model(self) -> str:
        """What clients call the model."""
        return self._service.model

    def wait(self) -> None:
        """Wait until the server has stopped; raises what stopped it."""
        self._serving.result()

    def stop(self) -> None:
        """Take no more requests, end those that are being answered. Does not wait; from any thread or signal."""
        self._server.should_exit = True
        self._kernel.loop.call(self._service.stop)

    def close(self) -> None:
        """Stop, and wait for it. Idempotent."""
        self.stop()
        concurrent.futures.wait([self._serving])

    async def _serve(self) -> None:
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            self._socket.close()
            await asyncio.sleep(0)  # connections that were cut are told so


def listen(host: str = HOST, port: int = PORT, *, keyed: bool = False) -> socket.socket:
    """A socket that is bound there; port 0 takes a free one.

    Raises:
        ConfigError: there is no such address, it is taken, or it must not be served without a key.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as e:
        raise ConfigError(f"{host!r} is no address of this machine", why=str(e), do="check --host") from None
    family, kind, protocol, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    _check(str(address[0]), keyed)
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as e:
        listening.close()
        raise ConfigError(
            f"cannot listen on {host}:{port}", why=(e.strerror or str(e)).lower(), do="choose another --port"
        ) from None
    listening.setblocking(False)
    return listening


def _check(address: str, keyed: bool) -> None:
    if not keyed and not is_loopback(address):
        raise ConfigError(
            f"nobody may be served on {address} without a key",
            why="everybody who reaches that address could use this machine",
            do="give a --key-file, or listen on 127.0.0.1",
        )
