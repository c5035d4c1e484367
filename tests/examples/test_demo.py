"""The demo's documents: found, fetched without root, or a typed error; never half there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from examples.demo.corpus import policy_manual
from llmos.abi.errors import DocumentError


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    folder = tmp_path / "installed"
    folder.mkdir()
    for name in ("ch-files.html", "ap-license.html", "genindex.html", "upgrading-checklist.html"):
        (folder / name).write_text(f"<h1>{name}</h1>", encoding="utf-8")
    return folder


def script(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    (folder / name).chmod(0o755)


def test_the_installed_manual_is_taken_without_indexes(tmp_path: Path, installed: Path) -> None:
    folder = policy_manual(tmp_path / "cache", installed)
    assert sorted(p.name for p in folder.iterdir()) == ["ap-license.html", "ch-files.html"]
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]
    (installed / "ch-files.html").unlink()
    assert policy_manual(tmp_path / "cache", installed) == folder  # kept


def test_the_package_is_fetched_without_root(
    tmp_path: Path, installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path / "bin", "apt-get", "touch debian-policy_4_all.deb")
    manual = "unpacked/usr/share/doc/debian-policy"
    script(tmp_path / "bin", "dpkg", f"mkdir -p {manual} && cp -r {installed} {manual}/policy.html")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    folder = policy_manual(tmp_path / "cache", tmp_path / "nowhere")
    assert sorted(p.name for p in folder.iterdir()) == ["ap-license.html", "ch-files.html"]


@pytest.mark.parametrize(
    ("apt", "why"), [("echo E: no such package >&2; exit 100", "no such package"), (None, "no apt-get")]
)
def test_what_cannot_be_fetched_is_a_typed_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apt: str | None, why: str
) -> None:
    (tmp_path / "bin").mkdir()
    if apt is not None:
        script(tmp_path / "bin", "apt-get", apt)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(DocumentError, match=why) as caught:
        policy_manual(tmp_path / "cache", tmp_path / "nowhere")
    assert "apt-get install debian-policy" in str(caught.value)
    assert list((tmp_path / "cache/demo").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_a_typed_error(tmp_path: Path, installed: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DocumentError, match="cannot be put"):
        policy_manual(tmp_path / "cache", installed)
