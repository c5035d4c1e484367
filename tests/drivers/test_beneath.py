"""Nothing outside of the folder is reached, by whatever path, link or race; both ways of resolving agree."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmos.abi.errors import LLMOSError
from llmos.drivers.beneath import Beneath, PathError, has_openat2, parts

SECRET = b"the secret outside"


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A folder `in` with files and links, and beside it what nobody may reach."""
    (tmp_path / "secret.txt").write_bytes(SECRET)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "secret.txt").write_bytes(SECRET)
    inside = tmp_path / "in"
    (inside / "a" / "b").mkdir(parents=True)
    (inside / "a" / "one.txt").write_bytes(b"one")
    (inside / "up").symlink_to("..")
    (inside / "away").symlink_to(tmp_path / "out")
    (inside / "secret").symlink_to("../secret.txt")
    (inside / "inner").symlink_to("a/one.txt")
    (inside / "a" / "b" / "root").symlink_to("/")
    (inside / "loop").symlink_to("loop")
    os.mkfifo(inside / "pipe")
    return inside


@pytest.fixture(params=[False, True], ids=["openat2", "walking"])
def files(house: Path, request: pytest.FixtureRequest) -> Iterator[Beneath]:
    if not request.param and not has_openat2():
        pytest.skip("this system has no openat2")
    with Beneath(house, walking=request.param) as opened:
        yield opened


LEADS_OUT = [
    "../secret.txt", "a/../../secret.txt", "..", "a/..", "/etc/passwd", "//etc/passwd", "up/secret.txt",
    "away/secret.txt",    "secret", "a/b/root/etc/passwd", "inner", "loop", "loop/x", "up", "away", "a/b/root",
    "x\0y", "a/\n", "a/\x1b[31m",
    "a\udc80", "n" * 300, "/".join("d" * 80), "", ".", "a", "pipe", "/proc/self/root/etc/passwd",
]  # fmt: skip


@pytest.mark.parametrize("path", LEADS_OUT, ids=repr)
def test_what_leads_out_or_is_no_file_is_neither_read_nor_written(
    files: Beneath, house: Path, path: str
) -> None:
    before = sorted(house.parent.rglob("*"))
    with pytest.raises(PathError) as caught:
        files.read(path, 1000)
    assert caught.value.what
    with pytest.raises(PathError):
        files.write(path, b"overwritten")
    assert (house.parent / "secret.txt").read_bytes() == SECRET
    assert (house.parent / "out" / "secret.txt").read_bytes() == SECRET
    assert sorted(house.parent.rglob("*")) == before


def test_files_are_read_written_listed_and_removed(files: Beneath, house: Path) -> None:
    assert files.read("a/one.txt", 3) == b"one"
    assert files.read("./a//one.txt", 3) == b"one"
    with pytest.raises(PathError, match="3 bytes"):
        files.read("a/one.txt", 2)
    (house / "a" / "one.txt").chmod(0o640)
    written = files.write("a/one.txt", b"two")
    assert written == files.look("a/one.txt")
    assert (house / "a" / "one.txt").stat().st_mode & 0o777 == 0o640
    files.write("new/deep/file", b"x")
    assert (house / "new" / "deep" / "file").read_bytes() == b"x"
    with pytest.raises(PathError, match="folder"):
        files.write("new", b"x")
    with pytest.raises(PathError, match="no 'other"):
        files.write("other/file", b"x", folders=False)
    assert {e.path: e.kind for e in files.names()} == {
        "a": "folder", "away": "link", "inner": "link", "loop": "link", "new": "folder", "pipe": "other",
        "secret": "link", "up": "link",
    }  # fmt: skip
    assert "a/b/root/etc" not in {e.path for e in files.walk()}
    assert {e.path for e in files.walk("new")} == {"new/deep", "new/deep/file"}
    files.remove("secret")
    assert files.look("secret") is None
    assert (house.parent / "secret.txt").read_bytes() == SECRET
    with pytest.raises(PathError):
        files.remove("new")


def test_a_file_that_cannot_be_written_leaves_the_old_one(files: Beneath, house: Path) -> None:
    with pytest.raises(TypeError):
        files.write("a/one.txt", "text")  # type: ignore[arg-type]
    assert (house / "a" / "one.txt").read_bytes() == b"one"
    assert [path.name for path in (house / "a").iterdir() if path.is_file()] == ["one.txt"]


def test_a_folder_that_becomes_a_link_is_not_followed(files: Beneath, house: Path) -> None:
    """Somebody swaps a folder for a link out, again and again; no read and no write ever lands outside."""
    (house / "swap").mkdir()
    (house / "swap" / "secret.txt").write_bytes(b"inside")
    (house / "swapped").symlink_to(house.parent / "out")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            with suppress(OSError):
                (house / "swap").rename(house / "kept")
                (house / "swapped").rename(house / "swap")
                (house / "swap").rename(house / "swapped")
                (house / "kept").rename(house / "swap")

    thread = threading.Thread(target=swap)
    thread.start()
    read = refused = 0
    try:
        while (read < 50 or refused < 50) and read + refused < 20_000:
            try:
                data = files.read("swap/secret.txt", 100)
                assert data in (b"inside", b"written")
                files.write("swap/secret.txt", b"written", folders=False)
                read += 1
            except PathError:
                refused += 1
    finally:
        stop.set()
        thread.join()
    assert read
    assert (house.parent / "out" / "secret.txt").read_bytes() == SECRET


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from(["..", ".", "", "a", "b", "up", "away", "secret", "secret.txt", "root", "~", "\\.."])
    )
)
def test_no_path_of_these_names_reads_the_secret(files: Beneath, names: list[str]) -> None:
    with suppress(LLMOSError):
        assert files.read("/".join(names), 1000) != SECRET


def test_the_folder_itself_may_lie_behind_a_link(house: Path) -> None:
    link = house.parent / "link"
    link.symlink_to(house)
    with Beneath(link) as files:
        assert files.read("a/one.txt", 10) == b"one"
    with pytest.raises(PathError, match="no '"):
        Beneath(house / "nowhere")


def test_parts() -> None:
    assert parts("a//b/./c") == ("a", "b", "c")
    assert parts("") == parts(".") == ()
    assert parts("..a/b..") == ("..a", "b..")


def test_who_names_what_is_not_there_is_told_what_is(files: Beneath, house: Path) -> None:
    for wrong in ("one.txt", "a/b/one.txt", "a/One.text"):
        with pytest.raises(PathError, match=r"there is no .*there is 'a/one\.txt'"):
            files.read(wrong, 10)
    with pytest.raises(PathError, match=r"there are .*a/one\.txt, .*pipe"):
        files.read("holiday", 10)
    for n in range(20):
        (house / f"{n}.md").touch()
    with pytest.raises(PathError, match="list the folder"):
        files.read("holiday", 10)
    with pytest.raises(PathError, match=r"no '\.\./secret\.text'|leads out") as refused:
        files.read("../secret.text", 10)
    assert "secret.txt" not in str(refused.value), "of what lies outside nothing is told"
