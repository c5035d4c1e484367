"""What goes into a call of an app, and what comes out.

What: frozen values between kernel and app host.
Invariant: no printed form shows a secret.
Interface: the dataclasses below. Times are seconds, memory is bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from llmos.abi.app import Image, Part, Text, check_app_name
from llmos.abi.errors import AppError
from llmos.abi.labels import UNTRUSTED, USER, Label
from llmos.drivers.mcp.source import Http, Stdio

Ask = Callable[[str, Mapping[str, Any] | None], "Future[str]"]
"""(prompt, JSON schema of the answer or None) -> the answer, which fits the schema. Must not block; the future
fails with AskRefused where the caller may not ask."""

State = Literal["new", "starting", "ready", "waiting", "stopped"]


@dataclass(frozen=True, slots=True)
class Ours:
    """An app of ours: the name of its entry point, or `module:Class`."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One app of the machine.

    Attributes:
        name: what processes call it by; for an app of ours, its own name.
        source: one of ours, a program that speaks MCP, or a URL.
        effects: for a foreign server, glob over its tools -> effect or `Overlay`, the owner's word.
        doc: for a foreign server, what it is for.
        stateful: for a foreign server, whether every agent gets one of its own.
        inside: for a pure app of ours, whether it may run in the kernel's process.
        settings: for an app of ours, what the owner says to it (`llmos.abi.settings`).
        max_memory: bytes that each of its processes may hold; 0 for what it says itself, or else most may.
    """

    name: str
    source: Ours | Stdio | Http
    effects: Mapping[str, str | Mapping[str, Any]] = field(default_factory=dict)
    doc: str = ""
    stateful: bool = False
    inside: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    max_memory: int = 0

    def __post_init__(self) -> None:
        check_app_name(self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallContext:
    """Who calls. `label` is the join of what the arguments were made from; `secrets` may hold more than the app
    declared, it gets no other; `deadline` replaces the syscall's own."""

    pid: int
    key: str
    label: Label = USER
    expert: str = ""
    volume: Path | None = None
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    deadline: float | None = None
    on_progress: Callable[[float, float | None, str], None] | None = None
    on_ask: Ask | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a call ended: with a value, with parts, or with a typed error. `absent`: asked about a key that never
    took effect. `label` is the join of what the app returns and what the arguments were made from."""

    syscall: str
    label: Label = UNTRUSTED
    value: Any = None
    parts: tuple[Part, ...] = ()
    error: AppError | None = None
    absent: bool = False
    seconds: float = 0.0

    @property
    def text(self) -> str:
        """What there is to read; pictures and files by name and size."""
        if self.error is not None:
            return f"{type(self.error).__name__}: {self.error}"
        if self.parts:
            return "\n".join(map(_words, self.parts))
        return self.value if isinstance(self.value, str) else json.dumps(self.value, ensure_ascii=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AppProcess:
    """One line of `ps`: `agent` is the pid that it belongs to, 0 for all; `os_pid` is 0 where none runs."""

    name: str  # "[browser]"
    agent: int
    os_pid: int
    state: State
    calls: int  # that it has taken
    active: int  # that it works on now
    restarts: int
    memory: int
    words: str  # the last that it wrote to stderr


def _words(part: Part) -> str:
    if isinstance(part, Text):
        return part.text
    name = "image" if isinstance(part, Image) else f"file {part.name}"
    return f"[{name}, {part.mime}, {len(part.data)} bytes]"
