"""Packs become experts of this machine.

What: installs, upgrades, verifies and removes.
Invariant: an expert is installed whole or not at all, in a folder of its own, by one rename and one line of a list. It
    is granted nothing before somebody agreed; an upgrade that wants more asks again, and must be signed by whoever
    signed what it replaces. What was agreed to is kept before the new version counts.
Interface: `install(shelf, pack, …) -> Installed`, `remove(shelf, name)`, `check(shelf, name) -> signer`.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmos.abi.errors import ConfigError
from llmos.apps.experts.errors import BadSignature, ConsentMissing, ExpertError, PackError
from llmos.apps.experts.expert import FILE, load
from llmos.apps.experts.grants import Consent, Consents, wanted
from llmos.apps.experts.shelf import Installed, Shelf, shipped_names
from llmos.apps.experts.signing import short
from llmos.apps.experts.store import order
from llmos.apps.experts.unpacking import Pack, check_unpacked

if TYPE_CHECKING:
    from llmos.abi.manifest import Syscall


def install(
    shelf: Shelf,
    pack: Pack,
    syscalls: Mapping[str, Syscall],
    consent: Consent,
    *,
    store: str = "",
    unsigned: bool = False,
    older: bool = False,
) -> Installed:
    """Make a pack an expert of this machine, or a new version of one.

    Args:
        syscalls: of this machine.
        consent: asked about the grants that nobody has agreed to yet, if there are any.
        store: where newer versions are looked for.
        unsigned: take one that nobody signed.
        older: take a version that is not newer than the installed one.

    Raises:
        ConsentMissing: nobody agreed; nothing was installed.
        BadSignature: nobody signed it, or not who signed the installed version.
        PackError: it is damaged, or not newer.
        ConfigError: it wants syscalls that this machine does not have.
    """
    name, version = pack.manifest.expert, pack.manifest.version
    if name in shipped_names():
        raise PackError(
            f"{name} is the name of an expert of llmos itself", do="ask its author for another name"
        )
    if not pack.signer and not unsigned:
        raise BadSignature(
            f"nobody has signed {name} {version}", why="so nobody can say that it is its author's",
            do="ask its author to sign it, or take it as it is: --unsigned",
        )  # fmt: skip
    with _locked(shelf):
        entries = shelf.installed()
        before = entries.get(name)
        if before is not None:
            _check_upgrade(before, pack, older)
        home = shelf.state / "installed"
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = home / f"{name}-{version}-{pack.digest[:12]}"
        consents = Consents(shelf.state)
        with _fresh(home) as fresh:
            pack.unpack(fresh)
            expert = load(fresh / FILE, "installed", shelf.find)
            wants = wanted(expert, syscalls) if expert.manifest.grants else []
            final = replace(expert, file=folder / FILE)
            old = None if before is None else replace(expert, file=home / before.folder / FILE)
            agreed = consents.agreed(old) if old is not None else None
            missing = [one for one in wants if (agreed or {}).get(one.grant) != one.fingerprint]
            if missing and not consent(expert, missing, [one for one in wants if one not in missing]):
                raise ConsentMissing(
                    f"{name} {version} was not installed", why="nobody agreed to what it wants",
                    do="install it again and agree, or do without it",
                )  # fmt: skip
            if folder.exists():  # a crash left it, or it is installed already
                shutil.rmtree(folder)
            fresh.rename(folder)
        consents.agree(final, wants)
        entry = Installed(name, version, folder.name, pack.signer, store or (before.store if before else ""))
        shelf.keep_installed({**entries, name: entry})
        if before is not None and before.folder != folder.name:
            _discard(home / before.folder, consents)
    return entry


def remove(shelf: Shelf, name: str) -> Installed:
    """Take an installed expert away. ExpertError: there is none."""
    with _locked(shelf):
        entries = shelf.installed()
        if name not in entries:
            raise _unknown(shelf, name)
        gone = entries.pop(name)
        shelf.keep_installed(entries)
        _discard(shelf.state / "installed" / gone.folder, Consents(shelf.state))
    return gone


def check(shelf: Shelf, name: str) -> str:
    """Whether an installed expert is still what was signed; its signer.

    Raises:
        PackError: something was changed. BadSignature, ExpertError.
    """
    if (entry := shelf.installed().get(name)) is None:
        raise _unknown(shelf, name)
    signer = check_unpacked(shelf.state / "installed" / entry.folder)
    if signer != entry.signer:
        raise BadSignature(
            f"{name} is signed by {short(signer)} now", why=f"it was installed from {short(entry.signer)}"
        )
    return signer


def _check_upgrade(before: Installed, pack: Pack, older: bool) -> None:
    if before.signer and pack.signer != before.signer:
        raise BadSignature(
            f"{before.name} {pack.manifest.version} is not signed by its author",
            why=f"{short(before.signer)} signed what is installed, {short(pack.signer)} this",
            do=f"do not use it; if you are sure, first: llmos expert rm {before.name}",
        )
    if order(pack.manifest.version) <= order(before.version) and not older:
        raise PackError(
            f"{before.name} {before.version} is installed", why=f"{pack.manifest.version} is not newer",
            do=f"to have it nonetheless: llmos expert rm {before.name}, then install",
        )  # fmt: skip


def _unknown(shelf: Shelf, name: str) -> ExpertError:
    known = ", ".join(shelf.installed()) or "none"
    return ExpertError(f"{name} is not installed", why=f"installed are {known}", do="llmos expert list")


def _discard(folder: Path, consents: Consents) -> None:
    consents.forget(folder / FILE)
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _fresh(home: Path) -> Iterator[Path]:
    """A new folder beside the installed ones, gone afterwards unless it was renamed; leavings of a crash go first."""
    for left in home.glob(".new-*"):
        shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=".new-", dir=home))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(shelf: Shelf) -> Iterator[None]:
    """One installation at a time."""
    try:
        shelf.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (shelf.state / ".lock").open("w")
    except OSError as error:
        raise ConfigError(f"{shelf.state} cannot be written", why=error.strerror or str(error)) from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
