"""What a check found, and the report of a whole examination.

What: values, and two short ways to make them.
Interface: `Finding`, `fault(...)`, `advice(...)`, `Report`; `short(value)`, a value as it stands in a finding.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

_SHORT = 160  # characters of a value in a finding


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found: `fault` where the app has to be changed, else advice. `check` is the check's name."""

    syscall: str
    what: str
    do: str
    fault: bool
    check: str = ""

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.syscall, self.what))) + (f" ({self.do})" if self.do else "")


def fault(syscall: str, what: str, do: str) -> Finding:
    """Something that has to be changed, and how."""
    return Finding(syscall, what, do, True)


def advice(syscall: str, what: str, do: str) -> Finding:
    """Something that would be better otherwise."""
    return Finding(syscall, what, do, False)


@dataclass(frozen=True, slots=True)
class Report:
    """What the suite found of an app; `skipped` are syscalls that were not called, for their effect."""

    app: str
    syscalls: tuple[str, ...]
    skipped: tuple[str, ...]
    checks: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def faults(self) -> tuple[Finding, ...]:
        """What has to be changed."""
        return tuple(one for one in self.findings if one.fault)


def short(value: Any) -> str:
    """A value in a few words."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}... ({len(text)} characters)"
