"""EfficientNet-Lite0: bound to the published implementation; its file is read without running it."""

import os
import pickle
import shutil
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from llmos.abi.errors import CorruptWeights
from llmos.drivers.media import naming
from llmos.drivers.media.errors import MediaError
from llmos.drivers.media.naming import MODEL, Namer, classes, load
from llmos.drivers.media.pictures import open_picture
from llmos.drivers.media.torchfile import _MAGIC, _PROTOCOL, read_torch

SEEDS = Path(__file__).parent / "seeds"


@pytest.fixture(scope="module")
def namer(model_path: Callable[[str], Path]) -> Namer:
    model_path(MODEL)
    return Namer()


def test_it_computes_what_the_published_implementation_computes(namer: Namer) -> None:
    """seeds/efficientnet.npz: efficientnet-lite-pytorch 0.1.0 on the same file, recorded once."""
    pixels = np.random.default_rng(0).standard_normal((2, 224, 224, 3)).astype(np.float32)
    network, weights = namer._network
    expected = np.load(SEEDS / "efficientnet.npz")["y"]
    np.testing.assert_allclose(np.asarray(network(weights, pixels)), expected, atol=1e-5)


def test_a_cat(namer: Namer) -> None:
    named = namer.name(open_picture((SEEDS / "cat.jpg").read_bytes()).rgb)
    assert {n.name for n in named} & {"Egyptian cat", "tabby", "tiger cat"}
    assert len(classes()) == 1000 and named[0].share >= named[-1].share >= 0.1
    assert namer.name(np.full((3, 900, 3), 128, np.uint8)) is not None  # any shape is looked at


def test_converted_once_and_again_when_damaged(model_path: Callable[[str], Path], tmp_path: Path) -> None:
    published = tmp_path / "e.pth"
    shutil.copy(model_path(MODEL), published)
    first = load(published)
    converted = tmp_path / "model.safetensors"
    assert set(load_file(converted)) == set(first)
    converted.write_bytes(b"damaged")
    assert {name: value.shape for name, value in load(published).items()} == {
        name: value.shape for name, value in first.items()
    }
    published.write_bytes(published.read_bytes()[:1000])
    os.utime(published, ns=(2**62, 2**62))
    with pytest.raises(MediaError, match="models verify"):
        load(published)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch /tmp/evil",)


@pytest.mark.parametrize("state", [Evil(), OrderedDict(a=Evil()), {"a": print}, OrderedDict(a=1)])
def test_a_pickle_that_names_anything_but_tensors_is_refused(state: object, tmp_path: Path) -> None:
    parts = [_MAGIC, _PROTOCOL, {}, state, []]
    path = tmp_path / "evil.pth"
    path.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in parts))
    with pytest.raises(CorruptWeights, match=r"no tensor needs|more than tensors"):
        read_torch(path)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04zip", b"\x80\x02N.", bytes(range(256)) * 2])
def test_other_files_are_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(data)
    with pytest.raises(CorruptWeights):
        read_torch(path)


def test_a_missing_model_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLMOS_CACHE", str(tmp_path))
    with pytest.raises(MediaError, match="llmos models pull efficientnet-lite0"):
        naming.Namer().name(np.zeros((5, 5, 3), np.uint8))
