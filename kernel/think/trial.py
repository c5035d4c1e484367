"""A program tried on examples, where it can do no harm.

What: runs code that a model wrote in a sandbox of its own (`llmos.drivers.sandbox`), made for this once: no files, no
    network, no time to speak of. To whoever asks it is a calculation: nothing of it is left.
Invariant: code that hangs, crashes, prints or eats memory fails the examples that it has not passed by then, and
    nothing else. One sandbox a program: none sees another's doings.
Interface: `examples_in(question) -> Example, ...`; `passed(code, examples, seconds) -> int`, blocking; SandboxMissing.
"""

from __future__ import annotations

import ast
import doctest
import json
import re
import secrets
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from llmos.drivers.sandbox import Limits, Sandbox, SandboxEnded

Example = tuple[str, str]
"""An expression, and one that it has to equal."""
MOST = 32  # examples of a question
LONG = 400  # characters of a line that holds one
_ARROW = re.compile(
    r"^[ \t>*`#-]*(?P<call>[A-Za-z_]\w*\s*\(.*?\))`?\s*"
    r"(?:==|=>|->|➞|→|=|#\s*=>|#\s*returns?\b|\breturns?\b|\bshould return\b|\bgives\b)\s*`?"
    r"(?P<want>[^\n]+)$"
)
_DEF = re.compile(r"^\s*(?:async\s+)?def\s+(\w+)", re.MULTILINE)

_GUEST = """\
import sys, json
given = json.loads(sys.stdin.readline())
out, sys.stdout = sys.stdout, open("/dev/null", "w")
space = {"__name__": "candidate"}
exec(compile(given["code"], "candidate", "exec"), space)
def same(a, b):
    if isinstance(a, float) or isinstance(b, float):
        return abs(a - b) <= 1e-6 * max(1, abs(b))
    return type(a) == type(b) and a == b or a == b and not isinstance(a, bool) and not isinstance(b, bool)
for call, want in given["examples"]:
    try:
        right = same(eval(call, space), eval(want, space))
    except Exception:
        right = False
    print(given["word"], int(right), file=out, flush=True)
"""


def examples_in(question: str) -> tuple[Example, ...]:
    """The examples that a question gives of what a function should do: as Python's prompt shows them, or as `f(1) == 2`
    and the like."""
    found: list[Example] = []
    try:
        for one in doctest.DocTestParser().get_examples(re.sub(r'"""|\'\'\'', "", question)):
            found.append((one.source.strip(), one.want.strip()))
    except ValueError:  # prompts in a form of their own
        found.clear()
    names = set(_DEF.findall(question))
    lines = (line for line in question.splitlines() if len(line) <= LONG)
    for match in filter(None, map(_ARROW.match, lines)):
        call, want = match["call"].strip(), _literal(match["want"])
        if want and (not names or call.partition("(")[0].strip() in names):
            found.append((call, want))
    good = [(c, w) for c, w in dict.fromkeys(found) if _expression(c) and _expression(w)]
    return tuple(good[:MOST])


def passed(code: str, examples: Sequence[Example], seconds: float) -> int:
    """How many of the examples a program passes within `seconds`.

    Raises:
        SandboxMissing: this machine cannot confine it; nothing was run.
    """
    word = secrets.token_hex(8)
    limits = Limits(
        seconds=seconds, cpu_seconds=max(int(seconds) + 1, 2), memory=512 << 20, disk=16 << 20, processes=16
    )
    python = str(Path(sys.executable).resolve())
    given = json.dumps({"code": code, "examples": list(examples), "word": word})
    heard = b""
    with Sandbox([python, "-I", "-S", "-c", _GUEST], limits) as sandbox:
        end = time.monotonic() + seconds
        try:
            sandbox.begin()
            sandbox.send(given.encode("utf-8", "replace") + b"\n", seconds)
            while time.monotonic() < end and heard.count(b"\n") < len(examples):
                data = sandbox.receive(min(max(end - time.monotonic(), 0), 0.2))
                if data is None:
                    break
                heard = (heard + data)[-4096:]
        except SandboxEnded:
            pass
    return min(heard.split(b"\n").count(f"{word} 1".encode()), len(examples))


def _expression(text: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return bool(text)


def _literal(said: str) -> str:
    """The value at the beginning of what follows an arrow: the longest that Python reads."""
    said = said.strip().rstrip("`").strip()
    cuts = [m.start() for m in re.finditer(r"\s|#|,|\.(?=\s|$)|;", said)]
    comments = [at for at in cuts if said[at] == "#"]  # else it would be part of what is read
    for end in (*comments, len(said), *reversed(cuts)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ast.literal_eval(said[:end].strip())
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        return said[:end].strip()
    return ""
