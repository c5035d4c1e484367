"""`llmos zip`, `unzip`, `export` and `learn plan` as a user runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llmos.abi.errors import ZipError
from llmos.cli import learn_plan, zipping
from llmos.cli.parser import parser

Run = Callable[..., "subprocess.CompletedProcess[str]"]
SMALL = ("--model", "smollm2-135m")
ROOT = Path(__file__).resolve().parents[2]


def test_files_come_back(run_llmos: Run, tmp_path: Path, weights_path: Callable[[str], Path]) -> None:
    weights_path("smollm2-135m")
    text = (ROOT / "README.md").read_bytes()[:1500]
    given = {"letter.txt": text, "noise.bin": os.urandom(300), "empty": b""}
    for name, data in given.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "letter.txt").chmod(0o640)
    names = [str(tmp_path / name) for name in given]
    done = run_llmos("zip", *names, "--json", *SMALL, timeout=250)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["files"]
    assert [row["bytes"] for row in rows] == [len(data) for data in given.values()]
    assert rows[0]["made"] < len(text) / 2
    packed = [tmp_path / f"{name}.llmz" for name in given]
    assert packed[0].stat().st_mode & 0o777 == 0o640
    out = tmp_path / "out"
    out.mkdir()
    done = run_llmos("unzip", *map(str, packed), "-o", str(out), timeout=250)
    assert done.returncode == 0, done.stderr
    assert {file.name: file.read_bytes() for file in out.iterdir()} == given


def test_what_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "a.llmz").write_text("mine")
    with pytest.raises(ZipError, match="is there already"):
        zipping.pack(parser().parse_args(["zip", str(tmp_path / "a")]))
    assert (tmp_path / "a.llmz").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["zip", "{0}/nowhere"], "cannot be read"),
        (["zip", "{0}"], "is no file"),
        (["zip", "{0}/a", "{0}/b", "-o", "{0}/c"], "is no folder"),
        (["zip", "{0}/a", "{0}/deep/a", "-o", "{0}/deep"], "two files would go"),
        (["zip", "{0}/a", "-o", "{0}/x/y"], "there is no folder"),
        (["unzip", "{0}/a"], "does not end in .llmz"),
        (["unzip", "{0}/a", "-o", "{0}/c"], "no file of `llmos zip`"),
    ],
)
def test_what_cannot_be_done_is_told_before_a_model_is_loaded(
    arguments: list[str], told: str, tmp_path: Path
) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("a", "b", "deep/a"):
        (tmp_path / name).write_text("some text\n")
    parsed = parser().parse_args([word.format(tmp_path) for word in arguments])
    with pytest.raises(ZipError, match=told):
        parsed.run(parsed)


@pytest.mark.slow
def test_an_interrupt_leaves_nothing(tmp_path: Path, weights_path: Callable[[str], Path]) -> None:
    weights_path("smollm2-135m")
    (tmp_path / "long.txt").write_text((ROOT / "README.md").read_text() * 20)
    process = subprocess.Popen(
        [sys.executable, "-m", "llmos", "zip", str(tmp_path / "long.txt"), *SMALL],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    cpu = Path(f"/proc/{process.pid}/stat")
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:  # until it is well under way
        if sum(map(int, cpu.read_text().rpartition(")")[2].split()[11:13])) > 6 * os.sysconf("SC_CLK_TCK"):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=100)
    assert (process.returncode, "interrupted" in told) == (130, True), told
    assert sorted(file.name for file in tmp_path.iterdir()) == ["long.txt"]


@pytest.mark.slow
def test_export_writes_a_program_that_answers(
    run_llmos: Run, tmp_path: Path, weights_path: Callable[[str], Path]
) -> None:
    weights_path("smollm2-135m")
    done = run_llmos("export", "--two-files", str(tmp_path), "--type", "f16", "--json", *SMALL)
    assert done.returncode == 0, done.stderr
    files = [Path(file) for file in json.loads(done.stdout)["files"]]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    command = [
        sys.executable,
        "-I",
        str(tmp_path / "answer.py"),
        "What is the capital of France?",
        "--tokens",
        "12",
    ]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=250).stdout
    assert "Paris" in said


def test_the_plan_of_the_talk(capsys: pytest.CaptureFixture[str]) -> None:
    import argparse

    action = argparse.ArgumentParser()
    learn_plan.add(action)
    words = "--params 70B --tokens 2e12 --device a100 --count 6000".split()
    assert learn_plan.run(action.parse_args(words)) == 0
    text = capsys.readouterr().out
    assert "12.0 days" in text and "file of 140 GB" in text and "$2," in text
    assert learn_plan.run(action.parse_args([*words, "--json"])) == 0
    value = json.loads(capsys.readouterr().out)
    assert 11 < value["days"] < 13 and value["fits"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("70e9", 70e9), ("70B", 70e9), ("1.5 T", 1.5e12), ("0.45", 0.45), ("2k", 2000), ("3m", 3e6)],
)
def test_amounts_as_people_write_them(text: str, value: float) -> None:
    assert learn_plan.amount(text) == value


@pytest.mark.parametrize("text", ["", "B", "1.2.3", "nan", "inf", "1e999", "-5", "ten"])
def test_amounts_that_are_none(text: str) -> None:
    import argparse

    with pytest.raises(argparse.ArgumentTypeError):
        learn_plan.amount(text)
