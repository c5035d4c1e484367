"""Pictures and files that calls return: kept in the working volume, under names that replace and reach nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llmos.abi.app import File, Image, Text
from llmos.abi.errors import ConfigError
from llmos.abi.events import Result
from llmos.kernel.keeping import keep
from llmos.kernel.kernel import Kernel
from llmos.testing import call

Make = Callable[..., Kernel]
SHOP = {"shop": {"app": "tests.kernel.shop:Shop"}}


def test_parts_become_words_and_files(tmp_path: Path) -> None:
    parts = [Text("Here:"), Image(b"png"), File("a.csv", b"1,2", "text/csv"), Image(b"jpg", "image/jpeg")]
    text, names = keep(parts, tmp_path, 7)
    assert text.splitlines() == [
        "Here:",
        "[image saved as image-7.png: image/png, 3 bytes]",
        "[file saved as a.csv: text/csv, 3 bytes]",
        "[image saved as image-7.jpg: image/jpeg, 3 bytes]",
    ]
    assert [(tmp_path / name).read_bytes() for name in names] == [b"png", b"1,2", b"jpg"]


def test_nothing_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_text("mine")
    (tmp_path / "link").symlink_to("/etc/hostname")
    _, names = keep([File("a.tar", b"1"), File("a.tar", b"2"), File("link", b"3")], tmp_path, 1)
    assert names == ("a-2.tar", "a-3.tar", "link-2")
    assert (tmp_path / "a.tar").read_text() == "mine"


@pytest.mark.parametrize(
    ("wished", "called"),
    [
        ("../../etc/passwd", "passwd"),
        ("/etc/passwd", "passwd"),
        ("..", "file-3"),
        ("", "file-3"),
        (".hidden", "hidden"),
        ("a\x1b[31m\nb", "a_31m_b"),
        ("x" * 400, "x" * 100),
        ("żółw 2.txt", "żółw 2.txt"),
    ],
)
def test_names_are_made_harmless(tmp_path: Path, wished: str, called: str) -> None:
    _, names = keep([File(wished, b"1")], tmp_path / ".", 3)
    assert names == (called,) and (tmp_path / called).is_file()


def test_a_picture_reaches_the_window_the_reader_and_the_folder(
    scripted_kernel: Make, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()

    def script(window: str) -> str:
        return "There it is." if "saved as" in window else call("shop.picture")

    kernel = scripted_kernel(script, apps=SHOP, state=tmp_path / "state")
    process = kernel.spawn(grants=["shop.picture"], work=work)
    turn = process.ask("Draw.")
    (result,) = [event for event in turn if isinstance(event, Result)]
    assert result.ok and result.files == (str(work / "image-1.png"),)
    assert (work / "image-1.png").read_bytes().startswith(b"\x89PNG")
    assert turn.answer == "There it is."
    (fork,) = process.fork()
    assert kernel.workspace(fork.pid) == work
    kernel.close()
    again = scripted_kernel(script, apps=SHOP, state=tmp_path / "state")
    assert again.workspace(process.pid) == work


def test_a_folder_that_is_not_there_is_an_error(scripted_kernel: Make, tmp_path: Path) -> None:
    kernel = scripted_kernel(lambda window: "Hi.")
    with pytest.raises(ConfigError, match="no folder"):
        kernel.spawn(work=tmp_path / "nowhere")
    assert kernel.ps() == []
