"""How a kernel and its clients speak through a socket: one JSON object a line.

What: frames, and how errors and events travel in them; where the socket lies and who may be at its other end.
Invariant: a frame has at most `MAX_FRAME_BYTES`. Errors and events come out as the classes that went in. Nothing is
    ever executed or unpickled. Both ends belong to one user (or to root): the kernel's word decides, not the
    client's.
Interface: `VERSION`, `socket_path(state)`, `address(path)`, `check_peer(socket)`; `pack`, `unpack`; `dump_error`,
    `load_error`; `dump`, `load` for events and other values.

    client -> kernel   {"llmos": 1, "approves": true}               first; the answer is {"llmos": 1, ...} or an error
                       {"id": 7, "verb": "ask", "with": {...}}      a request
                       {"id": 7, "more": 64}                        so many more parts of a stream may come
                       {"id": 7, "call": 3, "argument": "to", "allowed": true}    what an `Ask` was answered
                       {"id": 7, "leave": true}                     nobody waits for this request any more
    kernel -> client   {"id": 7, "part": ...}                       of a stream: events, progress, records
                       {"id": 7, "value": ...}                      the end of a request
                       {"id": 7, "error": {...}}                    its other end
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from llmos.abi import errors, events
from llmos.abi.errors import EngineError, LLMOSError, ProcessError

VERSION = 1
MAX_FRAME_BYTES = (
    32 << 20
)  # a result that an event carries whole is smaller; the journal's largest records are not
UNREAD = 256  # parts of a stream that may be under way before the reader has taken some
_LONGEST = 100  # bytes of a path that a socket's address holds: 108 with its end

Frame = dict[str, Any]


def socket_path(state: Path) -> Path:
    """Where the kernel of the machine with that state listens."""
    return state / "kernel" / "socket"


@contextlib.contextmanager
def address(path: Path) -> Iterator[str]:
    """The path as a socket takes it, however long it is."""
    if len(os.fsencode(path)) <= _LONGEST:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def check_peer(connection: socket.socket) -> int:
    """The process id at the other end, which belongs to this user or to root.

    Raises:
        ProcessError: it belongs to somebody else.
    """
    size = struct.calcsize("3i")
    pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    if uid not in (os.geteuid(), 0):
        raise ProcessError(
            "the other end of the kernel's socket belongs to another user",
            why=f"its user id is {uid}, this one's {os.geteuid()}",
            do="run a kernel of your own: `llmos up` with LLMOS_STATE in a folder of yours",
        )
    return int(pid)


def pack(frame: Frame) -> bytes:
    """The frame as a line.

    Raises:
        EngineError: it is too large.
    """
    line = (
        json.dumps(frame, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass") + b"\n"
    )
    if len(line) > MAX_FRAME_BYTES:
        raise EngineError(
            f"a message of {len(line):,} bytes is too large for the kernel's socket",
            why=f"the limit is {MAX_FRAME_BYTES:,}",
            do="mount large texts, and read large records from the journal itself",
        )
    return line


def unpack(line: bytes) -> Frame:
    """The frame that a line holds.

    Raises:
        EngineError: it is no JSON object.
    """
    try:
        frame = json.loads(line.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise EngineError("a message is not JSON", why=str(error)[:200]) from None
    if not isinstance(frame, dict):
        raise EngineError("a message is not a JSON object", why=f"it is a {type(frame).__name__}")
    return frame


# -- errors ------------------------------------------------------------------------------------------------------

_OURS = {"what", "why", "do"}


def dump_error(error: BaseException) -> Frame:
    """An error as it travels; what is none of ours is told as a fault of the kernel."""
    if isinstance(error, TimeoutError):
        return {"type": "TimeoutError", "what": str(error)}
    if not isinstance(error, LLMOSError):
        why = f"{type(error).__name__}: {error}"[:500]
        error = EngineError(
            "the kernel failed at this request", why=why, do="look at `llmos logs`, report it"
        )
    more = {k: v for k, v in vars(error).items() if k not in _OURS and isinstance(v, (str, int))}
    return {"type": type(error).__name__, "what": error.what, "why": error.why, "do": error.do, "more": more}


def load_error(told: Frame) -> Exception:
    """The same error at the other end; of a type that this version does not know: its root."""
    what = str(told.get("what", ""))
    if told.get("type") == "TimeoutError":
        return TimeoutError(what)
    kind = getattr(errors, str(told.get("type")), None)
    if not (isinstance(kind, type) and issubclass(kind, LLMOSError)):
        kind = LLMOSError
    error = kind.__new__(kind)
    LLMOSError.__init__(error, what, why=str(told.get("why", "")), do=str(told.get("do", "")))
    more = told.get("more")
    for name, value in more.items() if isinstance(more, dict) else ():
        setattr(error, name, value)
    return error


# -- values ------------------------------------------------------------------------------------------------------


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def dump(value: Any) -> Any:
    """A dataclass of ours as JSON."""
    return _adapter(value.__class__).dump_python(value, mode="json")


def load(kind: Any, told: Any) -> Any:
    """What `dump` was given.

    Raises:
        EngineError: it does not fit.
    """
    try:
        return _adapter(kind).validate_python(told)
    except ValidationError as error:
        name = getattr(kind, "__name__", kind)
        raise EngineError(f"a message holds no {name}", why=str(error.errors()[0]["msg"])) from None


def dump_event(event: events.Event) -> list[Any]:
    """An event, by its name and its fields; words go the short way, for there are many."""
    if isinstance(event, events.Token):
        return ["Token", event.text, event.id, event.logprob]
    return [type(event).__name__, dump(event)]


def load_event(told: list[Any]) -> events.Event:
    """What `dump_event` was given. EngineError: there is no such event."""
    name, *rest = told
    if name == "Token":
        return events.Token(*rest)
    kind = getattr(events, str(name), None)
    if kind is None:
        raise EngineError(f"a message holds an event {name!r}, which this version does not know")
    event: events.Event = load(kind, rest[0])
    return event
