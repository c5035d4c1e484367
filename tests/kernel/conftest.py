"""The kernel's tests use the fixture that authors of apps use, and one of kernels whose KV is real."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from llmos.abi.config import Config
from llmos.drivers.weights import find, open_weights
from llmos.drivers.yamlfile import check
from llmos.kernel.engine.scripted import byte_tokenizer, chat_template
from llmos.kernel.kernel import Kernel
from llmos.kernel.prompt import ChatPrompt
from llmos.testing import scripted_kernel

__all__ = ["prompt", "scripted_kernel", "tiny_kernel"]

Make = Callable[..., Kernel]


@pytest.fixture(scope="module", params=["qwen2.5-coder-0.5b", "smollm2-135m", "scripted"])
def prompt(request: pytest.FixtureRequest) -> ChatPrompt:
    """How each of these models has a conversation written down."""
    if request.param == "scripted":
        return ChatPrompt(byte_tokenizer(), chat_template())
    weights = open_weights(find(request.param))
    return ChatPrompt(weights.tokenizer(), weights.template())


@pytest.fixture
def tiny_kernel(tmp_path: Path) -> Iterator[Make]:
    """Makes kernels with a tiny random model, which can blend; `seed` is of its weights, further keywords are of
    `memory:`."""
    from llmos.kernel.engine.blend import Blender
    from llmos.kernel.engine.runner import ModelRunner
    from tests.kernel.tiny import CONFIG, tiny_model

    with ExitStack() as kernels:

        def make(
            seed: int = 0, state: Path | None = None, window: int = 512, pages: int = 130, **memory: Any
        ) -> Kernel:
            machine = {"state": str(tmp_path / "machine"), "cache": str(tmp_path / "cache")}
            config = check({"machine": machine, "memory": memory}, Config)
            model = tiny_model(replace(CONFIG, vocab=260), seed=seed)
            runner = ModelRunner(model, pages=pages, page=16, window=window)
            return kernels.enter_context(
                Kernel(
                    config,
                    runner,
                    byte_tokenizer(),
                    chat_template(),
                    state=state,
                    blending=partial(Blender, model, runner),
                )  # fmt: skip
            )

        yield make
