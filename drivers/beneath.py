"""Files below a folder, and never outside of it.

What: opens, lists, reads and replaces files by paths relative to one folder. Linux's `openat2` resolves a path in one
    step and refuses links and everything that leads out; without it the path is walked name by name, each opened
    in its parent without following links.
Invariant: whatever a path says, and whoever renames or links below the folder meanwhile, nothing outside of it is
    opened, made, replaced or listed. Only regular files are read. A file is replaced whole or not at all.
Interface: `Beneath(folder)`, a context manager: `open`, `read`, `look`, `names`, `walk`, `write`, `remove`;
    `parts(path)`, `numbered(name, form)`. Errors: PathError, DiskFull.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import platform
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from llmos.abi.errors import AppError, DiskFull

MAX_NAME = 255  # bytes of one name, as file systems have it
MAX_DEPTH = 64  # names of a path
MAX_ALIKE = 2000  # names that are looked at for one like one that is not there
MAX_NAMED = 12  # of which all are told
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_OPENAT2 = 437  # the same number on every architecture
_ARCHITECTURES = frozenset({"x86_64", "aarch64", "riscv64", "ppc64le", "s390x"})
_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x02, 0x04, 0x08
_TRIES = 8  # of a resolution that a rename disturbed
_TEMPORARY = ".llmos-"  # begins the names of files that are still being written


class PathError(AppError):
    """A path that leads out, through a link, or to nothing that can be used."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What lies at a path. `kind` is "file", "folder", "link" or "other"; `size` is in bytes, `modified` and
    `changed` in nanoseconds since 1970: programs can set the one, only the system the other."""

    path: str
    kind: str
    size: int
    modified: int
    changed: int
    inode: int


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def parts(path: str) -> tuple[str, ...]:
    """The names in a relative path; () for the folder itself.

    Raises:
        PathError: it is absolute, holds `..`, or a name that no file should have.
    """
    if path.startswith("/"):
        raise PathError(f"{path!r} is not below the folder", why="it begins with /", do="name it from there")
    names = tuple(name for name in path.split("/") if name not in ("", "."))
    for name in names:
        if name == "..":
            raise PathError(
                f"{path!r} leads out of the folder", why="`..` is not followed", do="leave it away"
            )
        if not name.isprintable() or len(os.fsencode(name)) > MAX_NAME or _foreign(name):
            raise PathError(
                f"{path[:80]!r} is no path for a file",
                why=f"a name is text of at most {MAX_NAME} bytes without control characters",
                do="choose another name",
            )
    if len(names) > MAX_DEPTH:
        raise PathError(
            f"a path of {len(names)} names", why=f"at most {MAX_DEPTH} are followed", do="use a shorter one"
        )
    return names


def numbered(name: str, form: str) -> Iterator[str]:
    """The name itself, then without end the same with a number before its ending.

    Args:
        form: of `stem`, `n` and `suffix`: "{stem}-{n}{suffix}".
    """
    stem, dot, suffix = name.rpartition(".")
    stem, suffix = (stem, dot + suffix) if stem else (name, "")
    yield name
    for n in itertools.count(2):
        yield form.format(stem=stem, n=n, suffix=suffix)


def _foreign(name: str) -> bool:
    """Whether a name is not Unicode: bytes that Python carries as surrogates."""
    return any("\ud800" <= letter <= "\udfff" for letter in name)


class Beneath:
    """One folder; every path is relative to it.

    Args:
        folder: may itself be a link or lie behind one: it is the owner's word.
        walking: resolve by walking even where `openat2` works; for tests and comparison.
    """

    def __init__(self, folder: Path | str, *, walking: bool = False) -> None:
        self.folder = Path(folder)
        self._resolve = _walked if walking or not has_openat2() else _resolved
        with _told(str(folder)):
            self._root = os.open(folder, _FOLDER)

    def __enter__(self) -> Beneath:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the folder."""
        root, self._root = self._root, -1
        if root >= 0:
            os.close(root)

    # --- looking ---

    def open(self, path: str, flags: int = os.O_RDONLY) -> int:
        """A file descriptor of what lies there, never of a link. The caller closes it."""
        return self._open(path, parts(path), flags)

    def look(self, path: str) -> Entry | None:
        """What lies at a path, None where nothing does. A link is told as one, not followed."""
        names = parts(path)
        try:
            with self._parent(names) as (folder, name):
                found = os.stat(name, dir_fd=folder, follow_symlinks=False) if name else os.fstat(folder)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _refused(path, error) from None
        return _entry("/".join(names), found)

    def read(self, path: str, limit: int) -> bytes:
        """All bytes of a regular file; PathError where it is none, or longer than `limit` bytes."""
        fd = self.file(path)
        with os.fdopen(fd, "rb") as file:
            size = os.fstat(fd).st_size
            data = file.read(limit + 1) if size <= limit else b""
        if size > limit or len(data) > limit:
            raise PathError(
                f"{path} has {size} bytes", why=f"at most {limit} are read at once", do="read a part of it"
            )
        return data

    def file(self, path: str) -> int:
        """A file descriptor to read a regular file; PathError for folders, pipes and devices."""
        fd = self.open(path, os.O_RDONLY | os.O_NONBLOCK)  # opening a pipe would wait for its writer
        mode = os.fstat(fd).st_mode
        if stat.S_ISREG(mode):
            return fd
        os.close(fd)
        if stat.S_ISDIR(mode):
            raise PathError(f"{path or 'the folder itself'} is a folder", do="list it, or name a file in it")
        raise PathError(f"{path} is no file", why="it is a pipe, a socket or a device")

    def names(self, path: str = "") -> list[Entry]:
        """What lies in a folder, by name; PathError where it is none."""
        fd = self._open(path, parts(path), _FOLDER)
        try:
            with os.scandir(fd) as found:
                entries = [_listed(path, one) for one in found if not one.name.startswith(_TEMPORARY)]
        finally:
            os.close(fd)
        return sorted((one for one in entries if one is not None), key=lambda one: one.path)

    def walk(self, path: str = "") -> Iterator[Entry]:
        """All that lies below a folder, folder by folder, depth first; what cannot be read is passed over."""
        for entry in self.names(path):
            yield entry
            if entry.kind == "folder" and entry.path.count("/") < MAX_DEPTH - 1:
                with suppress(PathError):
                    yield from self.walk(entry.path)

    # --- changing ---

    def write(self, path: str, data: bytes, *, folders: bool = True) -> Entry:
        """Put a file there, whole or not at all; it keeps the rights of the one that it replaces. Returns the new one.

        Args:
            folders: make the folders that are missing on the way.
        """
        names = parts(path)
        if not names:
            raise PathError("a path without a name", do="name the file to write")
        if folders:
            self._make_folders(path, names[:-1])
        with _told(path), self._parent(names) as (folder, name):
            mode = None
            with suppress(FileNotFoundError):
                before = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if not stat.S_ISREG(before.st_mode):
                    kind = "a folder" if stat.S_ISDIR(before.st_mode) else "a link or a device"
                    raise PathError(
                        f"{path} is {kind}", why="only files are replaced", do="choose another name"
                    )
                mode = stat.S_IMODE(before.st_mode) & 0o777
            temporary = _TEMPORARY + secrets.token_hex(8)
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=folder)
            try:
                with os.fdopen(fd, "wb") as file:
                    if mode is not None:
                        os.fchmod(fd, mode)
                    file.write(data)
                    file.flush()
                    os.fsync(fd)
                    os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
                    written = os.fstat(fd)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)
                raise
            os.fsync(folder)
            return _entry("/".join(names), written)

    def remove(self, path: str) -> None:
        """Remove a file, or a link itself; PathError where there is none."""
        names = parts(path)
        with _told(path), self._parent(names) as (folder, name):
            os.unlink(name, dir_fd=folder)
            os.fsync(folder)

    def _make_folders(self, path: str, names: Sequence[str]) -> None:
        for end in range(1, len(names) + 1):
            some = tuple(names[:end])
            with _told(path), self._parent(some) as (folder, name), suppress(FileExistsError):
                os.mkdir(name, 0o777, dir_fd=folder)

    # --- resolving ---

    def _open(self, path: str, names: tuple[str, ...], flags: int) -> int:
        try:
            return self._resolve(self._root, names, flags | os.O_CLOEXEC)
        except OSError as error:
            refused = _refused(path, error)
            if error.errno == errno.ENOENT and names and (there := self._there(names[-1])):
                refused.do = there
            raise refused from None

    def _there(self, name: str) -> str:
        """What there is in place of something that is not: a name alike, or all of a few."""
        with suppress(PathError):
            found = [entry.path for entry in itertools.islice(self.walk(), MAX_ALIKE)]
            by_name = {path.rpartition("/")[2].casefold(): path for path in found}
            if near := get_close_matches(name.casefold(), by_name, 1):
                return f"there is {by_name[near[0]]!r}"
            if 0 < len(found) <= MAX_NAMED:
                return f"there are {', '.join(found)}"
        return ""

    @contextmanager
    def _parent(self, names: tuple[str, ...]) -> Iterator[tuple[int, str]]:
        """A descriptor of the folder that holds the last name, and that name; "" for the folder itself."""
        fd = self._resolve(self._root, names[:-1], _FOLDER)
        try:
            yield fd, names[-1] if names else ""
        finally:
            os.close(fd)


def _resolved(root: int, names: tuple[str, ...], flags: int) -> int:
    """By `openat2`: one step for the kernel, no links, never above `root`."""
    how = _How(flags | os.O_NOFOLLOW, 0, _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS)
    target = os.fsencode("/".join(names) or ".")
    for _ in range(_TRIES):
        fd = int(_libc().syscall(_OPENAT2, root, target, ctypes.byref(how), ctypes.sizeof(how)))
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        if number not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(number, os.strerror(number))


def _walked(root: int, names: tuple[str, ...], flags: int) -> int:
    """Name by name, each opened in its parent and never through a link."""
    fd = os.open(".", _FOLDER if names else flags, dir_fd=root)
    for at, name in enumerate(names):
        last = at == len(names) - 1
        try:
            inner = os.open(name, (flags if last else _FOLDER) | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        except NotADirectoryError:
            link = stat.S_ISLNK(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
            raise (
                OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                if link
                else NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            ) from None
        finally:
            os.close(fd)
        fd = inner
    return fd


@cache
def has_openat2() -> bool:
    """Whether this kernel resolves paths in one step (Linux 5.6 or newer, and no seccomp filter against it)."""
    if platform.machine() not in _ARCHITECTURES or not hasattr(os, "O_PATH"):
        return False
    try:
        root = os.open("/", _FOLDER)
        try:
            os.close(_resolved(root, (), _FOLDER))
        finally:
            os.close(root)
    except OSError:
        return False
    return True


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


_WHY = {
    errno.ENOENT: ("there is no {}", "", "list the folder to see what there is"),
    errno.ENOTDIR: ("there is no {}", "a part of the path is a file, not a folder", "list the folder"),
    errno.ELOOP: ("{} is a link, or lies behind one", "links are not followed", "name the file itself"),
    errno.EXDEV: ("{} leads out of the folder", "", "name a file below it"),
    errno.EISDIR: ("{} is a folder", "", "name a file"),
    errno.EACCES: ("{} may not be used", "its permissions say so", ""),
    errno.EPERM: ("{} may not be used", "its permissions say so", ""),
    errno.EROFS: ("{} cannot be written", "the file system is read-only", ""),
    errno.ENXIO: ("{} is no file", "it is a pipe, a socket or a device", ""),
    errno.ENAMETOOLONG: ("{} is too long for a path", "", "use shorter names"),
}


@contextmanager
def _told(path: str) -> Iterator[None]:
    """What the operating system refuses, as an error of ours."""
    try:
        yield
    except OSError as error:
        raise _refused(path, error) from None


def _refused(path: str, error: OSError) -> PathError | DiskFull:
    number = error.errno or 0
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DiskFull(f"no room for {path}", do="make room and try again")
    what, why, do = _WHY.get(number, ("{} cannot be used", error.strerror or "", ""))
    return PathError(what.format(repr(path) if path else "the folder"), why=why, do=do)


def _entry(path: str, found: os.stat_result) -> Entry:
    kinds = ((stat.S_ISREG, "file"), (stat.S_ISDIR, "folder"), (stat.S_ISLNK, "link"))
    kind = next((name for test, name in kinds if test(found.st_mode)), "other")
    return Entry(path, kind, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def _listed(folder: str, one: os.DirEntry[str]) -> Entry | None:
    """An entry of a folder; None where it is gone by now, or nobody could name it."""
    path = "/".join((*parts(folder), one.name))
    try:
        parts(path)
        return _entry(path, one.stat(follow_symlinks=False))
    except (OSError, PathError):
        return None
