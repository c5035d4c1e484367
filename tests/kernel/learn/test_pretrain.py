"""A model from nothing: what was trained is what the kernel runs, in every mode and from the command line."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from llmos.abi.errors import BadExamples
from llmos.drivers.weights import open_weights
from llmos.drivers.weights.resolve import find
from llmos.kernel.engine.runner import ModelRunner
from llmos.kernel.engine.score import position_logits
from llmos.kernel.learn.course import Course
from llmos.kernel.learn.ops import TrainingOps
from llmos.kernel.learn.pretrain import END, SAID, SAY, Pretrained, divide, pretrain, shape
from llmos.kernel.learn.student import hidden, logits, whole
from llmos.kernel.model.attention import AttentionBatch
from llmos.kernel.model.load import load_model

ROOT = Path(__file__).resolve().parents[3]
WINDOW = 64
COURSE = Course(steps=6, window=WINDOW, micro=2, batch=2 * WINDOW, rate=3e-3)


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real text: this project's own pages, a paragraph a row."""
    pages = "\n\n".join(page.read_text() for page in sorted((ROOT / "docs").glob("*.md")))
    path = tmp_path_factory.mktemp("documents") / "pages.jsonl"
    path.write_text("\n".join(json.dumps({"text": part}) for part in pages.split("\n\n") if part.strip()))
    return path


@pytest.fixture(scope="module")
def made(documents: Path, tmp_path_factory: pytest.TempPathFactory) -> Pretrained:
    return pretrain([documents], tmp_path_factory.mktemp("tiny"), depth=2, vocab=600, course=COURSE)


def test_it_learns_and_says_how_well_in_bits_a_byte(made: Pretrained) -> None:
    curve = made.report.curve
    assert curve[-1].loss < curve[0].loss
    assert curve[0].loss == pytest.approx(np.log(600), rel=0.05)  # at first every token is as likely
    assert 1 < made.held_out < 8


@pytest.mark.parametrize("mode", ["f32", "bf16", "native"])
def test_the_kernel_computes_what_was_trained(made: Pretrained, mode: Any) -> None:
    weights = open_weights(find(str(made.folder)))
    tokens = weights.tokenizer().encode(
        "The kernel is a process. What cannot fit is an error that says what to do."
    )
    assert 10 < len(tokens) <= WINDOW
    runner = ModelRunner(load_model(weights, mode=mode, window=WINDOW), pages=8, window=WINDOW)
    served = np.concatenate(list(position_logits(runner, tokens)))
    student = whole(weights, WINDOW)
    ids = np.pad(np.asarray(tokens, np.int32), (0, WINDOW - len(tokens)))
    order = np.arange(WINDOW, dtype=np.int32)
    slots = np.where(order < len(tokens), 0, -1).astype(np.int32)
    batch = AttentionBatch(order, slots, np.zeros((1, 1), np.int32), np.int32(WINDOW))  # type: ignore[arg-type]
    parameters = student.parameters(student.trained, student.frozen)
    x_TD = hidden(student.config, parameters, jax.numpy.asarray(ids), batch, TrainingOps(WINDOW))
    trained = np.asarray(logits(student.config, parameters, x_TD, TrainingOps(WINDOW)))[: len(tokens)]
    off = np.abs(served[:, : trained.shape[1]] - trained).max() / np.abs(trained).max()
    assert off < {"f32": 1e-3, "bf16": 0.05, "native": 0.1}[mode]


def test_its_vocabulary_spells_every_text_and_keeps_control_tokens_apart(made: Pretrained) -> None:
    tokenizer = open_weights(find(str(made.folder))).tokenizer()
    for text in ("Grüße aus Köln, 你好, 🙂\n\n\ttabs  and   spaces ", "a\x00b", END + SAY + "x" + SAID):
        tokens = tokenizer.encode(text)
        assert b"".join(tokenizer.token_bytes(t) for t in tokens).decode() == text
    controls = {tokenizer.control_id(name) for name in (END, SAY, SAID)}
    assert len(controls) == 3
    assert None not in controls
    assert set(tokenizer.eos_ids) == {tokenizer.control_id(END), tokenizer.control_id(SAID)}


def test_it_dreams_documents_at_the_command_line(
    made: Pretrained, run_llmos: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = run_llmos(
        "ask", "--model", str(made.folder), "--raw", "The kernel", "--max-tokens", "12",
        env={"LLMOS_STATE": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_documents_are_held_out_by_what_they_say() -> None:
    texts = [f"document {i} says {i * i}" for i in range(400)]
    learnt_from, held_out = divide(texts)
    assert 5 <= len(held_out) <= 45
    assert sorted([*learnt_from, *held_out]) == sorted(texts)
    again = divide([*reversed(texts), *texts])
    assert (sorted(again[0]), sorted(again[1])) == (sorted(learnt_from), sorted(held_out))


def test_too_little_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("Hello.\n")
    with pytest.raises(BadExamples, match="too little"):
        pretrain([tmp_path / "short.txt"], tmp_path / "out")
    with pytest.raises(BadExamples, match="not there"):
        pretrain([tmp_path / "absent"], tmp_path / "out")


def test_sizes_follow_from_the_depth() -> None:
    config = shape(4, 1000, 256)
    assert (config.dim, config.heads, config.head_dim) == (256, 4, 64)
    assert config.ffn % 64 == 0
    assert config.ffn / config.dim == pytest.approx(8 / 3, rel=0.1)
