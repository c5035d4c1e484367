"""What the kernel is told of the machine's experts.

What: implements `kernel.experts.Directory` over the shelf: the entry point of the group `llmos.experts`.
Invariant: nobody can be asked here whether they agree: an expert whose grants nobody has agreed to is refused.
Interface: `MachineDirectory(config)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from llmos.apps.experts.grants import Consents, granted
from llmos.apps.experts.knowledge import allowed
from llmos.apps.experts.launch import check_base, specialist
from llmos.apps.experts.shelf import Shelf

if TYPE_CHECKING:
    from llmos.abi.config import Config
    from llmos.abi.manifest import Syscall
    from llmos.abi.specialist import Specialist


class MachineDirectory:
    """See `kernel.experts.Directory`."""

    def __init__(self, config: Config) -> None:
        self._config, self._shelf = config, Shelf(config)

    def roster(self) -> Mapping[str, str]:
        """Name -> description of every expert here that can be read."""
        return {
            one.name: one.expert.manifest.description
            for one in self._shelf.listed()
            if one.expert is not None
        }

    def specialist(self, name: str, syscalls: Mapping[str, Syscall]) -> Specialist:
        """The expert of that name, which must have one here: paths are not taken from a model."""
        names = {one.name for one in self._shelf.listed()}
        expert = self._shelf.find(name if name in names else name.replace("/", " ").removesuffix(".yaml"))
        check_base(expert, self._config.kernel.model)
        state = self._shelf.state
        return specialist(expert, granted(expert, syscalls, Consents(state)), state, allowed(self._config))
