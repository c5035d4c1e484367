"""Where an MCP server is.

What: the two kinds of servers, as values.
Invariant: importing this imports no `mcp`; printed forms show no environment and no headers (they hold secrets).
Interface: `Stdio`, `Http`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Stdio:
    """A server that is a program: `env` is laid over the few variables that every child gets."""

    program: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class Http:
    """A server at a URL; `headers` may hold secrets."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
