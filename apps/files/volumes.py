"""Which folder a path means: the working volume, or one that the machine's owner has opened.

What: `a/b.txt` lies in the caller's working volume, `/notes/b.txt` in the folder that the owner called `notes`.
Invariant: a path means one place. The history of a volume lies outside of it, where neither a sandbox that has the
    volume nor a path can reach.
Interface: `Settings`, `Folder`; `Volumes(settings)`: `.place(call, path)`, `.names`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from llmos.abi.app import Call
from llmos.abi.config import Bytes, FilePath, Section, VolumeName, default_state
from llmos.abi.errors import AppError
from llmos.abi.labels import UNTRUSTED, Label
from llmos.abi.mount import Mount, Trust
from llmos.drivers.beneath import parts


class FilesError(AppError):
    """Something that the files app does not do, and why."""


class Folder(Section):
    """A folder that processes may use under a name, as `/name/...`."""

    path: FilePath
    trust: Trust = "shared"
    write: bool = False


class Settings(Section):
    """What `llmos.yaml` may say about this app.

    Attributes:
        folders: those that processes may use beside their working volume, by name.
        versions: earlier versions that are kept of one file.
        kept: bytes of earlier versions that are kept of one volume; the oldest go first.
        history: where the versions of `folders` are kept.
    """

    folders: dict[VolumeName, Folder] = Field(default_factory=dict)
    versions: int = Field(default=20, ge=1, le=1000)
    kept: Bytes = 64 << 20
    history: FilePath = Field(default_factory=lambda: default_state() / "files")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a path lies.

    Attributes:
        folder: the volume's own folder.
        path: below it.
        prefix: what stands before `path` where a process names it: "" or "/notes/".
        history: the folder of its earlier versions.
        label: of files that nobody has written through this app.
        writable: whether files in it may be changed.
    """

    folder: Path
    path: str
    prefix: str
    history: Path
    label: Label
    writable: bool

    def name(self, path: str) -> str:
        """What a process calls the file at `path`."""
        return self.prefix + path if path else self.prefix or "."


class Volumes:
    """The volumes that calls can reach."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @property
    def names(self) -> Mapping[str, Folder]:
        """The owner's folders."""
        return self._settings.folders

    def place(self, call: Call, path: str) -> Place:
        """Where `path` lies for this caller.

        Raises:
            FilesError: the caller has no working volume, or there is no folder of that name.
        """
        if not path.startswith("/"):
            return self._working(call, path)
        name, _, below = path.lstrip("/").partition("/")
        folder = self.names.get(name)
        if folder is None:
            known = ", ".join(f"/{known}" for known in self.names) or "none"
            raise FilesError(
                f"there is no folder /{name}",
                why=f"the folders that begin with / are: {known}",
                do="name files of the working folder without a / before them",
            )
        place = hashlib.sha256(str(folder.path.resolve()).encode()).hexdigest()[:16]
        label = Mount(folder.path, folder.trust).label
        history = self._settings.history / place
        return Place(folder.path, _plain(below), f"/{name}/", history, label, folder.write)

    def _working(self, call: Call, path: str) -> Place:
        volume = call.volume
        if volume is None:
            raise FilesError(
                "there is no working folder", why="this caller has none", do="name a file as /folder/file"
            )
        # What lies there unrecorded was written by other apps, out of whatever they had read.
        return Place(volume, _plain(path), "", volume.parent / ".history" / volume.name, UNTRUSTED, True)


def _plain(path: str) -> str:
    """A path in its one spelling, so that a file has one history."""
    return "/".join(parts(path))
