"""The kernel whose model says what a test tells it, and whether there can be a sandbox here."""

from __future__ import annotations

import pytest

from llmos.drivers.sandbox import Limits, Sandbox, SandboxMissing
from llmos.testing import scripted_kernel

__all__ = ["scripted_kernel"]


@pytest.fixture(scope="session", autouse=True)
def _can_be_made() -> None:
    """The sandbox is real, here too."""
    try:
        Sandbox(["/bin/true"], Limits()).end()
    except SandboxMissing as error:
        pytest.skip(f"no sandbox on this machine: {error}")
