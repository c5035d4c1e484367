"""What the tests of the sandbox share: whether there can be one here, and a world around it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.sandbox_world import World
from llmos.drivers.sandbox import Limits, Sandbox, SandboxMissing


@pytest.fixture(scope="session", autouse=True)
def _can_be_made() -> None:
    """These tests need a real sandbox: bubblewrap, user namespaces, seccomp and a control group."""
    try:
        Sandbox(["/bin/true"], Limits()).end()
    except SandboxMissing as error:
        pytest.skip(f"no sandbox on this machine: {error}")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Secrets, listeners and a bystander; everybody may enter its folder."""
    folder = tmp_path_factory.mktemp("world")
    for place in (folder, *folder.parents):
        if place.owner() == folder.owner() and not place.stat().st_mode & 0o001:
            place.chmod(place.stat().st_mode | 0o011)
    with World(folder) as made:
        yield made
