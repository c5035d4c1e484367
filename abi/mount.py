"""A mount: a file or folder of documents, and whose words it holds.

What: the value that programs, the command line and `llmos.yaml` hand to `kernel.spawn(mounts=...)`.
Invariant: a mount that does not say whose words it holds is untrusted.
Interface: `Mount(path, trust)`, `.label` is what every chunk of it carries; `as_mount` takes a bare path.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llmos.abi.labels import Integrity, Label

Trust = Literal["mine", "shared"]


@dataclass(frozen=True, slots=True)
class Mount:
    """Documents to read from.

    Args:
        path: a file or a folder; `~` is expanded.
        trust: `mine`, the words of the machine's owner (STORE), or `shared`, anybody's (UNTRUSTED).
        readers: who may read what comes from here; None for everyone.
    """

    path: Path
    trust: Trust = "shared"
    readers: frozenset[str] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path).expanduser())

    @property
    def label(self) -> Label:
        """The label of every document below `path`."""
        return Label(Integrity.STORE if self.trust == "mine" else Integrity.UNTRUSTED, self.readers)

    def dump(self) -> dict[str, Any]:
        """As JSON."""
        readers = None if self.readers is None else sorted(self.readers)
        return {"path": str(self.path), "trust": self.trust, "readers": readers}

    @classmethod
    def load(cls, dumped: Mapping[str, Any]) -> Mount:
        """What `dump` gave."""
        readers = dumped["readers"]
        return cls(Path(dumped["path"]), dumped["trust"], None if readers is None else frozenset(readers))


def as_mount(value: Mount | str | os.PathLike[str]) -> Mount:
    """`value` itself, or a bare path as a shared mount."""
    return value if isinstance(value, Mount) else Mount(Path(value))
