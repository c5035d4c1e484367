"""Kernels whose model draws among answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from llmos.abi.config import Config
from llmos.drivers.yamlfile import check
from llmos.kernel.engine.scripted import byte_tokenizer, chat_template
from llmos.kernel.kernel import Kernel
from tests.kernel.think.drawn import DrawnRunner, Replies

Make = Callable[..., Kernel]


@pytest.fixture
def drawing_kernel(tmp_path: Path) -> Iterator[Make]:
    """Makes kernels; `replies` gives the answers that there are to a window. Each must have let go of its pages."""
    with ExitStack() as kernels:

        def make(
            replies: Replies,
            *,
            state: Path | None = None,
            apps: Mapping[str, Any] | None = None,
            **runner: Any,
        ) -> Kernel:
            config = check(
                {"machine": {"state": str(tmp_path / "machine")}, "apps": dict(apps or {})}, Config
            )
            runner_ = DrawnRunner(replies, **runner)
            return kernels.enter_context(
                Kernel(config, runner_, byte_tokenizer(), chat_template(), state=state)
            )

        yield make


def let_go(kernel: Kernel) -> bool:
    """Whether nobody holds pages, once the engine has had its next steps."""
    import time

    end = time.monotonic() + 60
    while kernel.engine.run(lambda: kernel.engine.pool.leaked):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
