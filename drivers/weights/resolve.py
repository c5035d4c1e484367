"""From what a user calls a model to files on this machine.

What: a model is named by catalogue name, by a path to a `.gguf`, or by a folder of Hugging Face safetensors.
Invariant: what is on this machine is found without touching the network.
Interface: `find(model)` -> WeightsFiles.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from llmos.abi.errors import ModelNotFound
from llmos.abi.progress import Progress, silent
from llmos.drivers.weights.catalogue import catalogue
from llmos.drivers.weights.weights import WeightsFiles


def find(
    model: str,
    *,
    fetch: bool = True,
    progress: Progress = silent,
    cache: Path | None = None,
    folders: Sequence[Path] | None = None,
) -> WeightsFiles:
    """Resolve a model's name to local files.

    Args:
        model: a catalogue name, a path to a `.gguf`, or a folder.
        fetch: get a catalogue model that is not on this machine (see `fetch`).
        progress: told how far a verification or a download is.
        cache: the cache folder; default `$LLMOS_CACHE`, else the user's cache.
        folders: folders to look in beside the cache; default `$LLMOS_MODELS`.

    Raises:
        ModelNotFound: nothing of that name; the message lists near names.
        DownloadFailed, DiskFull: a model that had to be fetched could not be.
    """
    known = catalogue()
    if model in known:
        from llmos.drivers.weights import cache as places

        entry, cache = known[model], cache or places.default_cache()
        folders = places.user_folders() if folders is None else folders
        found = places.locate(entry, cache, folders, progress=progress)
        if found is not None:
            return found
        if fetch:
            from llmos.drivers.weights.fetch import pull

            return pull(model, progress=progress, cache=cache, folders=folders)
        raise ModelNotFound(f"{model} is not on this machine", do=f"fetch it: `llmos models pull {model}`")
    path = Path(model).expanduser()
    if path.is_dir():
        return _from_folder(path)
    if path.is_file():
        if path.suffix == ".safetensors":
            return WeightsFiles(path.parent.name, "hf", path.parent, (path,))
        return WeightsFiles(path.stem, "gguf", path.parent, (path,))
    raise unknown(model)


def unknown(model: str) -> ModelNotFound:
    """The error for a name that is neither in the catalogue nor a path."""
    known = catalogue()
    near = difflib.get_close_matches(model, list(known), n=3, cutoff=0.4)
    return ModelNotFound(
        f"no model, file or folder is called {model!r}",
        why="the catalogue has " + ", ".join(known),
        do=f"did you mean {' or '.join(near)}?" if near else "give a name from the catalogue, or a path",
    )


def _from_folder(folder: Path) -> WeightsFiles:
    """A folder of safetensors (one file, or shards with their index), or one that holds a single .gguf."""
    from llmos.drivers.weights.safetensors import shards

    ggufs = sorted(folder.glob("*.gguf"))
    if len(ggufs) == 1 and not (folder / "config.json").is_file():
        return WeightsFiles(ggufs[0].stem, "gguf", folder, (ggufs[0],))
    return WeightsFiles(folder.name, "hf", folder, shards(folder))
