"""Packs from anywhere: judged from their table before anything is written.

What: reads a pack and unpacks it; checks what was unpacked against its signature.
Invariant: refused are names that could lead elsewhere or meet on another file system, links, bombs, members that the
    table does not know or that are not what it says, forged signatures, expert files that name what is not in the pack.
    Nothing in a pack is ever run, and no more is unpacked than it says.
Interface: `Pack.read(data)`: `.manifest`, `.signer`, `.digest`, `.check()`, `.unpack(folder)`;
    `check_unpacked(folder)`; `check_name(name)`.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import stat
import unicodedata
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from llmos.abi.errors import ConfigError
from llmos.abi.limits import MAX_CONFIG_BYTES
from llmos.apps.experts.errors import BadSignature, PackError, UnsafePack
from llmos.apps.experts.expert import FILE, paths_of
from llmos.apps.experts.manifest import Manifest
from llmos.apps.experts.signing import verify
from llmos.drivers.yamlfile import parse

FORMAT = 1
TABLE, SIGNATURE = "pack.json", "pack.sig"
SUFFIX = ".expert"
MAX_PACK_BYTES = 2 << 30  # of the file
MAX_FILES = 10_000
MAX_UNPACKED_BYTES = 4 << 30  # of all members
MAX_RATIO = 200  # unpacked to packed, of a member above a MiB: text comes to 10


@dataclass(frozen=True, slots=True)
class Pack:
    """A pack whose table, names, sizes and signature are sound; its files are compared as they are unpacked.

    Args:
        signer: the public key that signed it, "" where nobody did.
        digest: sha256 of the whole file.
    """

    manifest: Manifest
    signer: str
    digest: str
    table: dict[str, Any]
    data: bytes

    @classmethod
    def read(cls, data: bytes) -> Pack:
        """Judge a pack, whoever made it.

        Raises:
            UnsafePack: it would write elsewhere or without bounds, or it hides something.
            BadSignature: its signature is not one of its table.
            PackError: it is no pack, damaged, or its expert file is wrong.
        """
        with _opened(data) as archive:
            infos = _members(archive)
            table = _table(_read(archive, infos[TABLE], MAX_CONFIG_BYTES * 4))
            signer = _signer(archive, infos, table)
            _compare(infos, table)
            text = _checked(archive, infos[FILE], table)
        try:
            manifest = parse(text.decode("utf-8"), Manifest, file=FILE)
        except (ConfigError, UnicodeDecodeError) as error:
            raise PackError(
                "the expert file in the pack is wrong", why=str(error), do="have its author mend it"
            ) from None
        if (manifest.expert, manifest.version) != (table["expert"], table["version"]):
            raise PackError(
                "the pack is not what it says", why=f"its table names {table['expert']} {table['version']}, its expert "
                f"file {manifest.expert} {manifest.version}", do="do not use it",
            )  # fmt: skip
        _check_paths(manifest, table)
        return cls(manifest, signer, hashlib.sha256(data).hexdigest(), table, data)

    def check(self) -> None:
        """Compare every file with the table. PackError: one is not what it says."""
        with _opened(self.data) as archive:
            infos = _members(archive)
            for name in self.table["files"]:
                _checked(archive, infos[name], self.table)

    def unpack(self, folder: Path) -> None:
        """Write its files into `folder`, which is new and empty.

        Raises:
            PackError: a file is not what the table says; what was written so far lies in `folder`.
        """
        with _opened(self.data) as archive:
            infos = _members(archive)
            for name in sorted(self.table["files"]):
                data = _checked(archive, infos[name], self.table)
                file = folder.joinpath(*name.split("/"))
                file.parent.mkdir(parents=True, exist_ok=True)
                with file.open("xb") as out:
                    out.write(data)
            with (folder / TABLE).open("xb") as out:
                out.write(_read(archive, infos[TABLE], MAX_CONFIG_BYTES * 4))
            if SIGNATURE in infos:
                with (folder / SIGNATURE).open("xb") as out:
                    out.write(_read(archive, infos[SIGNATURE], 1024))


def check_unpacked(folder: Path) -> str:
    """Whether what was unpacked into `folder` is still what was signed; the signer.

    Raises:
        PackError: a file was changed, added or removed; BadSignature.
    """
    try:
        told = (folder / TABLE).read_bytes()
    except OSError as error:
        raise PackError(f"{folder} holds no pack", why=str(error), do="install it again") from None
    table = _table(told)
    signature = folder / SIGNATURE
    signer = _verified(table, told, signature.read_bytes() if signature.is_file() else None)
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir() or p.is_symlink()}
    odd = there - table["files"].keys() - {TABLE, SIGNATURE}
    odd |= {name for name, one in table["files"].items() if not _is(folder / name, one)}
    if odd:
        raise PackError(
            f"{folder} was changed since it was installed",
            why=", ".join(sorted(odd)[:5]),
            do="install it again",
        )
    return signer


def _is(file: Path, told: dict[str, Any]) -> bool:
    if file.is_symlink() or not file.is_file() or file.stat().st_size != told["bytes"]:
        return False
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest() == told["sha256"]


def _opened(data: bytes) -> zipfile.ZipFile:
    if len(data) > MAX_PACK_BYTES:
        raise UnsafePack(
            f"a pack of {len(data) >> 20:,} MiB", why=f"at most {MAX_PACK_BYTES >> 20:,} are read"
        )
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, UnicodeError) as error:
        raise PackError("not a pack", why=str(error), do="check the file, or fetch it again") from None


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """What the archive's directory lists; UnsafePack for anything that no pack of ours has."""
    infos = archive.infolist()
    if len(infos) > MAX_FILES:
        raise UnsafePack(f"a pack of {len(infos):,} files", why=f"at most {MAX_FILES:,} are taken")
    if sum(info.file_size for info in infos) > MAX_UNPACKED_BYTES:
        raise UnsafePack(
            "a pack that unpacks without bounds", why=f"more than {MAX_UNPACKED_BYTES >> 30} GiB"
        )
    found: dict[str, zipfile.ZipInfo] = {}
    folded: dict[str, str] = {}
    for info in infos:
        name = info.orig_filename  # before zipfile mends it
        check_name(name)
        mode = info.external_attr >> 16
        if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise UnsafePack(f"{name!r} is no plain file", why="a pack holds files, no links or devices")
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UnsafePack(f"{name!r} is encrypted, or compressed in an unknown way")
        if info.file_size > 1 << 20 and info.file_size > MAX_RATIO * max(info.compress_size, 1):
            raise UnsafePack(f"{name!r} unpacks to {info.file_size >> 20:,} MiB", why="it is a bomb")
        low = unicodedata.normalize("NFKC", name).casefold()
        if low in folded:
            raise UnsafePack(f"{name!r} is there twice", why=f"some file systems take it for {folded[low]!r}")
        found[name], folded[low] = info, name
    for low, name in folded.items():
        for folder in PurePosixPath(low).parents:
            if str(folder) in folded:
                raise UnsafePack(
                    f"{folded[str(folder)]!r} is a file and a folder", why=f"{name!r} lies in it"
                )
    _check_folders(found)
    for needed in (TABLE, FILE):
        if needed not in found:
            raise PackError("not a pack", why=f"it holds no {needed}", do="check the file, or fetch it again")
    return found


def _check_folders(names: dict[str, zipfile.ZipInfo]) -> None:
    """Folders that differ in case alone are one on some file systems."""
    spelt: dict[str, str] = {}
    for name in names:
        for folder in PurePosixPath(name).parents:
            low = unicodedata.normalize("NFKC", str(folder)).casefold()
            if spelt.setdefault(low, str(folder)) != str(folder):
                raise UnsafePack(
                    f"the folders {spelt[low]!r} and {str(folder)!r} are one on some file systems"
                )


def check_name(name: str) -> None:
    """A relative path of plain names, the same on every file system."""
    parts = name.split("/")
    bad = (
        len(name) > 400
        or any(part in ("", ".", "..") or len(part.encode()) > 200 for part in parts)
        or any(part != part.strip(" ") or part.endswith(".") for part in parts)
        or any(re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", part, re.IGNORECASE) for part in parts)
        or re.search(r'[\\:<>"|?*\x00-\x1f\x7f]', name)
        or not name.isprintable()
        or unicodedata.normalize("NFC", name) != name
    )
    if bad:
        raise UnsafePack(
            f"{name[:80]!r} is no name for a file in a pack", why="it could lead elsewhere, or mean another file there",
            do="rename it to letters, digits, blanks, '.', '_' and '-'",
        )  # fmt: skip


def _table(told: bytes) -> dict[str, Any]:
    try:
        table = json.loads(told)
        sound = (
            table["format"] == FORMAT
            and all(isinstance(table[key], str) for key in ("expert", "version", "signer"))
            and all(
                re.fullmatch(r"[0-9a-f]{64}", one["sha256"])
                and isinstance(one["bytes"], int)
                and one["bytes"] >= 0
                for one in table["files"].values()
            )
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        sound, table = False, {}
    if not sound:
        other = isinstance(table, dict) and table.get("format") not in (None, FORMAT)
        raise PackError(
            f"{TABLE} cannot be read", why="it is of another version" if other else "it is not what it should be",
            do="install a newer llmos" if other else "fetch it again",
        )  # fmt: skip
    return dict(table)


def _signer(archive: zipfile.ZipFile, infos: dict[str, zipfile.ZipInfo], table: dict[str, Any]) -> str:
    signature = _read(archive, infos[SIGNATURE], 1024) if SIGNATURE in infos else None
    return _verified(table, _read(archive, infos[TABLE], MAX_CONFIG_BYTES * 4), signature)


def _verified(table: dict[str, Any], told: bytes, signature: bytes | None) -> str:
    """The signer of a table; BadSignature where it says one and is not signed by it."""
    signer = str(table["signer"])
    if not signer and signature is None:
        return ""
    if not signer or signature is None:
        raise BadSignature(
            "the pack's signature is missing" if signer else "the pack is signed by nobody that it names",
            why="somebody has taken it out, or changed the table", do="do not use it",
        )  # fmt: skip
    verify(signer, signature.decode("ascii", "replace").strip(), told)
    return signer


def _compare(infos: dict[str, zipfile.ZipInfo], table: dict[str, Any]) -> None:
    """Names and sizes against the table."""
    there, told = infos.keys() - {TABLE, SIGNATURE}, table["files"].keys()
    if there != told:
        raise UnsafePack(
            "the pack does not hold what its table lists",
            why=", ".join(sorted(there ^ told)[:5]),
            do="do not use it",
        )
    for name, one in table["files"].items():
        if infos[name].file_size != one["bytes"]:
            raise PackError(
                f"{name!r} is not what the table says", why="its size differs", do="fetch it again"
            )


def _checked(archive: zipfile.ZipFile, info: zipfile.ZipInfo, table: dict[str, Any]) -> bytes:
    told = table["files"][info.orig_filename]
    data = _read(archive, info, told["bytes"])
    if len(data) != told["bytes"] or hashlib.sha256(data).hexdigest() != told["sha256"]:
        raise PackError(
            f"{info.orig_filename!r} is not what the table says",
            why="its sha256 differs",
            do="fetch it again",
        )
    return data


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> bytes:
    """A member, no larger than `most` whatever its header says."""
    try:
        with archive.open(info) as file:
            data = file.read(most + 1)
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        OSError,
        ValueError,
    ) as error:
        raise PackError(
            f"{info.filename!r} cannot be unpacked", why=str(error), do="fetch it again"
        ) from None
    if len(data) > most:
        raise UnsafePack(f"{info.filename!r} is larger than it says")
    return data


def _check_paths(manifest: Manifest, table: dict[str, Any]) -> None:
    """Everything that the expert names is in the pack."""
    if manifest.extends is not None:
        raise UnsafePack(
            "the pack's expert extends another", why="a pack is whole in itself", do="do not use it"
        )
    for key, path in paths_of(manifest):
        check_name(path.rstrip("/"))
        inside = path.rstrip("/")
        if not any(name == inside or name.startswith(f"{inside}/") for name in table["files"]):
            raise PackError(
                f"{key} names {path!r}, which is not in the pack", do="have its author pack it again"
            )
