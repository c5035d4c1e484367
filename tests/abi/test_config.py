"""The configuration: defaults, sizes, paths, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from llmos.abi.config import AppConfig, Config, KernelConfig, VolumeConfig, default_cache
from llmos.abi.labels import STORE, UNTRUSTED, Integrity
from llmos.abi.mount import Mount, as_mount


def test_an_empty_configuration_is_a_machine() -> None:
    config = Config()
    assert config.kernel.model == "qwen2.5-coder-0.5b"
    assert config.machine.device == "auto"
    assert config.memory.volumes == {}


def test_it_is_frozen() -> None:
    with pytest.raises(ValidationError):
        Config().kernel.model = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("2GiB", 2 << 30),
        ("512 MiB", 512 << 20),
        ("1.5MiB", 3 << 19),
        (1 << 20, 1 << 20),
        ("1048576", 1 << 20),
    ],
)
def test_sizes(written: object, size: int) -> None:
    assert KernelConfig.model_validate({"pool": written}).pool == size


@pytest.mark.parametrize(
    "written", ["2GB", "-1MiB", "much", "1e9", "", True, 1.5, None, [1], "99999999TiB", "1KiB"]
)
def test_sizes_refused(written: object) -> None:
    with pytest.raises(ValidationError):
        KernelConfig.model_validate({"pool": written})


def test_what_an_app_may_hold() -> None:
    app = AppConfig.model_validate({"max_memory": "8GiB", "memory": "1GiB"})
    assert (app.max_memory, app.settings) == (8 << 30, {"memory": "1GiB"}), (
        "the kernel's own key, and the app's"
    )
    assert AppConfig().max_memory is None
    with pytest.raises(ValidationError):
        AppConfig.model_validate({"max_memory": "1MiB"})


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMOS_CACHE", "~/elsewhere")
    assert default_cache() == Path.home() / "elsewhere"
    monkeypatch.delenv("LLMOS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert default_cache() == Path("/var/cache/llmos")


def test_a_mount_is_untrusted_until_it_says_whose_it_is() -> None:
    assert Mount(Path("a")).label == UNTRUSTED
    assert Mount(Path("a"), "mine").label == STORE
    assert as_mount("~/a") == Mount(Path.home() / "a")
    volume = VolumeConfig.model_validate({"path": "a", "trust": "mine", "readers": ["me"]})
    assert volume.mount().label.integrity == Integrity.STORE
    assert volume.mount().label.readers == frozenset({"me"})
