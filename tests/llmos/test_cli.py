"""The command line without a model: verbs, help, errors, exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llmos.cli.complain import complain
from llmos.cli.inputs import mount_list
from llmos.cli.parser import parser

Run = Callable[..., "subprocess.CompletedProcess[str]"]
VERBS = (
    "ask", "shell", "up", "down", "status", "logs", "ps", "top", "pmap", "kill", "checkpoint", "resume", "journal",
    "replay", "serve", "next", "models", "app", "doctor", "expert", "talk", "run",
    "zip", "unzip", "export", "fill", "learn", "adapter", "label",
)  # fmt: skip
ROOT = Path(__file__).resolve().parents[2]


def test_version(run_llmos: Run) -> None:
    import llmos

    done = run_llmos("--version")
    assert (done.returncode, done.stdout) == (0, f"llmos {llmos.__version__}\n")


def test_the_verbs() -> None:
    (actions,) = [a for a in parser()._actions if a.dest == "verb"]
    assert actions.choices is not None
    assert set(actions.choices) == set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_examples(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parser().parse_args([verb, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "examples:" in text
    assert f"llmos {verb}" in text


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["aks", "x"],
        ["ask"],
        ["ask", "x", "--trust", "nobody"],
        ["ask", "x", "--max-tokens", "0"],
        ["ask", "x", "--max-tokens", "many"],
        ["ask", "x", "--seed", "-1"],
        ["ask", "x", "--temperature", "nan"],
        ["ask", "x", "--temp", "1"],
        ["next", "x", "-k", "-3"],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parser().parse_args(arguments)
    assert caught.value.code == 2
    assert "usage: llmos" in capsys.readouterr().err


def _three_parts(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    assert lines[0].startswith("llmos: ")
    assert lines[-1].startswith("  do:  ")


def test_a_missing_mount_is_told_before_anything_is_loaded(run_llmos: Run) -> None:
    started = time.monotonic()
    done = run_llmos("ask", "why?", "--mount", "/nowhere/\x1b[31m")
    _three_parts(done)
    assert "/nowhere/" in done.stderr
    assert "\x1b" not in done.stderr
    assert time.monotonic() - started < 10


def test_a_wrong_configuration(run_llmos: Run, tmp_path: Path) -> None:
    file = tmp_path / "llmos.yaml"
    file.write_text("kernel:\n  modle: x\n", encoding="utf-8")
    done = run_llmos("ask", "why?", "--config", str(file))
    _three_parts(done)
    assert f"{file}:2: kernel.modle: unknown key" in done.stderr
    assert "did you mean 'model'?" in done.stderr


def test_debug_shows_the_traceback(run_llmos: Run) -> None:
    done = run_llmos("ask", "why?", "--config", "/nowhere", env={"LLMOS_DEBUG": "1"})
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("question", ["", "  \n"])
def test_an_empty_question(run_llmos: Run, question: str) -> None:
    _three_parts(run_llmos("ask", question))


def test_piped_bytes_that_are_not_text(run_llmos: Run, tmp_path: Path) -> None:
    file = tmp_path / "bytes"
    file.write_bytes(b"abc\xff")
    with file.open("rb") as f:
        done = run_llmos("ask", "why?", stdin=f)
    _three_parts(done)
    assert "byte 0xff at offset 3" in done.stderr


def test_a_question_that_is_not_text() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "llmos", "ask", b"wh\xffy?"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    _three_parts(done)


def test_a_reader_that_leaves() -> None:
    """`llmos models list | head -0` ends quietly."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "llmos", "models", "list"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    os.close(write)
    assert "Traceback" not in done.stderr
    assert done.returncode == 128 + signal.SIGPIPE


def test_ctrl_c_while_it_waits_for_its_input() -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "llmos", "ask", "why?"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    time.sleep(2)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=30)
    assert (child.returncode, out) == (130, "")
    assert "Traceback" not in err


def test_named_volumes_and_trust(tmp_path: Path) -> None:
    from llmos.drivers.yamlfile import parse

    (tmp_path / "h").mkdir()
    from llmos.abi.config import Config

    config = parse(
        "memory: {volumes: {h: {path: h, trust: mine}}}", Config, file=str(tmp_path / "llmos.yaml")
    )
    (mount,) = mount_list(["h"], None, config)
    assert (mount.path, mount.trust) == (tmp_path / "h", "mine")
    (mount,) = mount_list(["h"], "shared", config)
    assert mount.trust == "shared"
    (mount,) = mount_list([str(tmp_path)], None, config)
    assert mount.trust == "shared"


def test_what_the_operating_system_says(capsys: pytest.CaptureFixture[str]) -> None:
    import errno

    assert complain(OSError(errno.ENOSPC, "No space left on device", "/x")) == 1
    assert "no room on the disk: /x" in capsys.readouterr().err
    assert complain(PermissionError(errno.EACCES, "Permission denied", "/y")) == 1
    assert "permission denied: /y" in capsys.readouterr().err
    assert complain(MemoryError()) == 1
    assert "out of memory" in capsys.readouterr().err
    assert complain(ZeroDivisionError("oh")) == 70
    assert "ZeroDivisionError: oh" in capsys.readouterr().err
