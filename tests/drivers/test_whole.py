"""A file is the old one or the new one, whatever happens while it is written."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

import pytest

from llmos.drivers.whole import write_whole


def test_it_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    assert write_whole(path, b"one") == 3
    assert write_whole(path, lambda file: file.write(b"second")) == 6
    assert path.read_bytes() == b"second" and list(path.parent.iterdir()) == [path]


def test_what_fails_half_way_leaves_the_old_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")

    def half(file: BinaryIO) -> None:
        file.write(b"new, but not wh")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_whole(path, half)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_the_longest_name_there_can_be(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)
    write_whole(path, b"")
    assert path.exists()


def test_private(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_whole(tmp_path / "all" / "file", b"")
        write_whole(tmp_path / "own" / "file", b"", private=True)
    finally:
        os.umask(before)
    modes = [
        stat.S_IMODE(p.stat().st_mode) for d in ("all", "own") for p in (tmp_path / d, tmp_path / d / "file")
    ]
    assert modes == [0o755, 0o644, 0o700, 0o600]
