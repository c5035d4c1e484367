"""Files between a process's working volume and a sandbox's working folder.

What: carries what changed into the sandbox before its program goes on, and out of it afterwards.
Invariant: regular files and folders only; links, pipes and devices that a program makes inside are left there, and
    said. Neither side is ever opened through a link. What comes out has at most the size of the sandbox's disk,
    whatever its files claim. A file that changed on both sides becomes what it is inside.
Interface: `Mirror(sandbox, volume)`, made before `sandbox.begin()`: `push`, `pull` -> `Changes`; `close`. SandboxFull.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from llmos.drivers.beneath import Beneath, Entry, PathError
from llmos.drivers.sandbox.errors import SandboxFull
from llmos.drivers.sandbox.sandbox import Sandbox

MAX_FILES = 5_000  # files and folders that are carried

_Mark = tuple[str, int, int]  # kind, size, time of change: another one means that a file is another


@dataclass(slots=True)
class Changes:
    """What a `pull` brought: paths that are new or have changed, paths that are gone, and what was left inside."""

    written: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def words(self) -> str:
        """For the reader of a result; "" where nothing changed. Hidden files (`.git/…`) are not listed."""
        parts = []
        for name, paths in (
            ("saved", self.written),
            ("removed", self.removed),
            ("not carried out", self.left),
        ):
            paths = [path for path in paths if not f"/{path}".count("/.")]
            if paths:
                more = f" and {len(paths) - 10} more" if len(paths) > 10 else ""
                parts.append(f"{name}: {', '.join(paths[:10])}{more}")
        return "; ".join(parts)


class Mirror:
    """The two folders, and what is known of them."""

    def __init__(self, sandbox: Sandbox, volume: Path) -> None:
        self._inner = Beneath(sandbox.work)
        self._outer = Beneath(volume)
        self._limit, self._owner = sandbox.limits.disk, sandbox.owner
        self._known: dict[str, tuple[_Mark, _Mark]] = {}  # path -> as it lies outside, inside

    def close(self) -> None:
        """Let go of both folders."""
        self._inner.close()
        self._outer.close()

    def push(self) -> None:
        """Bring into the sandbox what has changed outside.

        Raises:
            SandboxFull: it does not fit the sandbox's disk.
        """
        found = {e.path: e for e in self._look(self._outer) if e.kind in ("file", "folder")}
        if (size := sum(e.size for e in found.values() if e.kind == "file")) > self._limit:
            raise SandboxFull(
                f"the working folder holds {size} bytes, the sandbox's disk {self._limit}",
                do="remove files, or raise `disk` in llmos.yaml",
            )
        for path in sorted(self._known.keys() - found.keys(), reverse=True):
            with _as(self._owner), suppress(PathError):
                _remove(self._inner, path, self._known[path][1])
            del self._known[path]
        for path, entry in found.items():
            known = self._known.get(path)
            if known is None or known[0] != _mark(entry):
                data, mode = _taken(self._outer, entry, self._limit)
                try:
                    with _as(self._owner):
                        self._put(self._inner, entry, data, mode)
                except OSError as error:
                    why = error.strerror or ""
                    raise SandboxFull(
                        f"{path} cannot be put into the sandbox", why=why, do="remove files"
                    ) from None
                inside = self._inner.look(path)
                if inside is not None:
                    self._known[path] = (_mark(entry), _mark(inside))

    def pull(self) -> Changes:
        """Bring out of the sandbox what its program has changed. What cannot come is told in the result."""
        changes = Changes()
        budget = self._limit
        seen: set[str] = set()
        try:
            for entry in self._look(self._inner):
                if entry.kind not in ("file", "folder"):
                    changes.left.append(f"{entry.path} (a {entry.kind})")
                    continue
                seen.add(entry.path)
                known = self._known.get(entry.path)
                if known is not None and known[1] == _mark(entry):
                    continue
                try:
                    data, mode = _taken(self._inner, entry, budget)
                    budget -= len(data)
                    if known is not None and known[0][0] != entry.kind:
                        _remove(self._outer, entry.path, known[0])
                    self._put(self._outer, entry, data, mode)
                    outside = self._outer.look(entry.path)
                except (PathError, OSError) as error:
                    changes.left.append(f"{entry.path} ({getattr(error, 'what', None) or error})")
                    continue
                if outside is not None:
                    self._known[entry.path] = (_mark(outside), _mark(entry))
                    if entry.kind == "file":
                        changes.written.append(entry.path)
        except SandboxFull as error:
            changes.left.append(str(error))
            return changes
        for path in sorted(self._known.keys() - seen, reverse=True):
            outer, _ = self._known.pop(path)
            here = self._outer.look(path)
            if here is not None and _mark(here) == outer:
                with suppress(PathError):
                    _remove(self._outer, path, outer)
                    if outer[0] == "file":
                        changes.removed.append(path)
        return changes

    def _look(self, side: Beneath) -> Iterator[Entry]:
        for number, entry in enumerate(side.walk()):
            if number >= MAX_FILES:
                raise SandboxFull(f"more than {MAX_FILES} files and folders", do="remove some, or pack them")
            yield entry

    @staticmethod
    def _put(side: Beneath, entry: Entry, data: bytes, mode: int) -> None:
        """Make it there, whole or not at all; a file or a link of that name is replaced. Not written through to the
        disk: who has many files should not wait for each."""
        with _above(side, entry.path) as (folder, name):
            if entry.kind == "folder":
                with suppress(FileExistsError):
                    os.mkdir(name, 0o755, dir_fd=folder)
                return
            fresh = f".llmos-{os.getpid()}"
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
            try:
                with os.fdopen(fd, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fchmod(fd, mode)
                    os.utime(fd, ns=(entry.modified, entry.modified))
                os.rename(fresh, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with suppress(OSError):
                    os.unlink(fresh, dir_fd=folder)
                raise


def _mark(entry: Entry) -> _Mark:
    return ("folder", 0, 0) if entry.kind == "folder" else (entry.kind, entry.size, entry.modified)


def _taken(side: Beneath, entry: Entry, limit: int) -> tuple[bytes, int]:
    """What is in a file, and its rights: 0o644, or 0o755 for what may be executed. PathError where it is too long."""
    if entry.kind == "folder":
        return b"", 0o755
    with os.fdopen(side.file(entry.path), "rb") as file:
        found = os.fstat(file.fileno())
        data = file.read(limit + 1) if found.st_size <= limit else b""
        if max(found.st_size, len(data)) > limit:
            raise PathError(f"{entry.path} has {found.st_size} bytes, of which {limit} are carried")
        return data, 0o755 if found.st_mode & 0o100 else 0o644


def _remove(side: Beneath, path: str, mark: _Mark) -> None:
    if mark[0] == "folder":
        with _above(side, path) as (folder, name), suppress(OSError):  # one that somebody uses stays
            os.rmdir(name, dir_fd=folder)
    else:
        side.remove(path)


@contextmanager
def _above(side: Beneath, path: str) -> Iterator[tuple[int, str]]:
    """A descriptor of the folder that holds `path`, and its name there."""
    parent, _, name = path.rpartition("/")
    fd = side.open(parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd, name
    finally:
        os.close(fd)


@contextmanager
def _as(owner: int) -> Iterator[None]:
    """For root: make files as the user who runs inside, for whom alone the file system there has a number."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None)  # of this thread only
    libc.setfsgid(owner)
    libc.setfsuid(owner)
    try:
        yield
    finally:
        libc.setfsuid(0)
        libc.setfsgid(0)
