"""The verbs with a real model behind them: SmolLM2-135M, and MiniLM for what is mounted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]
MODEL = "smollm2-135m"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _fetched(weights_path: Callable[[str], Path]) -> Iterator[None]:
    weights_path(MODEL)
    yield


def test_json_is_one_object_of_the_promised_shape(run_llmos: Run) -> None:
    arguments = ("ask", "Say hello.", "--model", MODEL, "--max-tokens", "12", "--json")
    done = run_llmos(*arguments, input="The word of the day is plum.\n")
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert set(value) == {"answer", "calls", "citations", "usage", "timings", "model"}
    assert value["model"] == MODEL
    assert value["answer"]
    assert value["citations"] == []
    assert {"prompt_tokens", "completion_tokens", "pages"} <= set(value["usage"])
    assert 0 < value["usage"]["completion_tokens"] <= 12
    assert {"boot_s", "first_token_s", "decode_tokens_per_s"} <= set(value["timings"])
    alone = run_llmos(*arguments)
    # What is piped in is read: the prompt is longer by about its words.
    assert value["usage"]["prompt_tokens"] - json.loads(alone.stdout)["usage"]["prompt_tokens"] >= 7


def test_stdout_is_the_answer_alone_and_the_seed_decides_it(run_llmos: Run) -> None:
    arguments = (
        "ask",
        "--raw",
        "Once upon a time",
        "--model",
        MODEL,
        "--max-tokens",
        "16",
        "--temperature",
        "1",
    )
    one, two, other = (run_llmos(*arguments, "--seed", seed) for seed in ("3", "3", "4"))
    assert one.returncode == 0, one.stderr
    assert one.stdout.strip()
    assert "first token" in one.stderr
    assert "first token" not in one.stdout
    assert one.stdout == two.stdout
    assert one.stdout != other.stdout


def test_next_draws_the_distribution(run_llmos: Run) -> None:
    done = run_llmos("next", "The capital of France is", "-k", "3", "--model", MODEL, "--json")
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    shares = [row["probability"] for row in value["next"]]
    assert value["next"][0]["token"] == " Paris"
    assert len(shares) == 3
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 1.0001
    drawn = run_llmos("next", "The capital of France is", "-k", "3", "--model", MODEL)
    assert "Paris" in drawn.stdout.splitlines()[0]
    assert "█" in drawn.stdout


def test_a_document_is_cited_by_its_place(
    run_llmos: Run, tmp_path: Path, weights_path: Callable[[str], Path]
) -> None:
    weights_path("all-minilm-l6-v2")
    (tmp_path / "leave.md").write_text(
        "# Leave\n\nEvery employee has 31 days of leave a year.\n", encoding="utf-8"
    )
    done = run_llmos(
        "ask", "How many days of leave are there?", "--mount", str(tmp_path), "--model", MODEL, "--json"
    )
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    for citation in value["citations"]:
        assert set(citation) == {"source", "position", "text"}
        assert "leave.md" in citation["source"]
        assert "31 days" in citation["text"]


def test_a_conversation_through_a_pipe(run_llmos: Run, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The parrot is called Ambrose.\n", encoding="utf-8")
    lines = [
        "/help",
        "",
        "Hello!",
        "/nonsense",
        f"/mount {tmp_path}/missing",
        f"/mount {tmp_path}/a.txt mine",
    ]
    lines += ["/mount", "/new", "Who?", "/quit", "never"]
    done = run_llmos("shell", "--model", MODEL, "--max-tokens", "8", input="\n".join(lines))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 2
    assert done.stderr.count("first token") == 2
    assert "There is no /nonsense" in done.stderr
    assert "/mount PATH" in done.stderr
    assert f"mounted {tmp_path}/a.txt (mine)" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_while_it_writes() -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "llmos", "ask", "--raw", "Once", "--model", MODEL, "--max-tokens", "2000"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
    )
    assert child.stdout is not None
    assert child.stdout.read(10)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 130
    assert b"Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.3, 0.6, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0])
def test_ctrl_c_at_any_moment(delay: float, run_llmos: Run) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "llmos", "ask", "--raw", "Once", "--model", MODEL, "--max-tokens", "2000"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    time.sleep(delay)
    over = child.poll() is not None  # a fast machine has said it all
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert over or child.returncode == 130
    assert b"Traceback" not in err


def test_a_question_too_long_for_the_window(run_llmos: Run) -> None:
    done = run_llmos("ask", "Why?", "--model", MODEL, input="word " * 20_000)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "fit the window" in done.stderr
    assert "do:" in done.stderr
