"""The demo's documents: the chapters and appendices of Debian's policy manual.

What: finds the manual where the package `debian-policy` is installed, else fetches the package without root
    (`apt-get download`, `dpkg -x`), and keeps its chapters in a folder of the cache.
Invariant: the folder appears whole, by one rename, or not at all. Left out are the indexes, the table of
    contents, and the checklist for upgrades, which lists what the rules once were.
Interface: `policy_manual(cache) -> Path`.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from llmos.abi.errors import DocumentError

_INSTALLED = Path("/usr/share/doc/debian-policy/policy.html")
_CHAPTERS = ("ch-*.html", "ap-*.html")
_SECONDS = 300


def policy_manual(cache: Path, installed: Path = _INSTALLED) -> Path:
    """The folder of the manual's chapters.

    Raises:
        DocumentError: the manual is not on this machine and cannot be fetched.
    """
    folder = cache / "demo" / "debian-policy"
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".debian-policy-") as name:
            made = Path(name)
            source = installed if _pages(installed) else _fetch(made)
            chapters = made / "chapters"
            chapters.mkdir()
            for page in _pages(source):
                shutil.copy(page, chapters)
            try:
                chapters.rename(folder)
            except OSError:
                if not folder.is_dir():  # another demo was faster
                    raise
    except OSError as e:
        raise DocumentError(
            f"the policy manual cannot be put into {folder}",
            why=e.strerror or str(e),
            do="make room there, or name another cache with LLMOS_CACHE",
        ) from e
    return folder


def _pages(folder: Path) -> list[Path]:
    return sorted(page for pattern in _CHAPTERS for page in folder.glob(pattern))


def _fetch(folder: Path) -> Path:
    """Fetch and unpack the package below `folder`; needs neither root nor an installation."""
    _run(["apt-get", "download", "debian-policy"], folder)
    (package,) = folder.glob("debian-policy_*.deb")
    _run(["dpkg", "-x", package.name, "unpacked"], folder)
    manual = folder / "unpacked" / _INSTALLED.relative_to("/")
    if not _pages(manual):
        raise _missing("the package debian-policy has no chapters in HTML")
    return manual


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except FileNotFoundError:
        raise _missing(f"this machine has no {command[0]}") from None
    except subprocess.TimeoutExpired:
        raise _missing(f"{command[0]} took longer than {_SECONDS} s") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise _missing(f"{' '.join(command[:2])}: {said[-1] if said else f'exit code {done.returncode}'}")


def _missing(why: str) -> DocumentError:
    return DocumentError(
        "the demo's documents, Debian's policy manual, are not on this machine and cannot be fetched",
        why=why,
        do="on Debian or Ubuntu: apt-get update && apt-get install debian-policy; or ask about documents of "
        'your own: llmos ask "…" --mount FOLDER',
    )
