"""What the owner says to an app reaches it checked, or is refused by its key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from llmos.abi.config import AppConfig
from llmos.abi.errors import ConfigError
from llmos.abi.settings import VARIABLE, settings
from llmos.drivers.yamlfile import check


class Search(BaseModel):
    """Settings as a model."""

    model_config = ConfigDict(extra="forbid", strict=True)
    engine: str = "local"
    allow: list[str] = []


@dataclass(frozen=True)
class Bounds:
    """Settings as a dataclass."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    size: Annotated[int, Field(strict=True, ge=1)] = 10


def test_without_a_word_they_are_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert settings("browser", Search) == Search() and settings("x", Bounds) == Bounds()


def test_each_app_gets_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, '{"browser": {"engine": "searxng", "allow": ["a"]}, "x": {"size": 3}}')
    assert settings("browser", Search) == Search(engine="searxng", allow=["a"])
    assert settings("x", Bounds) == Bounds(3) and settings("y", Bounds) == Bounds()


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        (Search, '{"engin": "x"}', r"apps.x.engin: an unknown key. did you mean 'engine'\?"),
        (Search, '{"zzz": 1}', r"apps.x.zzz: an unknown key. keys are engine, allow"),
        (Search, '{"allow": [1]}', r"apps.x.allow.0: Input should be a valid string"),
        (Bounds, '{"sise": 1}', r"apps.x.sise: an unknown key. did you mean 'size'\?"),
        (Bounds, '{"size": "1"}', r"apps.x.size: Input should be a valid integer"),
        (Bounds, '{"size": 0}', r"apps.x.size: Input should be greater than or equal to 1"),
    ],
)
def test_what_does_not_fit_is_named(
    monkeypatch: pytest.MonkeyPatch, kind: type[Any], given: str, words: str
) -> None:
    monkeypatch.setenv(VARIABLE, f'{{"x": {given}}}')
    with pytest.raises(ConfigError, match=words):
        settings("x", kind)


def test_other_keys_of_an_app_are_its_settings() -> None:
    config = check({"inside": True, "engine": "x", "allow": ["a"]}, AppConfig)
    assert config.inside and config.settings == {"engine": "x", "allow": ["a"]}
    assert check({}, AppConfig).settings == {}


def test_a_foreign_server_has_none() -> None:
    with pytest.raises(ConfigError, match="by `env`"):
        check({"mcp": "some-server", "engine": "x"}, AppConfig)
