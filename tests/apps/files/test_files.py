"""The files app: what is read and said, what is kept and brought back, and what nobody can reach."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmos.abi.app import Call
from llmos.abi.errors import AppError
from llmos.abi.events import Result
from llmos.abi.labels import STORE, UNTRUSTED, USER, Integrity, Label
from llmos.abi.manifest import Manifest
from llmos.apps.files import Files, Settings
from llmos.apps.files.history import MAX_FILE, History
from llmos.apps.files.text import MAX_LINE
from llmos.apps.files.volumes import FilesError, Folder
from llmos.drivers.beneath import Beneath, PathError
from llmos.testing import call
from tests.abi.test_schema import complaint

ROOT = Path(__file__).resolve().parents[3]
_keys = itertools.count()


@dataclass
class Caller:
    """Who calls, in the place of the kernel."""

    volume: Path | None
    label: Label = UNTRUSTED
    key: str = field(default_factory=lambda: f"key-{next(_keys)}")
    cancelled: bool = False


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    folder = tmp_path / "work" / "7"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "todo.txt").write_text("milk\neggs\n")
    return folder


@pytest.fixture
def files(tmp_path: Path, notes: Path) -> Files:
    folders = {
        "notes": Folder(path=notes, trust="mine", write=True),
        "shared": Folder(path=notes),
    }
    return Files(Settings(folders=folders, history=tmp_path / "history", versions=4, kept=10_000))


@pytest.fixture
def by(volume: Path) -> Callable[..., Call]:
    """A call by a process with that working volume."""
    return lambda **more: cast(Call, Caller(volume, **more))


By = Callable[..., Call]


def test_write_read_append_edit_undo(files: Files, by: By, volume: Path) -> None:
    assert files.write("a/b.txt", "one\ntwo\n", by()) == "wrote a/b.txt: 8 bytes (new)"
    assert (volume / "a" / "b.txt").read_text() == "one\ntwo\n"
    assert files.read("a/b.txt", by()) == "one\ntwo"
    assert files.append("a/b.txt", "three", by()) == "added 6 bytes to a/b.txt"
    said = files.edit("a/b.txt", "two", "2", by())
    assert "-two" in said
    assert "+2" in said
    assert "@@ -1,3 +1,3 @@" in said
    assert files.diff("a/b.txt", by()).splitlines()[3:] == [" one", "-two", "+2", " three"]
    assert files.read("a/b.txt", by(), version=3) == "one\ntwo\nthree"
    assert [line.split(",")[0] for line in files.versions("a/b.txt", by()).splitlines()] == [
        "version 3: 14 bytes", "version 2: 8 bytes", "version 1: no file",
    ]  # fmt: skip
    for text in ("one\ntwo\nthree\n", "one\ntwo\n"):
        files.undo("a/b.txt", by())
        assert (volume / "a" / "b.txt").read_text() == text
    assert "gone again" in files.undo("a/b.txt", by())
    assert not (volume / "a" / "b.txt").exists()
    with pytest.raises(FilesError, match="no change to undo"):
        files.undo("a/b.txt", by())


def test_what_is_replaced_is_told_and_comes_back(files: Files, by: By, volume: Path) -> None:
    (volume / "x").write_text("from elsewhere")
    assert "it had 14 before" in files.write("x", "mine", by())
    files.undo("x", by())
    assert (volume / "x").read_text() == "from elsewhere"
    files.write("x", "again", by())  # a change after an undo
    files.undo("x", by())
    assert (volume / "x").read_text() == "from elsewhere"


def test_undo_does_not_lose_what_others_wrote_since(files: Files, by: By, volume: Path) -> None:
    files.write("x", "one", by())
    (volume / "x").write_text("by the interpreter")
    with pytest.raises(FilesError, match="something else since"):
        files.undo("x", by())
    assert (volume / "x").read_text() == "by the interpreter"


def test_a_key_takes_effect_once(files: Files, by: By, volume: Path) -> None:
    one = by(key="k")
    said = files.append("log", "line", one)
    assert files.append("log", "line", one) == said
    assert (volume / "log").read_text() == "line\n"
    files.write("log", "a", by())
    files.write("log", "b", by())
    undo = by(key="u")
    files.undo("log", undo)
    files.undo("log", undo)
    assert (volume / "log").read_text() == "a"


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_crash_in_the_middle_is_made_good(
    files: Files, by: By, volume: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies between the history and the file, or between the file and its mark."""
    files.append("log", "one", by())
    write = Beneath.write

    def dies(self: Beneath, path: str, data: bytes) -> Any:
        if where == "after":
            write(self, path, data)
        raise KeyboardInterrupt

    monkeypatch.setattr(Beneath, "write", dies)
    with pytest.raises(KeyboardInterrupt):
        files.append("log", "two", by(key="k"))
    monkeypatch.undo()
    files.append("log", "two", by(key="k"))
    assert (volume / "log").read_text() == "one\ntwo\n"
    files.undo("log", by())
    assert (volume / "log").read_text() == "one\n"


def test_a_lost_call_does_not_overwrite_what_came_after(
    files: Files, by: By, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Beneath, "write", dies)
    with pytest.raises(KeyboardInterrupt):
        files.write("x", "late", by(key="k"))
    monkeypatch.undo()
    (volume / "x").write_text("newer")
    with pytest.raises(FilesError, match="changed by others"):
        files.write("x", "late", by(key="k"))
    assert (volume / "x").read_text() == "newer"


@pytest.mark.slow
def test_killed_at_any_moment_a_file_is_whole_and_a_key_counts_once(tmp_path: Path) -> None:
    volume = tmp_path / "work" / "1"
    volume.mkdir(parents=True)
    program = (
        "import sys\nfrom pathlib import Path\nfrom tests.apps.files.test_files import Caller\n"
        "from llmos.apps.files import Files\nfiles = Files()\n"
        "for n in range(int(sys.argv[2]), 10_000):\n"
        "    files.append('log', f'line {n}', Caller(Path(sys.argv[1]), key=str(n)))\n    print(n, flush=True)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    next_line = 0
    for _ in range(12):
        child = subprocess.Popen(
            [sys.executable, "-c", program, str(volume), str(next_line)],
            env=environment,
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        for _, line in zip(range(8), child.stdout, strict=False):
            next_line = int(line) + 1
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read().split()
        child.wait()
        child.stdout.close()
        next_line = int(rest[-1]) + 1 if rest else next_line
    last = Caller(volume, key=str(next_line))
    Files().append("log", f"line {next_line}", cast(Call, last))
    assert (volume / "log").read_text().splitlines() == [f"line {n}" for n in range(next_line + 1)]


def test_versions_are_bounded(files: Files, by: By) -> None:
    for n in range(8):
        files.write("x", str(n), by())
    assert len(files.versions("x", by()).splitlines()) == 4
    for n in range(6):
        files.write(f"big{n}", "a" * 4000, by())
        files.write(f"big{n}", "b", by())
    kept = [n for n in range(6) if "version 2" in files.versions(f"big{n}", by())]
    assert kept == [4, 5]
    with pytest.raises(FilesError, match="no version 1"):
        files.read("big0", by(), version=1)


def test_what_could_not_be_kept_is_not_replaced(files: Files, by: By, volume: Path) -> None:
    with (volume / "big").open("wb") as file:
        file.truncate(MAX_FILE + 1)
    with pytest.raises(FilesError, match="kept"):
        files.write("big", "small", by())
    assert (volume / "big").stat().st_size == MAX_FILE + 1
    with pytest.raises(FilesError, match="at most"):
        files.write("new", "x" * (MAX_FILE + 1), by())
    assert not (volume / "new").exists()


def test_many_at_once_lose_nothing(files: Files, by: By, volume: Path) -> None:
    threads = [threading.Thread(target=lambda n=n: files.append("log", f"line {n}", by())) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted((volume / "log").read_text().split("\n")) == ["", *sorted(f"line {n}" for n in range(12))]


# --- reading ---


def test_a_long_file_is_read_in_parts(files: Files, by: By, volume: Path) -> None:
    (volume / "long").write_text("".join(f"line {n}\n" for n in range(1, 10_001)))
    first = files.read("long", by()).splitlines()
    assert first[:2] == ["line 1", "line 2"]
    assert first[-1] == "[lines 1 to 500; more follows: read on with start=501]"
    assert files.read("long", by(), start=9_999) == "line 9999\nline 10000"
    assert files.read("long", by(), start=9_999, numbered=True) == " 9999  line 9999\n10000  line 10000"
    assert "fewer than 20000 lines" in files.read("long", by(), start=20_000)
    seen: list[str] = []
    while (start := len(seen) + 1) <= 10_000:
        seen += [
            row for row in files.read("long", by(), start=start, count=2000).splitlines() if row[0] != "["
        ]
    assert seen == [f"line {n}" for n in range(1, 10_001)]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), st.integers(0, 3))
def test_a_line_without_end_is_read_in_pieces_that_break_no_letter(
    files: Files, by: By, volume: Path, text: str, odd: int
) -> None:
    line = "x" * odd + text * (3 * MAX_LINE // len(text.encode()))
    (volume / "one").write_text(line)
    read, start = "", 1
    while len(read) < len(line):
        rows = files.read("one", by(), start=start).split("\n[lines ")[0].split("\n")
        read, start = read + "".join(rows), start + len(rows)
    assert read == line


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"%PDF-1.7 ...", "a PDF"),
        (b"\x89PNG\r\n", "a PNG picture"),
        (b"abc\0def", "binary data"),
        (b"caf\xe9 au lait", "not UTF-8"),
        (b"\xff\xfea\0", "binary data"),
    ],
)
def test_what_is_not_text_is_said(files: Files, by: By, volume: Path, data: bytes, kind: str) -> None:
    (volume / "x").write_bytes(data)
    with pytest.raises(FilesError, match=kind):
        files.read("x", by())
    with pytest.raises(FilesError, match=kind):
        files.append("x", "y", by())
    assert (volume / "x").read_bytes() == data


def test_text_with_a_mark_and_windows_ends(files: Files, by: By, volume: Path) -> None:
    (volume / "x").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    assert files.read("x", by()) == "one\ntwo"
    (volume / "empty").write_bytes(b"")
    assert files.read("empty", by()) == "[empty is empty]"


def test_listing(files: Files, by: By, volume: Path) -> None:
    assert files.list(by()) == ". is empty"
    (volume / "data").mkdir()
    (volume / "data" / "a.csv").write_text("1,2")
    (volume / "link").symlink_to("/etc")
    files.write("b.txt", "x", by(label=USER))
    rows = files.list(by()).splitlines()
    assert rows[0].startswith("b.txt  1 bytes")
    assert rows[0].endswith("user")
    assert rows[1] == "data/" and rows[2].startswith("data/a.csv  3 bytes"), (
        "of a small folder all that lies below"
    )
    assert rows[3:] == ["link  (link, not followed)"]
    assert files.list(by(), "data").startswith("data/a.csv  3 bytes")
    assert files.list(by(), pattern="*.csv") == "data/a.csv"
    assert files.list(by(), pattern="*.doc") == "no file below . fits *.doc"
    assert files.list(by(), "/").splitlines() == ["/notes/", "/shared/"]
    for n in range(400):
        (volume / f"n{n}").touch()
    assert "more than 300" in files.list(by()) and "data/a.csv" not in files.list(by())
    with pytest.raises(PathError, match="no 'nowhere'"):
        files.list(by(), "nowhere")


def test_searching(files: Files, by: By, volume: Path) -> None:
    (volume / "plan.md").write_text("First\nbuy Milk today\n")
    (volume / "milk.txt").write_text("nothing")
    (volume / "binary").write_bytes(b"\0milk")
    (volume / "out").symlink_to("/etc/passwd")
    assert files.search("milk", by()).splitlines() == ["file milk.txt", "plan.md:2: buy Milk today"]
    assert files.search("root:", by()) == "nothing below . holds 'root:'"
    assert files.search("eggs", by(), "/notes") == "/notes/todo.txt:2: eggs"
    (volume / "many").write_text("milk\n" * 200)
    assert files.search("milk", by()).splitlines()[-1] == "[only the first 50 lines are shown]"


# --- editing ---


def test_an_edit_is_of_one_place(files: Files, by: By, volume: Path) -> None:
    (volume / "x").write_text("alpha beta\nalpha gamma\n")
    with pytest.raises(FilesError, match="2 times"):
        files.edit("x", "alpha", "A", by())
    with pytest.raises(FilesError, match="nearest line is 'alpha gamma'"):
        files.edit("x", "alpha gama", "A", by())
    with pytest.raises(PathError, match="no 'y'"):
        files.edit("y", "a", "b", by())
    assert "same" in files.edit("x", "beta", "beta", by())
    assert (volume / "x").read_text() == "alpha beta\nalpha gamma\n"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from("abcde"), max_size=30), st.lists(st.sampled_from("abcde"), max_size=30))
def test_a_difference_can_be_applied(
    files: Files, by: By, volume: Path, old: list[str], new: list[str]
) -> None:
    """What `diff` says turns the one file into the other, at the lines that it names."""
    (volume / "old").write_text("".join(f"{line}\n" for line in old))
    (volume / "new").write_text("".join(f"{line}\n" for line in new))
    said = files.diff("old", by(), "new")
    if old == new:
        assert said == "they are the same"
        return
    made, at = [], 0
    for row in said.splitlines()[2:]:
        if row.startswith("@@"):
            place = row.split()[1].lstrip("-").split(",")
            begin = int(place[0]) - (0 if place[-1] == "0" and len(place) == 2 else 1)
            made += old[at:begin]
            at = begin
        elif row[0] in " -":
            assert old[at] == row[1:]
            at += 1
            made += [row[1:]] if row[0] == " " else []
        else:
            made.append(row[1:])
    assert made + old[at:] == new


def test_large_differences_are_bounded(files: Files, by: By, volume: Path) -> None:
    (volume / "a").write_text("".join(f"{n}\n" for n in range(20_000)))
    (volume / "b").write_text("".join(f"{n * 7 % 20_000}\n" for n in range(20_000)))
    assert files.diff("a", by(), "b").startswith("from line 2 on, ")


# --- volumes, bounds and labels ---


def test_the_owners_folders(files: Files, by: By, notes: Path, tmp_path: Path) -> None:
    assert files.read("/notes/todo.txt", by()) == "milk\neggs"
    files.append("/notes/todo.txt", "bread", by())
    assert (notes / "todo.txt").read_text() == "milk\neggs\nbread\n"
    files.undo("/notes/todo.txt", by())
    assert (notes / "todo.txt").read_text() == "milk\neggs\n"
    assert list(notes.iterdir()) == [notes / "todo.txt"]
    with pytest.raises(FilesError, match="reading only"):
        files.write("/shared/x", "y", by())
    with pytest.raises(FilesError, match="no folder /etc"):
        files.read("/etc/passwd", by())
    with pytest.raises(PathError):
        files.read("/notes/../secret", by())
    without = cast(Call, Caller(None))
    assert files.read("/notes/todo.txt", without) == "milk\neggs"
    with pytest.raises(FilesError, match="no working folder"):
        files.read("x", without)


def test_the_history_lies_outside_of_the_volume(files: Files, by: By, volume: Path) -> None:
    files.write("x", "y", by())
    assert [path.name for path in volume.rglob("*")] == ["x"]
    with pytest.raises(AppError):
        files.read("../.history/7/history.db", by())


def test_a_file_keeps_the_label_that_it_was_written_under(files: Files, by: By, volume: Path) -> None:
    secret = Label(Integrity.STORE, frozenset({"ann"}))

    def label(path: str) -> Label | None:
        with Beneath(volume) as below:
            from llmos.apps.files.history import mark

            entry = below.look(path)
            assert entry is not None
            return History(volume.parent / ".history" / "7", versions=9, kept=99).labels().get(mark(entry))

    files.write("x", "y", by(label=secret))
    assert label("x") == secret
    files.append("x", "z", by(label=USER))
    assert label("x") == secret  # what was added does not wash what stood there
    files.write("x", "new", by(label=USER))
    assert label("x") == USER
    files.undo("x", by(label=USER))
    assert label("x") == secret  # what comes back has the label that it had
    before = (volume / "x").stat()
    (volume / "x").write_text("w\nz\n")  # another program, of the same length
    os.utime(volume / "x", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert label("x") is None
    files.append("x", "more", by(label=USER))
    assert label("x") == UNTRUSTED
    assert files._volumes.place(by(), "/notes/todo.txt").label == STORE


def test_as_an_app() -> None:
    manifest = Manifest.of(Files)
    assert not manifest.stateful
    for syscall in manifest.syscalls:
        assert complaint(syscall.parameters) == ""
        assert syscall.effect in ("read", "write")
        assert syscall.retry == ("safe" if syscall.effect == "read" else "keyed")
        if syscall.effect == "write":
            assert "path" in syscall.targets
        else:
            assert syscall.returns == "untrusted"


def test_under_a_kernel(scripted_kernel: Callable[..., Any]) -> None:
    """A bound grant is a bound: what is outside of out/ is not written, whatever way it is spelled."""

    def script(window: str) -> str:
        paths = ["out/a.txt", "out/../b.txt", "b.txt", "out/./deep//c.txt"]
        left = [path for path in paths if f'"path": "{path}"' not in window]
        return call("files.write", path=left[0], text="x") if left else "Done."

    kernel = scripted_kernel(script, apps={"files": {"app": "llmos.apps.files:Files"}})
    process = kernel.spawn(grants=["files.write(path=out/*)"])
    turn = process.ask("Write out/a.txt, out/../b.txt, b.txt and out/./deep//c.txt", max_tokens=2000)
    results = [(event.ok, event.text) for event in turn if isinstance(event, Result)]
    assert [ok for ok, _ in results] == [True, False, False, True], results
    assert "not followed" in results[1][1]
    assert "not granted" in results[2][1]
    volume = kernel.workspace(process.pid)
    assert sorted(path.relative_to(volume).as_posix() for path in volume.rglob("*.txt")) == [
        "out/a.txt",
        "out/deep/c.txt",
    ]
