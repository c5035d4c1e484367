"""Processes that blend: whole passages, put together from what was computed before, on the real model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmos.abi.config import Config
from llmos.abi.errors import ConfigError
from llmos.abi.events import PageIn
from llmos.kernel.boot import boot
from llmos.kernel.kernel import Kernel
from llmos.kernel.layout import Layout

ROOMS = {
    "kitchen": "green",
    "cellar": "black",
    "attic": "yellow",
    "porch": "white",
    "study": "brown",
    "hall": "red",
}


@pytest.fixture
def house(tmp_path: Path) -> Path:
    folder = tmp_path / "house"
    folder.mkdir()
    for room, colour in ROOMS.items():
        (folder / f"{room}.md").write_text(
            f"# The {room}\n\nThe {room} is on the list of rooms to be painted. The door of the {room} is {colour}. "
            f"Nobody has said when the {room} was painted last.\n"
        )
    return folder


@pytest.fixture
def start(weights_path: Callable[[str], Path], tmp_path: Path) -> Callable[[], Kernel]:
    config = Config.model_validate(
        {"kernel": {"model": str(weights_path("smollm2-135m")), "pool": "128MiB", "window": 2048}}
    )
    return lambda: boot(config, state=tmp_path / "state")


def computed(kernel: Kernel) -> int:
    """Tokens of pieces that were not found."""
    blender = kernel.engine._blender
    assert blender is not None
    return blender.computed


def test_passages_are_computed_once_and_serve_every_question(
    start: Callable[[], Kernel], house: Path
) -> None:
    with start() as kernel:
        process = kernel.spawn(mounts=[house], fidelity="blend")
        turn = process.ask("Which colour is the door of the attic?", max_tokens=24)
        pages = [event for event in turn if isinstance(event, PageIn)]
        assert len(pages) == len(ROOMS) and pages[-1].source.endswith("attic.md")  # the nearest stands last
        first = computed(kernel)
        assert first > 0 and turn.usage is not None and turn.usage.cached_tokens > 100
        process.forget()
        other = process.ask("Which colour is the door of the porch?", max_tokens=24)
        said = other.answer
        # Only the passage that was computed in the window last time was not stored.
        assert 0 < computed(kernel) - first < first / 2
        assert kernel.replay(process.pid).divergence is None
    with start() as kernel:  # pieces are found on disk
        process = kernel.spawn(mounts=[house], fidelity="blend")
        assert process.ask("Which colour is the door of the porch?", max_tokens=24).answer == said
        assert computed(kernel) == 0


def test_a_conversation_keeps_its_passages_in_front(start: Callable[[], Kernel], house: Path) -> None:
    with start() as kernel:
        process = kernel.spawn(mounts=[house], fidelity="blend")
        assert process.ask("Which colour is the door of the attic?", max_tokens=16).answer
        before = computed(kernel)
        turn = process.ask("And which colour is the door of the attic, again?", max_tokens=16)
        assert turn.answer and computed(kernel) == before


def test_a_layout_with_pieces_survives_the_journal(start: Callable[[], Kernel], house: Path) -> None:
    with start() as kernel:
        process = kernel.spawn(mounts=[house], fidelity="blend")
        passages = kernel.library.search("the hall", process.mounts, 24)
        made: Any = kernel.prompt
        from llmos.kernel.layout import lay_out

        layout = lay_out(made, kernel.tokenizer, 1500, "The hall?", passages=passages, blend=True)
        assert len(layout.pieces) == len(ROOMS) and layout.pieces[-1] < len(layout.tokens)
        again = Layout.load(layout.tokens, layout.dump(), kernel.tokenizer)
        assert again.pieces == layout.pieces and again.labels == layout.labels
        exact = lay_out(made, kernel.tokenizer, 1500, "The hall?", passages=passages)
        assert exact.pieces == ()


def test_an_unknown_fidelity_is_refused(start: Callable[[], Kernel]) -> None:
    with start() as kernel, pytest.raises(ConfigError, match="no fidelity"):
        kernel.spawn(fidelity="quick")  # type: ignore[arg-type]
