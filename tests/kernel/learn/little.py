"""A tiny random model that the kernel runs, trains and chats with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from llmos.kernel.learn.pretrain import save_model, shape, vocabulary
from llmos.kernel.learn.student import fresh

WINDOW = 48
SURE = (
    3.0  # how far apart logits lie, in fresh ones' distances: so far that an adapter can choose among words
)


def tiny(folder: Path) -> Path:
    """A model in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    text = (Path(__file__).resolve().parents[3] / "docs" / "kernel.md").read_text()
    size = vocabulary(text.split("\n\n"), 320, folder).get_vocab_size()
    config = dataclasses.replace(shape(1, size, WINDOW), layers=2, ffn=96)
    made = fresh(config, 0, WINDOW).trained
    save_model(config, {**made, "final_norm": SURE * made["final_norm"]}, folder)
    return folder
