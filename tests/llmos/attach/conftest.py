"""A scripted kernel behind a real gate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from llmos.attach import RemoteKernel, attach
from llmos.kernel.gate import Gate
from llmos.kernel.kernel import Kernel
from llmos.testing import scripted_kernel

__all__ = ["scripted_kernel"]

Reach = Callable[..., RemoteKernel]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The machine's state folder, as `scripted_kernel` has it."""
    return tmp_path / "machine"


@pytest.fixture
def served(scripted_kernel: Callable[..., Kernel], state: Path) -> Iterator[Callable[..., Gate]]:
    """Makes a scripted kernel with a gate: `served(script, **options)`."""
    with ExitStack() as gates:

        def make(script: Callable[[str], str], **options: Any) -> Gate:
            kernel = scripted_kernel(script, state=state / "kernel", **options)
            return gates.enter_context(Gate(kernel))

        yield make


@pytest.fixture
def reach(state: Path) -> Iterator[Reach]:
    """Attaches to it, as often as is wanted."""
    with ExitStack() as clients:

        def make(**options: Any) -> RemoteKernel:
            kernel = attach(state, **options)
            assert kernel is not None
            return clients.enter_context(kernel)

        yield make
