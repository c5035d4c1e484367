"""Data sets: what counts as a target, and that every bad row is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmos.abi.errors import BadExamples
from llmos.drivers.weights import Weights, find, open_weights
from llmos.kernel.learn.data import Conversations, read_rows, text_stream


@pytest.fixture(scope="module", params=["smollm2-135m", "qwen2.5-coder-0.5b"])
def weights(request: pytest.FixtureRequest, weights_path: Callable[[str], Path]) -> Weights:
    weights_path(request.param)
    return open_weights(find(request.param))


def rows(tmp_path: Path, *said: Any) -> Any:
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(json.dumps(s) for s in said))
    return read_rows(path)


def counted(weights: Weights, example: Any) -> str:
    tokenizer = weights.tokenizer()
    chosen = [int(t) for t, w in zip(example.tokens, example.weights, strict=True) if w]
    return b"".join(tokenizer.token_bytes(t) for t in chosen).decode()


def test_what_the_assistant_says_counts_and_its_end(weights: Weights, tmp_path: Path) -> None:
    chat = {
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "Hello <|im_end|> there"},
            {"role": "assistant", "content": "Good day."},
            {"role": "user", "content": "And now?"},
            {"role": "assistant", "content": "Good night."},
        ]
    }
    (row,) = rows(tmp_path, chat)
    conversations = Conversations(weights, 256)
    example = conversations.example(row)
    end = weights.tokenizer().control_id("<|im_end|>")
    assert counted(weights, example) == "Good day.<|im_end|>Good night.<|im_end|>"
    # A control token that somebody wrote is letters: five turns end, not six.
    assert list(example.tokens).count(end) == 5


def test_prompts_are_the_same_tokens_as_when_it_is_asked(weights: Weights, tmp_path: Path) -> None:
    (row,) = rows(tmp_path, {"prompt": "2+2?", "completion": "4"})
    conversations = Conversations(weights, 256)
    example = conversations.example(row)
    prompt = conversations.prompt([{"role": "user", "content": "2+2?"}])
    assert list(example.tokens[: len(prompt)]) == prompt
    assert example.weights[: len(prompt)].sum() == 0
    assert example.weights[len(prompt)] == 1


def test_pairs_share_their_question(weights: Weights, tmp_path: Path) -> None:
    as_text = {"prompt": "Name a colour.", "chosen": "Blue.", "rejected": "Seven."}
    as_lists = {
        "prompt": [{"role": "user", "content": "Name a colour."}],
        "chosen": [{"role": "assistant", "content": "Blue."}],
        "rejected": [{"role": "assistant", "content": "Seven."}],
    }
    conversations = Conversations(weights, 256)
    for row in rows(tmp_path, as_text, as_lists):
        chosen, rejected = conversations.pair(row)
        assert counted(weights, chosen) == "Blue.<|im_end|>"
        assert counted(weights, rejected) == "Seven.<|im_end|>"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"messages": []}, "not a list of messages"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "no role"),
        ({"messages": [{"role": "user", "content": 3}]}, "not text"),
        ({"messages": [{"role": "user", "content": "x"}]}, "says nothing"),
        ({"text": "x"}, "neither messages nor a prompt"),
        ({"prompt": "x", "completion": None}, "not text"),
        ({"prompt": "x", "completion": "long " * 400}, "tokens, the window"),
    ],
)
def test_a_bad_row_is_named(weights: Weights, tmp_path: Path, said: Any, why: str) -> None:
    good = {"prompt": "a", "completion": "b"}
    found = rows(tmp_path, good, said)
    conversations = Conversations(weights, 256)
    conversations.example(found[0])
    with pytest.raises(BadExamples, match=r"data\.jsonl:2") as raised:
        conversations.example(found[1])
    assert why in str(raised.value)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "no rows"),
        (b"\n\n", "no rows"),
        (b'{"prompt": "a", "completion": "b"}\n{"prompt": ', r"data\.jsonl:2 is not JSON"),
        (b'{"prompt": "a", "completion": "b"}\n[1]\n', r"data\.jsonl:2 is no JSON object"),
        (b'{"prompt": "\xff\xfe"}\n', r"data\.jsonl:1 is not text"),
        (b"[" * 100_000, r"data\.jsonl:1 is not JSON"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, raw: bytes, why: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(raw)
    with pytest.raises(BadExamples, match=why):
        read_rows(path)
    with pytest.raises(BadExamples, match="cannot be read"):
        read_rows(tmp_path / "absent.jsonl")


def test_pairs_must_differ(weights: Weights, tmp_path: Path) -> None:
    (row,) = rows(tmp_path, {"prompt": "a", "chosen": "b", "rejected": "b"})
    with pytest.raises(BadExamples, match="the same"):
        Conversations(weights, 256).pair(row)


def test_a_stream_predicts_every_token_once() -> None:
    documents = [[5] * 7, [6] * 20, [7]]
    examples = list(text_stream(documents, 0, 8))
    targets = [int(t) for e in examples for t, w in zip(e.tokens, e.weights, strict=True) if w]
    assert targets == [*[5] * 7, 0, *[6] * 20, 0, 7, 0]
    assert all(len(e) <= 8 for e in examples)
