"""The shell at a terminal: seconds to the prompt, and from a key to its letter while the model is busy.

What: `prompt_s` (from the command to the prompt, the model loading behind it), `key_loading_s` and `key_answering_s`
    (the median of the time from a key to its letter on the screen, while weights load and while an answer comes), the
    worst of them as `..._max_s`.
Invariant: a real terminal (a pty) around `llmos shell` as a user starts it; state of its own; several runs.
Interface: `run`.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import Figures, Progress

ROOT = Path(__file__).resolve().parent.parent
MODEL = "qwen2.5-coder-0.5b"
KEYS = "αβγδεζηθικλμνξοπρστυφχψω"  # letters that nothing else on the screen has
QUESTION = "Count from one to one hundred, in words."


def run(quick: bool, progress: Progress) -> Figures:
    """See the module."""
    prompts, loading, answering = list[float](), list[float](), list[float]()
    with tempfile.TemporaryDirectory() as state:
        for number in range(2 if quick else 5):
            one = _session(state)
            progress(f"prompt after {one[0]:.2f} s")
            if number:  # the first finds nothing cached
                prompts.append(one[0])
                loading += one[1]
                answering += one[2]
    values = {
        "prompt_s": statistics.median(prompts), "prompt_max_s": max(prompts),
        "key_loading_s": statistics.median(loading), "key_loading_max_s": max(loading),
        "key_answering_s": statistics.median(answering), "key_answering_max_s": max(answering),
    }  # fmt: skip
    return Figures(values, (MODEL,), ("one terminal of 80 by 24; keys one after the other, each waited for",))


def _session(state: str) -> tuple[float, list[float], list[float]]:
    import pexpect

    environment = {**os.environ, "LLMOS_STATE": state, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT)}
    began = time.perf_counter()
    shell = pexpect.spawn(
        sys.executable, ["-m", "llmos", "shell", "--model", MODEL], env=environment, encoding="utf-8", timeout=300,
        dimensions=(24, 80),
    )  # fmt: skip
    shell.delaybeforesend = None
    shell.expect_exact("\u203a")
    prompt = time.perf_counter() - began
    loading = [_key(shell, key) for key in KEYS]
    shell.send("\x15" + QUESTION + "\r")
    shell.expect_exact("in words.\r")  # is above the line now, and is being answered
    answering = [_key(shell, key) for key in KEYS]
    shell.send("\x03")
    shell.expect_exact("tokens/s")
    shell.expect_exact("\u203a")  # the line is there again, with what was typed into it
    shell.send("\x15\x04")
    shell.expect(pexpect.EOF)
    shell.close()
    return prompt, loading, answering


def _key(shell: Any, key: str) -> float:
    began = time.perf_counter()
    shell.send(key)
    shell.expect_exact(key)
    return time.perf_counter() - began
