"""Who calls a system app.

What: the context of the methods of `kernel.system` and `kernel.recall`, in the place of an app's `Call`.
Interface: `SystemCall`, `here(call)`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmos.abi.labels import Label

if TYPE_CHECKING:
    from llmos.kernel.process import Process


@dataclass(slots=True)
class SystemCall:
    """Who calls, and under which labels; `read` collects the labels of what a method gives back, `files` the names of
    what it has kept in the caller's working volume."""

    process: Process
    key: str
    label: Label
    read: list[Label] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


def here(call: Any) -> SystemCall:
    """The context that the kernel gave a method of its own app."""
    assert isinstance(call, SystemCall)
    return call
