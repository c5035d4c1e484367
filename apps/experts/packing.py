"""A pack: an expert in one file.

What: a zip of the expert file, its documents, adapter, tests' files and licences, with a table of contents
    (`pack.json`: sha256 and size of each) and an ed25519 signature of that table.
Invariant: the same expert gives the same bytes (fixed order, fixed times). What is written would be read again by
    `unpacking`: names that mean the same file everywhere, plain files alone.
Interface: `pack(expert, key) -> bytes`; `dump(manifest)`, a manifest as an expert file.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import stat
import unicodedata
import zipfile
from collections.abc import Iterator
from pathlib import Path

import yaml

from llmos.apps.experts.errors import KnowledgeGone, UnsafePack
from llmos.apps.experts.expert import FILE, Expert, paths_of, with_paths
from llmos.apps.experts.manifest import Manifest
from llmos.apps.experts.signing import Key
from llmos.apps.experts.unpacking import FORMAT, SIGNATURE, TABLE, check_name

_TIME = (1980, 1, 1, 0, 0, 0)
_LICENCES = re.compile(r"(licen[cs]e|copying|notice)(\.\w+)?", re.IGNORECASE)


def pack(expert: Expert, key: Key | None = None) -> bytes:
    """The expert as one file.

    Args:
        key: signs it; without one it is unsigned.

    Raises:
        KnowledgeGone: a file that it names is not there.
        UnsafePack: it names a link, or something that is no file.
    """
    places: dict[str, str] = {}  # path here -> path in the pack
    files: dict[str, Path] = {}
    for where, path in paths_of(expert.manifest):
        if path not in places:
            places[path] = _place(where, Path(path), set(places.values()))
            files |= dict(_below(Path(path), places[path]))
    for file in sorted(expert.folder.iterdir()):
        if file.is_file() and not file.is_symlink() and _LICENCES.fullmatch(file.name):
            files[f"licences/{file.name}"] = file
    members = {FILE: dump(with_paths(expert.manifest, lambda path: places[path]))}
    members |= {name: _bytes(file) for name, file in sorted(files.items())}
    for name in members:
        check_name(name)
    table = {
        "format": FORMAT,
        "expert": expert.name,
        "version": expert.manifest.version,
        "signer": "" if key is None else key.public,
        "files": {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            for name, data in sorted(members.items())
        },
    }
    told = json.dumps(table, indent=1, sort_keys=True).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        _add(archive, TABLE, told)
        if key is not None:
            _add(archive, SIGNATURE, key.sign(told).encode())
        for name, data in sorted(members.items()):
            _add(archive, name, data)
    return out.getvalue()


def dump(manifest: Manifest) -> bytes:
    """The manifest as an expert file. Texts are quoted, so that none can be read as anything else."""
    values = manifest.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
    for case, given in zip(values.get("tests", ()), manifest.tests, strict=True):
        if "json_" in given.expect.model_fields_set:  # null is a value there
            case["expect"]["json"] = given.expect.json_
    values["version"] = manifest.version
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6).encode()


class _Dumper(yaml.SafeDumper):
    """Without aliases, which no reader of ours takes."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if re.fullmatch(r"[a-z][a-z_]*[a-z]", text) and text not in _WORDS else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_WORDS = {"true", "false", "null", "yes", "no", "on", "off"}
_Dumper.add_representer(str, _text)


def _place(where: str, path: Path, taken: set[str]) -> str:
    """Where a file or folder that the manifest names lies in the pack."""
    top = {"knowledge": "knowledge", "adapter": "adapter", "tests": "tests"}[where.partition(".")[0]]
    name = re.sub(r"[^\w.-]+", "-", unicodedata.normalize("NFC", path.name)).strip(".-") or "files"
    place, n = f"{top}/{name}", 2
    while place.casefold() in {t.casefold() for t in taken}:
        place, n = f"{top}/{n}-{name}", n + 1
    return place


def _below(path: Path, place: str) -> Iterator[tuple[str, Path]]:
    """(name in the pack, file) of a file, or of every file below a folder; hidden ones stay out."""
    if path.is_symlink():
        raise UnsafePack(f"{path} is a link", why="a pack holds files", do="put the file itself there")
    if path.is_file():
        yield place, path
        return
    if not path.is_dir():
        raise KnowledgeGone(f"there is nothing at {path}", why="the expert names it", do="put it back")
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            file = Path(folder, name)
            if name.startswith("."):
                continue
            if file.is_symlink() or not file.is_file():
                raise UnsafePack(
                    f"{file} is no plain file", why="a pack holds files", do="take it out of the folder"
                )
            yield f"{place}/{unicodedata.normalize('NFC', file.relative_to(path).as_posix())}", file


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise KnowledgeGone(f"{file} cannot be read", why=error.strerror or str(error)) from None


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name, _TIME)
    info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(info, data)
