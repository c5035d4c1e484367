"""What the machine's apps offer, known without running them.

What: manifests of our apps are read by a short child process and kept until an app's files change; those of
    foreign servers are what they listed when the owner took them up, kept until the owner confirms others.
Invariant: no app's module is imported here, unless its owner trusts it inside. A listing that differs from the
    confirmed one is never taken over silently.
Interface: `await read_ours(entries, folder)`; `Confirmed(folder)` for foreign servers; `stamp`, `load_kept` and
    `save_kept` for what else is kept of apps.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llmos.abi.entries import entries
from llmos.abi.errors import AppError, AppUnavailable, ManifestError
from llmos.abi.loading import GROUP, load
from llmos.abi.manifest import Manifest
from llmos.drivers.mcp.process import Child
from llmos.kernel.apphost.values import Entry, Ours

READ_SECONDS = 60.0  # for the child that imports all apps' modules once
ROOT = str(Path(__file__).parents[3])  # where `llmos` was imported from


def app_environment() -> dict[str, str]:
    """What a process of our apps needs in order to find llmos and the modules that the kernel could find."""
    paths = [ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


async def read_ours(entries: Sequence[Entry], folder: Path) -> dict[str, Manifest | AppError]:
    """Name -> manifest, or why there is none."""
    found: dict[str, Manifest | AppError] = {}
    kept = load_kept(folder / "manifests.json")
    missing: dict[str, str] = {}
    stamps: dict[str, str] = {}
    for entry in entries:
        assert isinstance(entry.source, Ours)
        if entry.inside:
            found[entry.name] = _inside(entry.source.name)
            continue
        stamps[entry.name] = now = stamp(entry.source.name)
        known = kept.get(entry.name, {})
        try:
            if not now or known.get("stamp") != now:
                raise KeyError(now)
            found[entry.name] = Manifest.model_validate(known["manifest"])
        except (ValidationError, KeyError, AttributeError):
            missing[entry.name] = entry.source.name
    if missing:
        read = await _child(list(missing.values()))
        for name, source in missing.items():
            found[name] = one = _result(read.get(source, {}), source)
            if isinstance(one, Manifest) and stamps[name]:
                kept[name] = {"stamp": stamps[name], "manifest": one.model_dump(mode="json")}
        save_kept(folder / "manifests.json", kept)
    for name, one in found.items():
        if isinstance(one, Manifest) and one.app != name:
            found[name] = ManifestError(f"the app {one.app!r} is entered as {name!r}", do="use its own name")
    return found


class Confirmed:
    """What foreign servers listed when they were taken up."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, Manifest] = {}

    def get(self, entry: Entry) -> Manifest | None:
        """The confirmed manifest under the entry's overlay, None before the first time; ManifestError."""
        if entry.name not in self._known:
            kept = load_kept(self._folder / f"{entry.name}.json")
            if not isinstance(kept.get("tools"), list):
                return None
            manifest = Manifest.of_mcp(entry.name, kept["tools"], entry.effects, doc=entry.doc)
            self._known[entry.name] = manifest
        return self._known[entry.name]

    def put(self, entry: Entry, tools: Sequence[Mapping[str, Any]]) -> Manifest:
        """Take these tools as confirmed; ManifestError where they cannot be used."""
        manifest = Manifest.of_mcp(entry.name, tools, entry.effects, doc=entry.doc)
        save_kept(
            self._folder / f"{entry.name}.json", {"fingerprint": manifest.fingerprint, "tools": list(tools)}
        )
        return manifest


def _inside(source: str) -> Manifest | AppError:
    try:
        manifest = Manifest.of(load(source))
        if not manifest.pure:
            raise ManifestError(f"{manifest.app} is not pure", do="let it run in a process of its own")
    except AppError as error:
        return error
    return manifest


async def _child(names: Sequence[str]) -> dict[str, Any]:
    program = [sys.executable, "-m", "llmos.apps.serve", "--manifests", *names]
    child = await Child.start(program, app_environment())
    try:
        async with asyncio.timeout(READ_SECONDS):
            return dict(json.loads(await child.stdout.read()))
    except (TimeoutError, ValueError):
        return {}
    finally:
        await child.kill()


def _result(read: Mapping[str, Any], source: str) -> Manifest | AppError:
    try:
        if "error" in read:
            what, why, do = read["error"]
            return ManifestError(what, why=why, do=do)
        return Manifest.model_validate(read["manifest"])
    except (ValidationError, KeyError, ValueError, TypeError):
        return AppUnavailable(f"what {source} offers cannot be read", why="its module broke the reader")


def stamp(source: str) -> str:
    """What changes when the files of an app (a name, or `module:Class`) do; "" where they cannot be found without
    importing anything."""
    if ":" not in source:
        entry = entries(GROUP).get(source)
        source = "" if entry is None else entry.value
    try:
        files = _files(source.partition(":")[0].split("."))
        newest = max(file.stat().st_mtime_ns for file in files)
        readers = max(file.stat().st_mtime_ns for file in Path(ROOT, "llmos", "abi").glob("*.py"))
    except (OSError, ValueError, ImportError):
        return ""
    return f"{source} {len(files)} {newest} {readers} {sys.version_info[:3]}"


def _files(parts: Sequence[str]) -> list[Path]:
    """The files of a module or package. Only the top-level name is looked up, which imports nothing."""
    spec = find_spec(parts[0])
    if spec is None:
        return []
    if len(parts) == 1 and spec.submodule_search_locations is None:
        return [Path(spec.origin or "")]
    folders = [Path(place) for place in spec.submodule_search_locations or ()]
    for part in parts[1:-1]:
        folders = [folder / part for folder in folders]
    found = [folder / f"{parts[-1]}.py" for folder in folders if len(parts) > 1]
    for folder in folders:
        found += (folder / parts[-1] if len(parts) > 1 else folder).rglob("*.py")
    return [file for file in found if file.is_file()]


def load_kept(path: Path) -> dict[str, Any]:
    """What was kept there; nothing where it cannot be read."""
    try:
        kept = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def save_kept(path: Path, kept: Mapping[str, Any]) -> None:
    """Keep it there, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(kept))
    fresh.replace(path)
