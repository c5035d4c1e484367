"""The command with real weights: `llmos serve` as a user starts it, the official client, SIGTERM."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

ROOT = Path(__file__).resolve().parents[3]
MODEL = "smollm2-135m"
ENCODER = "all-minilm-l6-v2"


@pytest.fixture(scope="module")
def client(weights_path: Callable[[str], Path]) -> Iterator[openai.OpenAI]:
    for name in (MODEL, ENCODER):
        weights_path(name)
    command = [sys.executable, "-m", "llmos", "serve", "--port", "0", "--model", MODEL]
    server = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    try:
        assert server.stderr is not None
        line = next(line for line in server.stderr if "is served at" in line)
        url = line.partition(" at ")[2].split()[0]
        with openai.OpenAI(base_url=url, api_key="-", max_retries=0, timeout=120) as client:
            yield client
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
    finally:
        server.kill()
        server.wait()
        server.stderr.close()  # type: ignore[union-attr]


def test_a_stream(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "What is the capital of France? Answer briefly."}]
    options: Any = {"model": MODEL, "messages": messages, "max_tokens": 40}
    stream = client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    whole = client.chat.completions.create(**options)
    assert "Paris" in said and whole.choices[0].message.content == said
    assert whole.usage is not None and chunks[-1].usage is not None
    assert whole.usage.completion_tokens == chunks[-1].usage.completion_tokens > 3
    assert whole.usage.prompt_tokens_details is not None
    assert whole.usage.prompt_tokens_details.cached_tokens == 16 * (whole.usage.prompt_tokens // 16)


def test_same_seed_same_answer(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Tell me a story."}]
    options: Any = {"model": MODEL, "messages": messages, "max_tokens": 20, "temperature": 1.2}
    first, again = (client.chat.completions.create(**options, seed=7, n=2) for _ in range(2))
    texts = [choice.message.content for choice in first.choices]
    assert texts == [choice.message.content for choice in again.choices] and texts[0] != texts[1]
    others = {client.chat.completions.create(**options).choices[0].message.content for _ in range(3)}
    assert len(others) > 1  # without a seed


def test_a_schema_holds(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 20}, "legs": {"enum": [2, 4]}},
        "required": ["name", "legs"],
    }
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Describe a dog."}],
        response_format={"type": "json_schema", "json_schema": {"name": "animal", "schema": schema}},
        logprobs=True,
    ).choices[0]
    found = json.loads(answer.message.content or "")
    assert set(found) == {"name", "legs"} and found["legs"] in (2, 4)
    assert answer.logprobs is not None and answer.logprobs.content is not None
    assert b"".join(bytes(t.bytes or ()) for t in answer.logprobs.content).decode() == answer.message.content
    assert any(t.logprob < 0 for t in answer.logprobs.content)


def test_continuing_a_text(client: openai.OpenAI) -> None:
    options: Any = {"model": MODEL, "max_tokens": 6, "logprobs": 0}
    whole = client.completions.create(prompt=["One, two, three, four,", "The cat sat on the"], **options)
    assert [c.index for c in whole.choices] == [0, 1] and whole.choices[0].text.startswith(" five")
    assert whole.usage is not None and whole.usage.completion_tokens == 12
    logprobs = whole.choices[0].logprobs
    assert logprobs is not None and "".join(logprobs.tokens or ()) == whole.choices[0].text
    assert logprobs.text_offset is not None and logprobs.text_offset[:2] == [
        0,
        len((logprobs.tokens or [""])[0]),
    ]
    pieces = client.completions.create(prompt="One, two, three, four,", stream=True, **options)
    assert "".join(c.choices[0].text for c in pieces) == whole.choices[0].text
    with pytest.raises(openai.BadRequestError, match="nothing to continue"):
        client.completions.create(model=MODEL, prompt="")
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=MODEL, prompt="x", suffix="y")
    assert caught.value.code == "unsupported_parameter"


def test_embeddings(client: openai.OpenAI) -> None:
    texts = ["A cat sleeps.", "A kitten is napping.", "Interest rates rose."]
    found = client.embeddings.create(model=ENCODER, input=texts)
    assert [d.index for d in found.data] == [0, 1, 2] and found.usage.prompt_tokens > 10
    cat, kitten, rates = (np.array(d.embedding) for d in found.data)
    assert cat.shape == (384,) and abs(float(cat @ cat) - 1) < 1e-3
    assert cat @ kitten > 0.5 > cat @ rates
    plain = client.embeddings.create(model=ENCODER, input="A cat sleeps.", encoding_format="float")
    packed = client.embeddings.with_raw_response.create(
        model=ENCODER, input="A cat sleeps.", encoding_format="base64"
    )
    data = json.loads(packed.content)["data"][0]["embedding"]
    assert np.allclose(plain.data[0].embedding, np.frombuffer(base64.b64decode(data), "<f4"), atol=1e-6)
    for wrong, code in (
        ("word " * 300, "context_length_exceeded"),
        ("", "invalid_value"),
        ([1, 2], "invalid_type"),
        ([], "invalid_value"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            client.embeddings.create(model=ENCODER, input=wrong)
        assert caught.value.code == code
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model=ENCODER, input="x", dimensions=100)
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model=MODEL, input="x")


def test_what_the_command_refuses(run_llmos: Callable[..., Any], fresh_machine: Path) -> None:
    for arguments, said in (
        (["--host", "0.0.0.0"], "without a key"),
        (["--key-file", "no-such-file"], "cannot be read"),
        (["--port", "70000"], "not between"),
    ):
        done = run_llmos("serve", *arguments)
        assert done.returncode in (1, 2) and said in done.stderr and "Traceback" not in done.stderr
