"""Where an MCP server is.

What: the two kinds of servers, as values.
Invariant: importing this imports no `mcp`; printed forms show no environment and no headers (they hold secrets).
Interface: `Stdio`, `Http`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llmos.abi.limits import MAX_APP_BYTES


@dataclass(frozen=True, slots=True)
class Stdio:
    """A server that is a program: `env` is laid over the few variables that every child gets; `memory` is what each of
    its processes may hold, in bytes."""

    program: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    folder: Path | None = None
    memory: int = MAX_APP_BYTES


@dataclass(frozen=True, slots=True)
class Http:
    """A server at a URL; `headers` may hold secrets."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
