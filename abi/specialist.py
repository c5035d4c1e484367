"""An expert as a machine takes it: what a process of it is spawned with.

What: the value between whoever knows experts (`llmos.apps.experts`) and whoever spawns them.
Invariant: frozen; its grants are those that somebody has agreed to.
Interface: `Specialist`: `.spawn(kernel, …)`, `.asked(…)`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llmos.abi.mount import Mount

if TYPE_CHECKING:
    from llmos.abi.machine import AnyProcess, Machine
    from llmos.abi.progress import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Specialist:
    """Args:
    name: for `ps`; "" for a process that is nobody in particular.
    grants: of one syscall each.
    quotas: of its process.
    adapter: where the weights lie that its words come from; "" for the model alone.
    options: how its questions are asked, as `Process.ask` has them: temperature, max_tokens, ...
    """

    name: str = ""
    description: str = ""
    instructions: str = ""
    mounts: tuple[Mount, ...] = ()
    grants: tuple[str, ...] = ()
    quotas: Mapping[str, float] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    adapter: str = ""

    def spawn(
        self,
        kernel: Machine,
        *,
        mounts: Iterable[Mount] = (),
        grants: Iterable[str] = (),
        work: str | Path | None = None,
        fidelity: Literal["exact", "blend"] = "exact",
        progress: Progress | None = None,
    ) -> AnyProcess:
        """A process of the expert, with further documents and grants, and the folder, of whoever runs it."""
        return kernel.spawn(
            [*self.mounts, *mounts], grants=[*self.grants, *grants], instructions=self.instructions,
            expert=self.name, quotas=self.quotas, seed=self.options.get("seed", 0), work=work,
            fidelity=fidelity, adapter=self.adapter or None, progress=progress,
        )  # fmt: skip

    def asked(self, **given: Any) -> dict[str, Any]:
        """How a question is asked: as the expert's file says, but for what is given (None is not given)."""
        return {**self.options, **{name: value for name, value in given.items() if value is not None}}
