"""One connection to a kernel: requests side by side, each with its answer.

What: writes requests, and a thread that reads what comes back and hands it to whoever waits.
Invariant: every request ends: with its value, with an error, or because the kernel has gone. Who does not take the
    parts of one stream holds up that stream alone.
Interface: `Connection.open(path, approves)`, `hello`, `call(verb, **given)`, `stream(verb, take, **given) -> Stream`,
    `gone` (wait for the kernel's end), `close`.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmos.abi import wire
from llmos.abi.errors import ConfigError, EngineError, LLMOSError
from llmos.abi.wire import VERSION, Frame

STEP = 64  # parts that are taken before the kernel is told that there is room for more
HELLO_S = 10.0
_CHUNK = 1 << 16

Take = Callable[[Frame], None]
"""Given every frame of a request, on the connection's thread; must not block. The last has `value` or `error`."""


class Connection:
    """Made by `open`. Any thread may call any method."""

    def __init__(self, connected: socket.socket, hello: Frame, rest: bytes) -> None:
        self.hello = hello
        self._socket = connected
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Take] = {}
        self._lock, self._sending = threading.Lock(), threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._read, args=(rest,), name="llmos-attach", daemon=True)
        self._thread.start()

    @classmethod
    def open(cls, path: Path, *, approves: bool = False) -> Connection | None:
        """A connection to the kernel that listens there; None where none does.

        Raises:
            ProcessError: it belongs to another user.
            ConfigError: it speaks another version.
        """
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            try:
                with wire.address(path) as address:
                    connected.settimeout(HELLO_S)
                    connected.connect(address)
            except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
                connected.close()
                return None
            wire.check_peer(connected)
            with contextlib.suppress(OSError):  # it has said why it does not listen
                connected.sendall(wire.pack({"llmos": VERSION, "approves": approves}))
            try:
                line, rest = _line(connected)
            except EngineError:  # it ended as we came: nobody listens there
                connected.close()
                return None
            hello = wire.unpack(line)
            if "error" in hello:
                raise wire.load_error(hello["error"])
            if hello.get("llmos") != VERSION:
                raise ConfigError(
                    "the running kernel is of another version of llmos",
                    do="use one version for both: `llmos down`, then `llmos up`",
                )
            connected.settimeout(None)
        except TimeoutError:
            connected.close()
            raise EngineError(
                f"the kernel at {path} does not answer",
                do="look at `llmos logs`, or end it: `llmos down --now`",
            ) from None
        except BaseException:
            connected.close()
            raise
        return cls(connected, hello, rest)

    def call(self, verb: str, **given: Any) -> Any:
        """What the kernel answers; parts of the answer are left out.

        Raises:
            LLMOSError: what the kernel raised, or EngineError where it has gone.
        """
        return self.collect(verb, lambda _: None, **given)

    def collect(self, verb: str, take: Callable[[Any], None], **given: Any) -> Any:
        """As `call`, with every part given to `take` on this thread."""
        frames: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        number = self.begin(verb, frames.put, given)
        taken = 0
        try:
            while "part" in (frame := frames.get()):
                take(frame["part"])
                taken += 1
                if taken % STEP == 0:
                    self.send({"id": number, "more": STEP})
        except BaseException:  # who was interrupted does not wait for it any more
            self.leave(number)
            raise
        if "error" in frame:
            raise wire.load_error(frame["error"])
        return frame.get("value")

    def begin(self, verb: str, take: Take, given: dict[str, Any]) -> int:
        """Send a request whose frames go to `take`; its number."""
        with self._lock:
            if self._closed:
                raise _gone()
            number = next(self._numbers)
            self._waiting[number] = take
        try:
            self.send({"id": number, "verb": verb, "with": given})
        except BaseException:
            self._waiting.pop(number, None)
            raise
        return number

    def send(self, frame: Frame) -> None:
        """Hand a frame over. EngineError: the kernel has gone, or the frame is too large."""
        line = wire.pack(frame)
        try:
            with self._sending:
                self._socket.sendall(line)
        except OSError:
            raise _gone() from None

    def leave(self, number: int) -> None:
        """Nobody waits for that request any more."""
        if self._waiting.pop(number, None) is not None:
            with contextlib.suppress(LLMOSError):
                self.send({"id": number, "leave": True})

    def gone(self, timeout: float | None = None) -> bool:
        """Wait until the kernel has closed the connection; whether it has."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def close(self) -> None:
        """Let go. Idempotent; requests that are under way end with an error."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _read(self, rest: bytes) -> None:
        """The connection's thread."""
        error: Exception = _gone()
        try:
            while True:
                line, rest = _line(self._socket, rest)
                frame = wire.unpack(line)
                number = frame.get("id")
                if number is None:
                    error = wire.load_error(frame.get("error", {}))
                    break
                last = "value" in frame or "error" in frame
                take = self._waiting.pop(number, None) if last else self._waiting.get(number)
                if take is not None:
                    take(frame)
        except (OSError, LLMOSError):
            pass
        with self._lock:
            self._closed = True
            waiting, self._waiting = self._waiting, {}
        for take in waiting.values():
            take({"error": wire.dump_error(error)})
        self._socket.close()


def _line(connected: socket.socket, rest: bytes = b"") -> tuple[bytes, bytes]:
    """The next line, given what was received already, and what was received behind it."""
    pieces = [rest]
    size = len(rest)
    while b"\n" not in pieces[-1]:
        try:
            piece = connected.recv(_CHUNK)
        except ConnectionError:
            raise _gone() from None
        size += len(piece)
        if not piece or size > wire.MAX_FRAME_BYTES + _CHUNK:
            raise _gone()
        pieces.append(piece)
    line, _, rest = b"".join(pieces).partition(b"\n")
    return line, rest


def _gone() -> EngineError:
    return EngineError(
        "the kernel has gone", why="its end of the socket is closed",
        do="look at `llmos logs`; `llmos up` starts it again, and its processes go on",
    )  # fmt: skip
