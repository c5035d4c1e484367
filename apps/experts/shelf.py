"""Which experts this machine has.

What: finds them by name or by path: those that llmos.yaml names, those that were installed from packs, and those that
    are shipped.
Invariant: a name means one expert: the owner's own before an installed one, and no installed one has a shipped one's
    name. A broken file is an error when it is asked for, and a line in the list, never a list that fails.
Interface: `Shelf(config)`: `find(name)`, `listed()`, `state`; `Installed` and `Shelf.installed` for packs.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmos.abi.errors import ConfigError
from llmos.apps.experts.errors import PackError
from llmos.apps.experts.expert import FILE, Expert, Origin, load
from llmos.drivers.whole import write_whole

if TYPE_CHECKING:
    from llmos.abi.config import Config

SHIPPED = Path(__file__).with_name("shipped")


@dataclass(frozen=True, slots=True)
class Installed:
    """An expert that came in a pack: where it lies, and who signed it ("" for nobody)."""

    name: str
    version: str
    folder: str  # below the state's `experts/installed`
    signer: str
    store: str  # where newer versions are looked for, "" for nowhere


@dataclass(frozen=True, slots=True)
class Listed:
    """A line of the list: an expert, or why there is none."""

    name: str
    origin: Origin
    file: Path
    expert: Expert | None
    error: ConfigError | None


class Shelf:
    """Of one machine."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.state = config.machine.state / "experts"

    def find(self, name: str, beside: Path | None = None, above: tuple[Path, ...] = ()) -> Expert:
        """The expert of that name, or in the file or folder of that path.

        Args:
            beside: where relative paths begin; the working folder where it is not given.
            above: the files that extend it.

        Raises:
            ConfigError: there is none, or its file is wrong.
        """
        if "/" in name or name.endswith((".yaml", ".yml")):
            path = (beside or Path()) / Path(name).expanduser()
            return load(path / FILE if path.is_dir() else path, "file", self.find, above)
        for known, origin, file in self._files():
            if known == name:
                return load(file, origin, self.find, above)
        names = [known for known, _, _ in self._files()]
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        raise ConfigError(
            f"there is no expert {name!r}", why=f"this machine has {', '.join(names) or 'none'}",
            do=f"did you mean {near[0]!r}?" if near else "name its file: ./my-expert.yaml",
        )  # fmt: skip

    def listed(self) -> Iterator[Listed]:
        """Every expert that has a name here."""
        for name, origin, file in self._files():
            try:
                yield Listed(name, origin, file, load(file, origin, self.find), None)
            except ConfigError as error:
                yield Listed(name, origin, file, None, error)

    def _files(self) -> list[tuple[str, Origin, Path]]:
        """(name, origin, file) of all of them; the first of a name counts."""
        found: list[tuple[str, Origin, Path]] = []
        for place in self.config.experts:
            if isinstance(place, Path):
                file = place / FILE if place.is_dir() else place
                found.append((_named(file), "file", file))
        installed = self.state / "installed"
        found += [(e.name, "installed", installed / e.folder / FILE) for e in self.installed().values()]
        found += [(file.parent.name, "shipped", file) for file in sorted(SHIPPED.glob(f"*/{FILE}"))]
        first: dict[str, tuple[str, Origin, Path]] = {}
        for name, origin, file in found:
            first.setdefault(name, (name, origin, file))
        return list(first.values())

    # -- those that came in packs --------------------------------------------------------------------------------

    def installed(self) -> dict[str, Installed]:
        """Those that came in packs, by name. PackError: the list of them is damaged."""
        file = self.state / "installed.json"
        try:
            kept = json.loads(file.read_text(encoding="utf-8"))
            return {name: Installed(**entry) for name, entry in kept.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise PackError(
                "the list of installed experts cannot be read", why=f"{file}: {error}",
                do="move that file away and install them again",
            ) from None  # fmt: skip

    def keep_installed(self, entries: dict[str, Installed]) -> None:
        """Replace the list of those that came in packs."""
        kept: dict[str, Any] = {name: asdict(entry) for name, entry in entries.items()}
        write_whole(self.state / "installed.json", json.dumps(kept, indent=1).encode())


def shipped_names() -> frozenset[str]:
    """Of the experts that come with llmos."""
    return frozenset(file.parent.name for file in SHIPPED.glob(f"*/{FILE}"))


def _named(file: Path) -> str:
    """The name that an expert file of the user's gives itself; its own where it cannot be read."""
    from llmos.apps.experts.manifest import Manifest
    from llmos.drivers.yamlfile import read

    try:
        return read(file, Manifest).expert
    except ConfigError:
        return file.parent.name if file.name == FILE else file.stem
