"""Checkpoints of a training run: whole, or not there.

What: a folder `step-00000120` with `arrays.safetensors` (what is trained, the optimiser's state) and `state.json`
    (step, place in the data, the curve so far); the two newest are kept.
Invariant: a checkpoint is written beside its place, flushed, and renamed into it: whoever is killed at any moment
    leaves the last whole one. Its files are checked against their sha256 when they are read; a damaged one is passed
    over for the one before it.
Interface: `Checkpoints(folder)`; `save`, `newest`; `keep(path, content)` for a result.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import jax
import numpy as np
from safetensors.numpy import load, save

from llmos.abi.errors import CheckpointError
from llmos.drivers.whole import sync, write_whole
from llmos.memory.disk import disk_errors

KEPT = 2
_MEND = "free some space and run the same command again: it goes on from the last checkpoint"


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The checkpoints of one run."""

    folder: Path

    def save(self, step: int, tree: Any, state: Mapping[str, Any]) -> Path:
        """Keep `tree` (arrays) and `state` (JSON) as the checkpoint of `step`.

        Raises:
            DiskFull, VolumeError: nothing of it is left then; earlier ones are untouched.
        """
        place = self.folder / f"step-{step:08d}"
        half = self.folder / f".{place.name}.{uuid4().hex}"
        with disk_errors(place, "checkpoint", _MEND):
            try:
                half.mkdir(parents=True, exist_ok=True)
                arrays = save({path: np.asarray(leaf) for path, leaf in _flat(tree)})
                record = json.dumps({**state, "step": step, "sha256": hashlib.sha256(arrays).hexdigest()})
                for name, content in (("arrays.safetensors", arrays), ("state.json", record.encode())):
                    write_whole(half / name, content)
                shutil.rmtree(place, ignore_errors=True)
                half.rename(place)
                sync(self.folder)
            except BaseException:
                shutil.rmtree(half, ignore_errors=True)
                raise
        for old in sorted(self.folder.glob("step-*"))[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        return place

    def newest(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """The newest whole checkpoint, its arrays in the shape of the tree `like`; None where there is none.

        Raises:
            CheckpointError: it is of another run (other arrays than `like`).
        """
        for place in sorted(self.folder.glob("step-*"), reverse=True):
            try:
                state = json.loads((place / "state.json").read_bytes())
                raw = (place / "arrays.safetensors").read_bytes()
            except (OSError, ValueError):
                continue
            if hashlib.sha256(raw).hexdigest() == state.get("sha256"):
                return _shaped(load(raw), like, place), state
        return None


def keep(path: Path, content: object) -> None:
    """Write `content` as JSON: the whole of it, or nothing.

    Raises:
        DiskFull, VolumeError: what lay there is untouched.
    """
    with disk_errors(path, "result", _MEND):
        write_whole(path, json.dumps(content).encode())


def _flat(tree: Any) -> list[tuple[str, Any]]:
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def _shaped(arrays: Mapping[str, Any], like: Any, place: Path) -> Any:
    wanted = {path: np.shape(leaf) for path, leaf in _flat(like)}
    if wanted != {path: value.shape for path, value in arrays.items()}:
        raise CheckpointError(
            f"{place} is a checkpoint of another run",
            why="it holds other arrays than what is to be trained now",
            do="run with the settings it was begun with, or choose another --out",
        )
    leaves = [jax.numpy.asarray(arrays[path]) for path, _ in _flat(like)]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)
