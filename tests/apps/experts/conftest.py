"""Fixtures of the experts' tests: a machine of their own, and files of experts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from llmos.abi.config import Config
from llmos.apps.experts.shelf import Shelf
from llmos.drivers.yamlfile import check
from llmos.testing import scripted_kernel

__all__ = ["scripted_kernel"]

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes an expert file; `text` begins behind name and description, which are there unless it has them."""

    def make(name: str = "clerk", text: str = "", folder: str = "experts") -> Path:
        file = tmp_path / folder / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        head = "" if "expert:" in text else f"expert: {name}\ndescription: The {name}.\n"
        file.write_text(head + dedent(text), encoding="utf-8")
        return file

    return make


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """The experts of an empty machine."""
    return Shelf(check({"machine": {"state": str(tmp_path / "machine")}}, Config))
