"""Where model files lie on this machine, and which of them have been verified.

What: one folder a model under the cache, `models/NAME/`, with the file, its companions and `verified.json`.
Invariant: a file is used only after its whole sha256 was compared with the catalogue's. The comparison is
    remembered by path, size and time of change, so that a start need not read half a gigabyte; any change
    undoes it. Nothing here touches the network.
Interface: `locate(entry, cache, folders)` -> WeightsFiles or None; `home`, `digest`, `remember`, `forget`,
    `remembered`, `whereabouts`, `user_folders`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from llmos.abi.progress import Progress, silent
from llmos.drivers.weights.catalogue import Entry
from llmos.drivers.weights.weights import WeightsFiles

_CHUNK = 1 << 22


def default_cache() -> Path:
    """The cache folder where none is configured."""
    from llmos.abi.config import default_cache

    return default_cache()


def user_folders() -> tuple[Path, ...]:
    """Folders with models that the user names in `$LLMOS_MODELS`."""
    return tuple(Path(f).expanduser() for f in os.environ.get("LLMOS_MODELS", "").split(os.pathsep) if f)


def home(entry: Entry, cache: Path) -> Path:
    """The model's own folder in the cache."""
    return cache / "models" / entry.name


def locate(
    entry: Entry, cache: Path, folders: Sequence[Path] = (), *, progress: Progress = silent
) -> WeightsFiles | None:
    """The model's verified files, in the cache or one of `folders`; None if they are not on this machine."""
    known = remembered(entry, cache)
    if known is not None and _complete(entry, known):
        return files(entry, known)
    for path in _candidates(entry, cache, folders):
        if _complete(entry, path) and digest(path, f"verifying {entry.name}", progress) == entry.sha256:
            with suppress(OSError):  # a cache that cannot be written to: it is verified anew each time
                remember(entry, path, cache)
            return files(entry, path)
    return None


def digest(path: Path, task: str = "verifying", progress: Progress = silent) -> str:
    """The sha256 of a whole file, in hexadecimal."""
    state = hashlib.sha256()
    done, total = 0, path.stat().st_size
    with path.open("rb", buffering=0) as f:
        while chunk := f.read(_CHUNK):
            state.update(chunk)
            done += len(chunk)
            progress(task, done, total, "bytes")
    return state.hexdigest()


def remember(entry: Entry, path: Path, cache: Path) -> None:
    """Note that `path` was found to have the catalogue's sha256."""
    note = home(entry, cache) / "verified.json"
    note.parent.mkdir(parents=True, exist_ok=True)
    fresh = note.with_suffix(f".{os.getpid()}.tmp")
    fresh.write_text(json.dumps({"path": str(path.absolute()), "sha256": entry.sha256, **_stamp(path)}))
    fresh.replace(note)


def _stamp(path: Path) -> dict[str, int]:
    stat = path.stat()
    return {"bytes": stat.st_size, "changed_ns": stat.st_mtime_ns, "inode": stat.st_ino}


def forget(entry: Entry, cache: Path) -> None:
    """Undo `remember`."""
    (home(entry, cache) / "verified.json").unlink(missing_ok=True)


def remembered(entry: Entry, cache: Path) -> Path | None:
    """The file that was verified, if it is still the one that was."""
    try:
        note = json.loads((home(entry, cache) / "verified.json").read_bytes())
        path = Path(note.pop("path"))
        if note == {"sha256": entry.sha256, **_stamp(path)}:
            return path
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # no note, or a damaged one: verify anew
    return None


def whereabouts(entry: Entry, cache: Path, folders: Sequence[Path]) -> Path | None:
    """Where the model seems to lie, by name and size; nothing is read."""
    known = remembered(entry, cache)
    return known if known is not None else next(iter(_candidates(entry, cache, folders)), None)


def _candidates(entry: Entry, cache: Path, folders: Sequence[Path]) -> list[Path]:
    """Files of the right size that may be the model: by name in the cache, by size in the user's folders."""
    found = [home(entry, cache) / entry.file]
    for folder in folders:
        found += [folder / entry.name / entry.file]
        found += sorted(folder.glob("*" + Path(entry.file).suffix))
    return [path for path in found if _size(path) == entry.bytes]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _complete(entry: Entry, path: Path) -> bool:
    return all((path.parent / name).is_file() for name in entry.companions)


def files(entry: Entry, path: Path) -> WeightsFiles:
    """The entry's files, its weights being `path`."""
    return WeightsFiles(entry.name, "gguf" if entry.format == "gguf" else "hf", path.parent, (path,))
