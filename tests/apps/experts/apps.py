"""Syscalls of a machine, as experts meet them; a grown machine is another `machine`."""

from __future__ import annotations

from typing import Annotated

from llmos.abi.app import App, Call, Effect, Target, syscall
from llmos.abi.manifest import Manifest, Syscall


class Counter(App):
    """Counts."""

    @syscall(effect="none", retry="safe")
    def add(self, a: int, b: int) -> int:
        """The sum of two numbers."""
        return a + b


class Desk(App):
    """Papers on a desk; every call is written down."""

    @syscall(effect="read", retry="safe", returns="user")
    def read(self, path: Annotated[str, Target]) -> str:
        """Read a paper."""
        return f"the paper {path}"

    @syscall(effect="write")
    def write(self, path: Annotated[str, Target], text: str, call: Call) -> str:
        """Write a paper."""
        assert call.volume is not None
        (call.volume / "written").write_text(f"{path}: {text}")
        return "written"


def machine(*, effect: Effect = "read", more: bool = False) -> dict[str, Syscall]:
    """The syscalls of both; `effect` is of `desk.read`, `more` adds `desk.burn`."""
    found = {s.name: s for app in (Counter, Desk) for s in Manifest.of(app).syscalls}
    found["desk.read"] = found["desk.read"].model_copy(update={"effect": effect})
    if more:
        found["desk.burn"] = found["desk.read"].model_copy(update={"name": "desk.burn", "effect": "destroy"})
    return found
