"""`llmos app`: what it shows, what it makes, what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from llmos.abi.errors import ConfigError, LLMOSError, ManifestError
from llmos.abi.loading import load
from llmos.cli.app_actions import _with_grants
from llmos.cli.app_new import make
from llmos.cli.complain import complain
from llmos.cli.parser import parser
from llmos.conformance import CHECKS
from llmos.kernel.grants import Grant

Run = Callable[..., "Ended"]
ROOT = Path(__file__).resolve().parents[2]
FAULTY = "tests.llmos.conformance.faulty"


@dataclass
class Ended:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run_llmos(capsys: pytest.CaptureFixture[str]) -> Run:
    """The command within this process: each start of another one costs seconds here."""

    def run(*arguments: str) -> Ended:
        chosen = parser().parse_args(arguments)
        try:
            code = chosen.run(chosen)
        except (LLMOSError, OSError) as error:
            code = complain(error)
        said = capsys.readouterr()
        return Ended(code, said.out, said.err)

    return run


def test_the_list_says_what_each_call_does(run_llmos: Run, fresh_machine: Path) -> None:
    (fresh_machine / "llmos.yaml").write_text(
        f"apps:\n  shelf: {{mcp: some-server}}\n  good: {{app: '{FAULTY}:Good'}}\n  ends: {{app: 'no.such:App'}}\n"
    )
    text = run_llmos("app", "list", "--config", "llmos.yaml").stdout
    assert "calculator: Exact arithmetic" in text
    assert ["good.keep", "write", "Keep", "a", "note."] in [line.split() for line in text.splitlines()]
    assert "shelf: a foreign MCP server (some-server)" in text
    assert "ends: broken: " in text
    told = json.loads(run_llmos("app", "list", "--config", "llmos.yaml", "--json").stdout)["apps"]
    by_name = {one["app"]: one for one in told}
    assert {"name": "good.add", "effect": "none", "about": "Add two numbers."} in by_name["good"]["syscalls"]
    assert by_name["shelf"] == {"app": "shelf", "foreign": "some-server"}
    assert "error" in by_name["ends"]


def test_info_says_all_that_a_user_has_to_know(run_llmos: Run) -> None:
    text = run_llmos("app", "info", f"{FAULTY}:Good").stdout
    for words in ("secrets", "token", "one: integer", "kind: one of sum, gap, optional", "text: string, target",
                  "effect write, retry safe, within 30 s"):  # fmt: skip
        assert words in text
    told = json.loads(run_llmos("app", "info", f"{FAULTY}:Good", "--json").stdout)
    assert told["secrets"] == ["token"]
    assert {one["name"]: one["effect"] for one in told["syscalls"]}["good.keep"] == "write"
    wrong = run_llmos("app", "info", "nothing")
    assert wrong.returncode == 1
    assert "there is no app 'nothing'" in wrong.stderr


def test_the_suite_tells_faults_and_what_to_do(run_llmos: Run) -> None:
    done = run_llmos("app", "test", f"{FAULTY}:NoTarget", "--only", "labels", "--only", "schema")
    assert done.returncode == 1
    assert "labels        FAULT" in done.stdout
    assert "schema        ok" in done.stdout
    assert "do: mark what decides where it goes: `url: Annotated[str, Target]`" in done.stdout
    assert "not called, for their effect: no_target.get" in done.stdout
    good = run_llmos("app", "test", "calculator", "--only", "labels", "--json")
    assert good.returncode == 0
    assert json.loads(good.stdout)["conforms"] is True
    for arguments, words in (
        (("--only", "nothing"), "no check"),
        (("--effects", "harm"), "no effect"),
        (("--examples", "/nowhere.json"), "no such file"),
    ):
        wrong = run_llmos("app", "test", "calculator", *arguments)
        assert wrong.returncode == 1
        assert words in wrong.stderr


@pytest.mark.parametrize("text", ["no json", "[]", '{"a.b": 1}', '{"a.b": [1]}'])
def test_examples_of_another_form(run_llmos: Run, tmp_path: Path, text: str) -> None:
    file = tmp_path / "examples.json"
    file.write_text(text)
    done = run_llmos("app", "test", "calculator", "--only", "labels", "--examples", str(file))
    assert done.returncode == 1
    assert str(file) in done.stderr


# --- making one ---


@pytest.mark.parametrize("name", ["shopping", pytest.param("to-do_list", marks=pytest.mark.slow)])
def test_a_new_app_works_and_conforms(tmp_path: Path, name: str) -> None:
    folder = make(name, tmp_path / "made")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(folder)))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", str(folder)],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert f"{len(CHECKS) + 1} passed" in done.stdout, done.stdout[-3000:] + done.stderr[-1000:]


def test_a_new_app_can_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a wheel of it would say of itself: the entry point leads to the class."""
    import tomllib

    folder = make("shopping", tmp_path / "shopping")
    said = tomllib.loads((folder / "pyproject.toml").read_text())
    monkeypatch.syspath_prepend(folder)
    entry = said["project"]["entry-points"]["llmos.apps"]["shopping"]
    assert load(entry).app_name == "shopping"
    assert said["tool"]["setuptools"]["packages"] == [entry.partition(":")[0]]


@pytest.mark.parametrize("name", ["Big", "a b", "", "../x", "1st", "class", "json", "x" * 40, "a\n"])
def test_a_bad_name_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(ManifestError):
        make(name, tmp_path / "made")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    there = tmp_path / "shopping"
    there.mkdir()
    with pytest.raises(ConfigError, match="there already"):
        make("shopping", there)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(LLMOSError):
        make("shopping", tmp_path / "link")
    assert list(there.iterdir()) == []


# --- granting ---

EXPERT = """\
expert: clerk  # keep this
version: 1.0.0
description: Keeps lists.
grants:
  calculator.evaluate:
starters: ["What is on the list?"]
"""


def test_grants_are_shown_with_what_they_do(run_llmos: Run) -> None:
    done = run_llmos("app", "grant", "files.write(path=out/*)", "calculator.solve")
    assert done.returncode == 0
    assert "files.write(path=out/*)" in done.stdout
    assert "writes" in done.stdout
    assert "llmos ask \"...\" --grant 'files.write(path=out/*)' --grant calculator.solve" in done.stdout
    told = json.loads(run_llmos("app", "grant", "calculator.solve", "--json").stdout)
    assert [(one["grant"], one["effect"]) for one in told["wants"]] == [("calculator.solve", "none")]
    wrong = run_llmos("app", "grant", "calculatr")
    assert wrong.returncode == 1
    assert "did you mean 'calculator" in wrong.stderr


def test_an_expert_is_given_grants_that_somebody_agreed_to(run_llmos: Run, fresh_machine: Path) -> None:
    file = fresh_machine / "clerk.yaml"
    file.write_text(EXPERT)
    refused = run_llmos("app", "grant", "files.write(path=out/*)", "--expert", str(file))
    assert refused.returncode == 1
    assert "nobody has agreed" in refused.stderr
    assert file.read_text() == EXPERT
    given = run_llmos("app", "grant", "files.write(path=out/*)", "files.read", "--expert", str(file), "--yes")
    assert given.returncode == 0, given.stderr
    assert "writes" in given.stderr
    assert file.read_text() == EXPERT.replace(
        "grants:\n", 'grants:\n  "files.write": {"path": "out/*"}\n  "files.read":\n'
    )
    shown = json.loads(run_llmos("expert", "info", str(file), "--json").stdout)
    assert {one["grant"]: one["agreed"] for one in shown["wants"]} == {
        "calculator.evaluate": False, "files.read": True, "files.write(path=out/*)": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("grants: {}\nx: 1\n", 'grants:\n  "a.b":\nx: 1\n'),
        ("x: 1\n", 'x: 1\ngrants:\n  "a.b":\n'),
        ("grants:  # mine\n  c.d:\n", 'grants:\n  "a.b":\n  c.d:\n'),
    ],
)
def test_lines_are_added_and_all_else_is_kept(before: str, after: str) -> None:
    assert _with_grants(before, [Grant.parse("a.b")], "f.yaml") == after


def test_grants_on_one_line_are_left_to_their_author() -> None:
    with pytest.raises(ConfigError, match="one line"):
        _with_grants("grants: {a.b: {}}\n", [Grant.parse("c.d")], "f.yaml")
