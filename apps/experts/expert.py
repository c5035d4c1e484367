"""An expert as it is found on this machine: its file read, laid over what it extends, its paths made whole.

What: `Expert`, a manifest with its file and where it came from.
Invariant: paths are absolute from here on. What came in a pack is a stranger's: its documents are `shared` whatever it
    says of them, and it reads from its own folder alone.
Interface: `load(file, origin, find) -> Expert`; `Expert.knowledge`; `paths_of`, `with_paths` for packs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from llmos.abi.errors import ConfigError
from llmos.apps.experts.manifest import Case, Knowledge, Manifest, laid_over
from llmos.drivers.yamlfile import read

Origin = Literal["shipped", "installed", "file"]
Find = Callable[[str, Path, tuple[Path, ...]], "Expert"]
"""The expert that a name or a path means, as seen from a folder, given the files that extend it."""
FILE = "expert.yaml"  # of an expert that is a folder
GENERATIONS = 8  # of experts that extend each other


@dataclass(frozen=True, slots=True)
class Expert:
    """Args:
    manifest: with all that it extends, and absolute paths.
    file: its own file.
    origin: `shipped` with llmos, `installed` from a pack, or a `file` of the user's.
    """

    manifest: Manifest
    file: Path
    origin: Origin

    @property
    def name(self) -> str:
        return self.manifest.expert

    @property
    def folder(self) -> Path:
        """Where its file lies."""
        return self.file.parent

    @property
    def knowledge(self) -> tuple[Knowledge, ...]:
        """Its documents, as far as they may be believed."""
        if self.origin != "installed":
            return self.manifest.knowledge
        return tuple(k.model_copy(update={"trust": "shared"}) for k in self.manifest.knowledge)


def load(file: Path, origin: Origin, find: Find, above: tuple[Path, ...] = ()) -> Expert:
    """The expert in `file`.

    Args:
        find: the expert that a name, or a path beside `file`, means.
        above: the files that extend this one.

    Raises:
        ConfigError: the file is wrong, or experts extend each other in a circle.
    """
    file = file.absolute()
    if file.resolve() in above or len(above) >= GENERATIONS:
        chain = " → ".join(path.stem if path.name != FILE else path.parent.name for path in (*above, file))
        circle = "experts extend each other in a circle"
        raise ConfigError(
            circle if file.resolve() in above else f"more than {GENERATIONS} experts extend each other",
            why=chain, do="take one `extends:` out", file=str((*above, file)[0]), key="extends",
        )  # fmt: skip
    manifest = with_paths(read(file, Manifest), lambda path: _absolute(path, file.parent))
    if manifest.base is not None and ("/" in manifest.base or manifest.base.endswith(".gguf")):
        manifest = manifest.model_copy(update={"base": _absolute(manifest.base, file.parent)})
    if origin == "installed":
        _check_inside(manifest, file)
    elif manifest.extends is not None:
        parent = find(manifest.extends, file.parent, (*above, file.resolve()))
        manifest = laid_over(manifest, parent.manifest)
    return Expert(manifest, file, origin)


def _absolute(path: str, folder: Path) -> str:
    try:
        return str((folder / Path(path).expanduser()).absolute())
    except RuntimeError:  # ~nobody: a folder of that name
        return str(folder / path)


def _check_inside(manifest: Manifest, file: Path) -> None:
    """What came in a pack is whole in itself."""
    folder, keys = file.parent.resolve(), ["extends"] if manifest.extends is not None else []
    keys += [key for key, path in paths_of(manifest) if not Path(path).resolve().is_relative_to(folder)]
    if keys:
        raise ConfigError(
            "leads out of the pack", why="an installed expert has nothing but what came with it",
            do="do not use it, or have its author pack it again", file=str(file), key=keys[0],
        )  # fmt: skip


def paths_of(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """(key, path) of every file or folder that a manifest names."""
    for n, knowledge in enumerate(manifest.knowledge):
        if not knowledge.remote:
            yield f"knowledge.{n}.path", knowledge.path
    if manifest.adapter is not None:
        yield "adapter", manifest.adapter
    for n, case in enumerate(manifest.tests):
        yield from ((f"tests.{n}.mounts", path) for path in case.mounts)
        yield from ((f"tests.{n}.files", path) for path in case.files)
        if case.site is not None:
            yield f"tests.{n}.site", case.site


def with_paths(manifest: Manifest, new: Callable[[str], str]) -> Manifest:
    """The manifest with every path of `paths_of` replaced."""

    def moved(case: Case) -> Case:
        site = None if case.site is None else new(case.site)
        places = {"mounts": tuple(map(new, case.mounts)), "files": tuple(map(new, case.files)), "site": site}
        return case.model_copy(update=places)

    return manifest.model_copy(
        update={
            "knowledge": tuple(
                k if k.remote else k.model_copy(update={"path": new(k.path)}) for k in manifest.knowledge
            ),
            "adapter": None if manifest.adapter is None else new(manifest.adapter),
            "tests": tuple(map(moved, manifest.tests)),
        }
    )
