"""The parts of the shell that need no terminal."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmos.abi.errors import ConfigError
from llmos.apps.shell import history, pictures
from llmos.apps.shell.commands import table_of
from llmos.apps.shell.markdown import Blocks, painted
from llmos.apps.shell.script import given as put
from llmos.apps.shell.script import steps
from tests.apps.shell.conftest import ROOT

ANSI = re.compile(r"\x1b\[[0-9;]*m")
SNIPPETS = [
    "# T\n",
    "a *b*\n\n",
    "```py\nx = 1\n",
    "```\n",
    "- one\n",
    "| a | b |\n|---|---|\n",
    "> q\n",
    "<p>\n",
    "\n",
]


@given(st.lists(st.sampled_from(SNIPPETS) | st.text(max_size=8), max_size=12))
@settings(max_examples=200, deadline=None)
def test_blocks_lose_nothing(pieces: list[str]) -> None:
    blocks = Blocks()
    out = [block for piece in pieces for block in blocks.push(piece)]
    assert "".join([*out, blocks.close()]) == "".join(pieces)


@given(st.text(max_size=60), st.integers(1, 100))
@settings(max_examples=100, deadline=None)
def test_painting_writes_colours_and_nothing_else(text: str, width: int) -> None:
    assert "\x1b" not in ANSI.sub("", painted(text, width))
    assert "\x1b" not in ANSI.sub("", painted(f"[{text}](http://x/{text}) ![{text}](x)", width))


def test_what_painting_shows() -> None:
    shown = ANSI.sub("", painted("[the bank](http://evil.example/) ![p](http://x/y.png) <i>h</i> &amp;", 80))
    assert shown == "the bank (http://evil.example/) !p (http://x/y.png) <i>h</i> &"
    table = ANSI.sub("", painted("| 漢字 | b |\n|---|---|\n| 👋🏽 | ok |", 40)).splitlines()
    assert any("漢字" in line for line in table) and any("👋🏽" in line for line in table)
    wide = ANSI.sub("", painted("漢" * 100, 20)).splitlines()
    assert all(len(line) <= 10 for line in wide), "each takes two columns"
    assert "\x1b[" not in re.sub(r"\x1b\[[0-9;]*m", lambda m: "" if re.fullmatch(r"\x1b\[[0-9;]*m", m[0]) else m[0],
                                 painted("```python\nx = 1\n```", 40, colour=False))  # fmt: skip


def test_a_block_is_out_when_the_next_begins() -> None:
    blocks = Blocks()
    assert blocks.push("one\n\ntw") == ["one\n\n"] and blocks.tail == "tw"
    assert blocks.push("o\n\n```\ncode\n\nmore\n") == ["two\n\n"]
    assert blocks.push("```\n\nend") == ["```\ncode\n\nmore\n```\n\n"]


def test_the_history_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "history"
    history.append(path, "one\ntwo")
    history.append(path, "\ud800")
    history.append(path, "x" * 30_000)
    assert history.load(path)[0] == "one\ntwo" and len(history.load(path)) == 2
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b'\xff\xfe\n"good"\n{"no": 1}\n' * 3000)
    assert history.load(path)[-1] == "good" and len(history.load(path)) <= history.MAX_LINES
    assert len(path.read_text().splitlines()) <= history.MAX_LINES
    assert history.load(tmp_path) == [] and history.load(tmp_path / "none") == []


def test_steps_of_a_script() -> None:
    text = '#!/usr/bin/env -S llmos run\n\nhello \\\nworld\n/ps\n"""\n# no comment\n\nlong\n"""\nlast \\'
    assert list(steps(text.split("\n"))) == [
        (3, "hello \nworld"), (5, "/ps"), (6, "# no comment\n\nlong"), (11, "last ")
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="line 1 are not closed"):
        list(steps(['"""', "x"]))
    assert put("$1 and ${2}: $@", ["a", "b c"]) == "a and b c: a b c"
    assert put("it costs $5", []) == "it costs $5"
    with pytest.raises(ConfigError, match=r"wants an argument \$2"):
        put("$1 $2", ["a"])


def test_every_command_says_what_it_does() -> None:
    wanted = (
        "ps top pmap mount umount experts use apps grant fork kill fg bg jobs history save resume pin page-in page-out "
        "undo diff pick fix good bad trace next why help"
    )
    assert set(wanted.split()) <= set(table_of())
    assert all(command.help for command in table_of().values())


@pytest.mark.parametrize("how", ["kitty", "iterm", "sixel"])
def test_pictures(how: pictures.Protocol, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "plot.png"
    image.new("RGB", (300, 40), (200, 30, 30)).save(path)
    text = pictures.escape(path, how, 20)
    assert text is not None
    if how == "kitty":
        data = "".join(re.findall(r"\x1b_G[^;]*;([^\x1b]*)\x1b\\", text))
        assert image.open(io.BytesIO(base64.b64decode(data))).size == (200, 27)
    elif how == "iterm":
        data = text.partition(":")[2].partition("\x07")[0]
        assert image.open(io.BytesIO(base64.b64decode(data))).width == 200
    else:
        assert text.startswith("\x1bPq") and text.endswith("\x1b\\\n") and text.count("-") == 5
        assert "!200~" in text, "runs of full columns"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\x1b]0;owned\x07")
    assert pictures.escape(path, how, 20) is None
    assert pictures.escape(tmp_path, how, 20) is None


def test_which_terminals_show_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TMUX", "TERM_PROGRAM", "KITTY_WINDOW_ID", "LLMOS_IMAGES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-kitty")
    assert pictures.protocol() == "kitty"
    monkeypatch.setenv("TMUX", "/tmp/tmux")
    assert pictures.protocol() is None
    monkeypatch.setenv("LLMOS_IMAGES", "sixel")
    assert pictures.protocol() == "sixel"
    monkeypatch.setenv("LLMOS_IMAGES", "none")
    assert pictures.protocol() is None


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path, environment: dict[str, str]) -> Run:
    def start(*arguments: str, **more: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tests.apps.shell.machine", str(tmp_path / "state"), *arguments],
            env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100, **more,  # type: ignore[call-overload]
        )  # fmt: skip

    return start


def test_a_script(run: Run, tmp_path: Path) -> None:
    script = tmp_path / "morning.llmos"
    script.write_text("# good morning\nhello $1\n/fork 1\n/ps\n/mount\ncount\n", encoding="utf-8")
    done = run("world", "--run", str(script))
    assert (done.returncode, done.stdout) == (0, "You said hello world.\n2\n"), done.stderr
    assert "PPID" in done.stderr and "nothing is mounted" in done.stderr
    script.write_text("hello\n/fg 77\nnever\n", encoding="utf-8")
    done = run("--run", str(script))
    assert done.returncode == 1 and done.stdout == "You said hello.\n"
    assert "morning.llmos:2: /fg 77" in done.stderr and "there is no process 77" in done.stderr
    script.write_bytes(b"hello\n\xff\n")
    done = run("--run", str(script))
    assert done.returncode == 1 and "is not UTF-8" in done.stderr


def test_lines_through_a_pipe(run: Run, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("x")
    done = run(
        input=f"hello\n/nothing\nmail me@example.org about @nobody\n@{tmp_path}/missing.txt?\n/quit\nnever\n"
    )
    assert done.returncode == 0 and "never" not in done.stdout
    assert done.stdout.startswith("You said hello.\nYou said mail me@example.org about @nobody.\n")
    assert "There is no /nothing" in done.stderr and "\x1b" not in done.stdout + done.stderr
