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
from llmos.kernel.experts import Profile

if TYPE_CHECKING:
    from llmos.abi.config import Config
    from llmos.abi.manifest import Syscall
    from llmos.abi.specialist import Specialist
    from llmos.apps.experts.manifest import Manifest
    from llmos.kernel.experts import Roster


class MachineDirectory:
    """See `kernel.experts.Directory`."""

    def __init__(self, config: Config) -> None:
        self._config, self._shelf = config, Shelf(config)

    def roster(self) -> Roster:
        """Every expert here that can be read. Its tests say better than its description what it is asked."""
        return {
            one.name: _profile(one.expert.manifest) for one in self._shelf.listed() if one.expert is not None
        }

    def specialist(self, name: str, syscalls: Mapping[str, Syscall]) -> Specialist:
        """The expert of that name, which must have one here: paths are not taken from a model."""
        names = {one.name for one in self._shelf.listed()}
        expert = self._shelf.find(name if name in names else name.replace("/", " ").removesuffix(".yaml"))
        check_base(expert, self._config.kernel.model)
        state = self._shelf.state
        return specialist(expert, granted(expert, syscalls, Consents(state)), state, allowed(self._config))


def _profile(manifest: Manifest) -> Profile:
    tested = (case.ask.replace("{site}", "https://example.org") for case in manifest.tests)
    return Profile(manifest.description, manifest.starters, tuple(tested))
