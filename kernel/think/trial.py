"""A program tried on examples, where it can do no harm.

What: runs code that a model wrote in a sandbox of its own (`llmos.drivers.sandbox`), made for this once: no files, no
    network, no time to speak of. To whoever asks it is a calculation: nothing of it is left.
Invariant: code that hangs, crashes, prints or eats memory fails the examples that it has not passed by then, and
    nothing else. One sandbox a program: none sees another's doings. What has to come out never goes in: a program that
    looks around in its sandbox finds no answers there.
Interface: `examples_in(question) -> Example, ...`; `passed(code, examples, seconds) -> int`, `values(code, expressions,
    seconds)`, blocking; SandboxMissing.
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
LOUD = 1 << 20  # bytes that a program may say
_ARROW = re.compile(
    r"^[ \t>*`#-]*(?P<call>[A-Za-z_]\w*\s*\(.*?\))`?\s*"
    r"(?:==|=>|->|➞|→|=|#\s*=>|#\s*returns?\b|\breturns?\b|\bshould return\b|\bgives\b)\s*`?"
    r"(?P<want>[^\n]+)$"
)
_DEF = re.compile(r"^\s*(?:async\s+)?def\s+(\w+)", re.MULTILINE)

_NONE = object()  # the value of what has none

_GUEST = """\
import sys, json
given = json.loads(sys.stdin.readline())
out, sys.stdout = sys.stdout, open("/dev/null", "w")
space = {"__name__": "candidate"}
exec(compile(given["code"], "candidate", "exec"), space)
def plain(value):
    if isinstance(value, dict):
        return {plain(key): plain(part) for key, part in value.items()}
    for kind, as_kind in ((list, list), (tuple, tuple), (set, set), (frozenset, set)):
        if isinstance(value, kind):
            return as_kind(map(plain, value))
    return value
for expression in given["expressions"]:
    try:
        value = repr(plain(eval(expression, space)))
    except Exception:
        value = ""
    print(given["word"], json.dumps(value), file=out, flush=True)
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
    asked, wanted = [], list[object]()
    for call, want in examples:
        value = _read(want)  # what is no literal is compared inside: there is no other place for it
        asked.append(f"({call}) == ({want})" if value is _NONE else call)
        wanted.append(True if value is _NONE else value)
    return sum(map(same, values(code, asked, seconds), wanted))


def values(code: str, expressions: Sequence[str], seconds: float) -> list[object]:
    """What expressions come to behind a program, as literals of Python; what fails, or is not there within `seconds`,
    is `same` as nothing.

    Raises:
        SandboxMissing: this machine cannot confine it; nothing was run.
    """
    word = secrets.token_hex(8)
    limits = Limits(
        seconds=seconds, cpu_seconds=max(int(seconds) + 1, 2), memory=512 << 20, disk=16 << 20, processes=16
    )
    python = str(Path(sys.executable).resolve())
    given = json.dumps({"code": code, "expressions": list(expressions), "word": word})
    heard, count = b"", len(expressions)
    with Sandbox([python, "-I", "-S", "-c", _GUEST], limits) as sandbox:
        end = time.monotonic() + seconds
        try:
            sandbox.begin()
            sandbox.send(given.encode("utf-8", "replace") + b"\n", seconds)
            while time.monotonic() < end and heard.count(b"\n") < count and len(heard) <= LOUD:
                data = sandbox.receive(min(max(end - time.monotonic(), 0), 0.2))
                if data is None:
                    break
                heard += data
        except SandboxEnded:
            pass
    lines = [line[len(word) + 1 :] for line in heard.split(b"\n")[:-1] if line.startswith(word.encode())]
    found = [_said(line) for line in lines[:count]]
    return found + [_NONE] * (count - len(found))


def same(value: object, wanted: object) -> bool:
    """Whether a value is the wanted one: floats nearly, and no truth value is a number."""
    if value is _NONE or wanted is _NONE:
        return False
    if isinstance(value, float) or isinstance(wanted, float):
        try:
            return bool(abs(value - wanted) <= 1e-6 * max(1, abs(wanted)))  # type: ignore[operator,arg-type]
        except (TypeError, OverflowError):
            return False
    return value == wanted and isinstance(value, bool) == isinstance(wanted, bool)


def _said(line: bytes) -> object:
    """The value that a line of the guest has."""
    try:
        return _read(str(json.loads(line)))
    except ValueError:
        return _NONE


def _read(text: str) -> object:
    """A literal of Python; `_NONE` where it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value: object = ast.literal_eval(text)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return _NONE
    return value


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
        if _read(said[:end].strip()) is not _NONE:
            return said[:end].strip()
    return ""
