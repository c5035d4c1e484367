"""The tree of errors is the one that its docstring draws, and a message has three parts."""

from __future__ import annotations

import re

from llmos.abi import errors
from llmos.abi.errors import Cancelled, ConfigError, LLMOSError


def _drawn() -> dict[str, str]:
    """Each error of the drawing -> its parent."""
    stack: list[tuple[int, str]] = []
    parents: dict[str, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^( {4}[│├└─ ]*)([A-Z]\w+)", line)
        if not match or (not stack and match[2] != "LLMOSError"):
            continue
        depth = len(match[1])
        while stack and stack[-1][0] >= depth:
            stack.pop()
        parents[match[2]] = stack[-1][1] if stack else "Exception"
        stack.append((depth, match[2]))
    return parents


def test_the_drawing_is_the_tree() -> None:
    real = {
        name: value.__bases__[0].__name__
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, LLMOSError)
    }
    assert _drawn() == real


def test_three_parts() -> None:
    error = LLMOSError("it broke.", why="it was old", do="buy another?")
    assert str(error) == "it broke. it was old. buy another?"
    assert str(LLMOSError("it broke")) == "it broke."


def test_where_a_configuration_is_wrong() -> None:
    error = ConfigError("unknown key", file="llmos.yaml", line=3, key="kernel.modle")
    assert (error.file, error.line, error.key) == ("llmos.yaml", 3, "kernel.modle")
    assert error.what == "llmos.yaml:3: kernel.modle: unknown key"


def test_exit_codes() -> None:
    assert LLMOSError.exit_code == 1
    assert Cancelled.exit_code == 130
