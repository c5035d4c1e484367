"""Start-up of the package and of the command, in seconds.

What: `import_s` (a process that does `import llmos`), `help_s` (`llmos --help`), `python_s` (a process that does
    nothing, part of both), `jax_imported` (0: neither of them imports jax), and `first_token_s`: `llmos ask` with
    a prompt of 1,000 tokens, from command to the first character, second run.
Invariant: each in a process of its own, medians.
Interface: `run`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.figures import Figures, Progress

ROOT = Path(__file__).resolve().parent.parent
NO_JAX = "import sys; {}; sys.exit(any(m.partition('.')[0] in ('jax', 'jaxlib') for m in sys.modules))"
HELP = "from llmos.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass"
MODEL = "qwen2.5-coder-0.5b"
PROMPT = "The kernel pages knowledge in and out of its window, and every page has an owner. "


def seconds(*command: str) -> float:
    """Wall time of one process."""
    start_s = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start_s


def first_character(command: list[str]) -> float:
    """Seconds from the start of a command to the first byte on its stdout."""
    start_s = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        if not process.stdout.read(1):
            raise RuntimeError(f"{command} printed nothing")
        took = time.perf_counter() - start_s
        process.stdout.read()
    return took


def run(quick: bool, progress: Progress) -> Figures:
    """See the module."""
    python, rounds = sys.executable, 3 if quick else 9
    commands = {
        "python_s": ["-c", "pass"],
        "import_s": ["-c", "import llmos"],
        "help_s": ["-m", "llmos", "--help"],
    }
    values: dict[str, float] = {}
    for key, arguments in commands.items():
        values[key] = statistics.median(seconds(python, *arguments) for _ in range(rounds))
        progress(f"{key} {values[key]:.3f}")
    guilty = [
        code
        for code in (NO_JAX.format("import llmos"), f"import sys\n{HELP}\n" + NO_JAX.format("pass"))
        if subprocess.run([python, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL, check=False).returncode
    ]
    values["jax_imported"] = len(guilty)
    ask = [python, "-m", "llmos", "ask", "--raw", "--model", MODEL, "--max-tokens", "4", _thousand_tokens()]
    runs = [first_character(ask) for _ in range(2 if quick else 4)]
    values["first_token_s"] = statistics.median(runs[1:])
    return Figures(values, (MODEL,), ("first_token_s: a prompt of 1,000 tokens, compiled programs cached",))


def _thousand_tokens() -> str:
    from llmos.drivers.weights import find, open_weights

    tokenizer = open_weights(find(MODEL)).tokenizer()
    text = "".join(f"{i}. {PROMPT}" for i in range(100))
    return tokenizer.decode(tokenizer.encode(text)[:1000])
