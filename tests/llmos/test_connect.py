"""Which configuration is taken, and what overrides do to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmos.abi.config import Config
from llmos.abi.errors import ConfigError
from llmos.connect import find_config, load_config


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


def _write(path: Path, model: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"kernel: {{model: {model}}}", encoding="utf-8")
    return path


def test_where_the_configuration_is_looked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_config() is None
    assert load_config() == Config()
    _write(folder / "config/llmos/llmos.yaml", "of-the-user")
    assert load_config().kernel.model == "of-the-user"
    _write(folder / "llmos.yaml", "of-the-folder")
    assert load_config().kernel.model == "of-the-folder"
    monkeypatch.setenv("LLMOS_CONFIG", str(_write(folder / "named.yaml", "of-the-environment")))
    assert load_config().kernel.model == "of-the-environment"
    assert load_config(_write(folder / "other.yaml", "given")).kernel.model == "given"
    monkeypatch.setenv("LLMOS_CONFIG", str(folder / "missing.yaml"))
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config()


def test_overrides(folder: Path) -> None:
    config = load_config(Config(), model="m", pool="64MiB", threads=2, state=Path("s"), window=None)
    assert config.kernel.model == "m"
    assert config.kernel.pool == 64 << 20
    assert config.machine.threads == 2
    assert config.machine.state == Path("s")
    assert config.kernel.window == Config().kernel.window
    assert load_config(config) is config


def test_overrides_keep_what_the_file_says(folder: Path) -> None:
    file = folder / "llmos.yaml"
    file.write_text("memory: {volumes: {h: {path: h, readers: [me]}}}", encoding="utf-8")
    config = load_config(file, model="m")
    assert config.memory.volumes["h"].path == folder / "h"
    assert config.memory.volumes["h"].readers == ("me",)


def test_wrong_overrides(folder: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'model'") as caught:
        load_config(modle="m")
    assert caught.value.key == "modle"
    with pytest.raises(ConfigError, match="greater than or equal"):
        load_config(window=1)
