"""A real terminal around a shell on a scripted machine."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pexpect
import pytest

ROOT = Path(__file__).resolve().parents[3]
SECONDS = 60  # until something that must come is taken to be missing; machines may be slow
Spawn = Callable[..., "Terminal"]


class Terminal(pexpect.spawn):  # type: ignore[misc]  # pexpect has no types
    """Someone at a keyboard."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        # Where jax has been imported it warns of every fork; this one starts a program.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
            super().__init__(*arguments, **options)

    def types(self, line: str) -> None:
        """A line, and Enter."""
        self.send(line + "\r")

    def sees(self, *texts: str) -> str:
        """Wait until these were written, one after the other; what came before and with the last."""
        for text in texts:
            self.expect_exact(text)
        return str(self.before) + str(self.after)

    def ends(self) -> int:
        """Wait for the end; the exit code."""
        self.expect(pexpect.EOF)
        self.close()
        code: int | None = self.exitstatus
        return -1 if code is None else code


def _end(child: Terminal) -> None:
    with suppress(pexpect.ExceptionPexpect):  # a loaded machine takes longer than it waits; SIGKILL was sent
        child.close(force=True)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    clean = {
        k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "TMUX", "TERM_PROGRAM", "COLORTERM")
    }
    return {**clean, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}


@pytest.fixture
def terminal(tmp_path: Path, environment: dict[str, str]) -> Iterator[Spawn]:
    """Starts `python -m tests.apps.shell.machine` on the test's own state, in a terminal of 80 by 24."""
    with ExitStack() as open_:

        def spawn(*arguments: str, size: tuple[int, int] = (24, 80), module: str = "tests.apps.shell.machine",
                  env: dict[str, str] | None = None, **more: Any) -> Terminal:  # fmt: skip
            state = [str(tmp_path / "state")] if module != "llmos" else []
            child = Terminal(
                sys.executable, ["-m", module, *state, *arguments], env={**environment, **(env or {})},
                encoding="utf-8", codec_errors="replace", dimensions=size, timeout=SECONDS, cwd=str(ROOT), **more,
            )  # fmt: skip
            child.str_last_chars = 4000  # of what was on the screen, in the message of a test that fails
            open_.callback(_end, child)
            return child

        yield spawn
