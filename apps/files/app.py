"""The syscalls of the files app.

What: what a model can do with files, in words it can read.
Invariant: reading changes nothing. Every result that holds what files say is untrusted; what was changed, and how
    much of a file is left to read, is said in the result.
Interface: `Files(settings)`.
"""

from __future__ import annotations

import difflib
import io
import os
import re
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Annotated, BinaryIO

from pydantic import Field

from llmos.abi.app import App, Call, Payload, Target, syscall
from llmos.abi.labels import Label, join
from llmos.abi.settings import settings as read_settings
from llmos.apps.files.history import MAX_FILE, History, Made, Make, mark
from llmos.apps.files.text import decoded, lines, matching, search
from llmos.apps.files.volumes import FilesError, Place, Settings, Volumes
from llmos.drivers.beneath import Beneath, Entry, PathError

MAX_LISTED = 300  # entries of one listing
MAX_BELOW = 40  # of a folder with its folders, that are listed at once
MAX_LINES = 2000  # of one reading
MAX_DIFF = 400  # lines of a difference that are shown
MAX_COMPARED = 3000  # lines that are compared one by one
MAX_NEAR = 200  # letters of a line that are compared
CONTEXT = 3  # lines around a difference
_HUNK = re.compile(r"([-+])(\d+)")

Path = Annotated[str, Target, 'path of the file, such as "report.txt" or "data/sales.csv"']
Folder = Annotated[str, Target, 'path of the folder, such as "data"; "" is the working folder']
Pattern = Annotated[str, 'such as "*.csv": the files below whose names fit']


class Files(App, settings=Settings):
    """Files: read, list, search, write, edit, compare, undo."""

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or read_settings("files", Settings)
        self._volumes = Volumes(self._settings)

    # --- looking ---

    @syscall(effect="read", retry="safe")
    def read(
        self,
        path: Path,
        call: Call,
        start: Annotated[int, Field(ge=1), "first line to read"] = 1,
        count: Annotated[int, Field(ge=1, le=MAX_LINES), "lines to read"] = 500,
        numbered: Annotated[bool, "with a number before each line"] = False,
        version: Annotated[int, Field(ge=0), "of an earlier version; 0 is the file as it is"] = 0,
    ) -> str:
        """Read the text in a file."""
        with self._at(call, path) as (place, files):
            name = place.name(place.path)
            if version:
                file: BinaryIO = io.BytesIO(self._history(place).content(place.path, version))
            else:
                file = os.fdopen(files.file(place.path), "rb")
            with file:
                found = lines(file, name, start, count)
        if not found.lines:
            return f"[{name} is empty]" if start == 1 else f"[{name} has fewer than {start} lines]"
        width = len(str(start + len(found.lines)))
        text = [f"{n:>{width}}  {line}" if numbered else line for n, line in enumerate(found.lines, start)]
        if found.more:
            after = start + len(found.lines)
            text.append(f"[lines {start} to {after - 1}; more follows: read on with start={after}]")
        return "\n".join(text)

    @syscall(effect="read", retry="safe")
    def list(
        self,
        call: Call,
        path: Folder = "",
        pattern: Annotated[str, 'such as "*.csv": all files below that fit'] = "",
    ) -> str:
        """List the files in a folder."""
        if path.strip() == "/":
            return _joined(
                [f"/{name}/" for name in self._volumes.names], "there are no folders that begin with /"
            )
        with self._at(call, path) as (place, files):
            if pattern:
                found = [
                    place.name(one) for one in islice(matching(files, place.path, pattern), MAX_LISTED + 1)
                ]
                return _joined(found, f"no file below {place.name(place.path)} fits {pattern}")
            labels = self._history(place).labels()
            here = files.look(place.path)
            rows = []
            entries = [here] if here is not None and here.kind == "file" else _below(files, place.path)
            for entry in entries:
                name = place.name(entry.path)
                if entry.kind == "folder":
                    rows.append(f"{name}/")
                elif entry.kind == "file":
                    words = labels.get(mark(entry), place.label).integrity.name.lower()
                    rows.append(f"{name}  {entry.size} bytes  {_time(entry.modified / 1e9)}  {words}")
                else:
                    rows.append(f"{name}  ({entry.kind}, not followed)")
            return _joined(rows, f"{place.name(place.path)} is empty")

    @syscall(effect="read", retry="safe")
    def search(
        self,
        text: Annotated[str, Field(min_length=1, max_length=500), "words to look for"],
        call: Call,
        path: Folder = "",
    ) -> str:
        """Find which files mention a text, and where."""
        with self._at(call, path) as (place, files):
            found = search(files, place.path, text, lambda: call.cancelled)
            rows = [f"file {place.name(one)}" for one in found.names]
            rows += [f"{place.name(one)}:{number}: {line}" for one, number, line in found.lines]
            rows += [f"[{found.left_out}]"] if found.left_out else []
            return "\n".join(rows) or f"nothing below {place.name(place.path)} holds {text!r}"

    @syscall(effect="read", retry="safe")
    def versions(self, path: Path, call: Call) -> str:
        """List earlier versions of a file."""
        with self._at(call, path) as (place, _):
            found = self._history(place).versions(place.path)
            rows = []
            for one in found:
                size = "no file" if one.size is None else f"{one.size} bytes"
                rows.append(f"version {one.number}: {size}, until {_time(one.time)} ({one.what})")
            return _joined(rows, f"no earlier version of {place.name(place.path)} is kept")

    @syscall(effect="read", retry="safe")
    def diff(
        self,
        path: Path,
        call: Call,
        other: Annotated[
            str, Target, "path of another file; without it, the file before its last change"
        ] = "",
    ) -> str:
        """Compare two files, or a file with its earlier version."""
        with self._at(call, path) as (place, files):
            name = place.name(place.path)
            new = self._text(files, place)
            if other:
                with self._at(call, other) as (second, others):
                    return _diff(new, self._text(others, second), name, second.name(second.path))
            history = self._history(place)
            kept = history.versions(place.path)
            if not kept:
                raise FilesError(
                    f"no earlier version of {name} is kept", do="name another file to compare with"
                )
            old = "" if kept[0].size is None else decoded(history.content(place.path, kept[0].number), name)
            return _diff(old, new, f"{name} (version {kept[0].number})", name)

    # --- changing ---

    @syscall(effect="write", retry="keyed", returns="user")
    def write(
        self, path: Path, text: Annotated[str, Payload, "all that the file shall say"], call: Call
    ) -> str:
        """Write a text into a file."""

        def make(now: bytes | None, _: Label) -> Made:
            data = text.encode()
            old = "new" if now is None else f"it had {len(now)} before; undo brings them back"
            return Made(data, f"wrote {path}: {len(data)} bytes ({old})", call.label)

        return self._change(call, path, "write", make)

    @syscall(effect="write", retry="keyed", returns="user")
    def append(self, path: Path, text: Annotated[str, Payload, "lines to add"], call: Call) -> str:
        """Add lines to a file."""

        def make(now: bytes | None, was: Label) -> Made:
            old = now or b""
            decoded(old, path)
            gap = b"" if not old or old.endswith(b"\n") else b"\n"
            data = old + gap + text.encode() + (b"" if text.endswith("\n") else b"\n")
            label = call.label if now is None else join([was, call.label])
            return Made(data, f"added {len(data) - len(old)} bytes to {path}", label)

        return self._change(call, path, "append", make)

    @syscall(effect="write", retry="keyed")
    def edit(
        self,
        path: Path,
        old: Annotated[str, Field(min_length=1), "text that stands in the file once"],
        new: Annotated[str, Payload, "text to put in its place"],
        call: Call,
    ) -> str:
        """Replace a text in a file by another."""

        def make(now: bytes | None, was: Label) -> Made:
            if now is None:
                raise PathError(f"there is no {path!r}", do="list the folder to see what there is")
            text = decoded(now, path)
            count = text.count(old)
            if count != 1:
                raise _not_once(path, text, old, count)
            changed = text.replace(old, new)
            return Made(
                changed.encode(), _diff(text, changed, f"{path} before", path), join([was, call.label])
            )

        return self._change(call, path, "edit", make)

    @syscall(effect="write", retry="keyed", returns="user")
    def undo(self, path: Path, call: Call) -> str:
        """Undo the last change of a file."""
        with self._at(call, path, change=True) as (place, files):
            return self._history(place).undo(files, place.path, call.key or uuid.uuid4().hex, place.label)

    # --- helpers ---

    def _change(self, call: Call, path: str, what: str, make: Make) -> str:
        with self._at(call, path, change=True) as (place, files):
            if not place.path:
                raise FilesError(f"{path!r} is a folder", do="name a file")
            key = call.key or uuid.uuid4().hex
            return self._history(place).change(files, place.path, what, key, place.label, make)

    @contextmanager
    def _at(self, call: Call, path: str, *, change: bool = False) -> Iterator[tuple[Place, Beneath]]:
        place = self._volumes.place(call, path)
        if change and not place.writable:
            raise FilesError(
                f"{path} may not be changed",
                why="its folder was opened for reading only",
                do="write to the working folder",
            )
        with Beneath(place.folder) as files:
            yield place, files

    def _history(self, place: Place) -> History:
        return History(place.history, versions=self._settings.versions, kept=self._settings.kept)

    def _text(self, files: Beneath, place: Place) -> str:
        return decoded(files.read(place.path, MAX_FILE), place.name(place.path))


def _below(files: Beneath, path: str) -> Sequence[Entry]:
    """What lies in a folder; of a small one, what lies in its folders too."""
    all_of_it = list(islice(files.walk(path), MAX_BELOW + 1))
    return all_of_it if len(all_of_it) <= MAX_BELOW else files.names(path)


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _joined(rows: Sequence[str], nothing: str) -> str:
    """One a line; what is too much is said."""
    more = (
        [f"[there are more than {MAX_LISTED}: name a folder below, or a pattern]"]
        if len(rows) > MAX_LISTED
        else []
    )
    return "\n".join([*rows[:MAX_LISTED], *more]) or nothing


def _diff(old: str, new: str, old_name: str, new_name: str) -> str:
    """A unified difference. What is alike before and behind is left aside first: the method is quadratic."""
    if old == new:
        return "they are the same"
    before, after = old.splitlines(), new.splitlines()
    least = min(len(before), len(after))
    head = next((n for n in range(least) if before[n] != after[n]), least)
    tail = next((n for n in range(least - head) if before[-1 - n] != after[-1 - n]), least - head)
    begin = max(0, head - CONTEXT)
    some = [text[begin : len(text) - max(0, tail - CONTEXT)] for text in (before, after)]
    if max(map(len, some)) > MAX_COMPARED:
        return f"from line {head + 1} on, {len(some[0])} lines of {old_name} are {len(some[1])} others in {new_name}"
    rows = list(difflib.unified_diff(some[0], some[1], old_name, new_name, lineterm="", n=CONTEXT))
    if not rows:
        return "they differ in the ends of lines only"
    rows = [
        _HUNK.sub(lambda found: f"{found[1]}{int(found[2]) + begin}", row) if row.startswith("@@") else row
        for row in rows
    ]
    more = [f"[{len(rows) - MAX_DIFF} lines more]"] if len(rows) > MAX_DIFF else []
    return "\n".join(rows[:MAX_DIFF] + more)


def _not_once(path: str, text: str, old: str, count: int) -> FilesError:
    if count:
        return FilesError(
            f"{path} holds this text {count} times",
            why="it is not clear which is meant",
            do="give more of the text around it",
        )
    first = old.strip().partition("\n")[0][:MAX_NEAR] or old
    lines = [line[:MAX_NEAR] for line in text.splitlines()[:MAX_COMPARED]]
    near = difflib.get_close_matches(first, lines, n=1, cutoff=0.5)
    return FilesError(
        f"{path} does not hold this text",
        do=f"the nearest line is {near[0].strip()!r}" if near else "read it first",
    )
