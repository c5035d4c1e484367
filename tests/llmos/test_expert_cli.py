"""`llmos expert`: from a new file to an installed one, as a user types it, without a model."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from llmos.apps.experts import draft
from llmos.apps.experts.shelf import Shelf
from llmos.cli import expert_actions, main
from llmos.cli.parser import parser
from llmos.connect import load_config

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def llmos(fresh_machine: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command in an empty folder; gives code, stdout and stderr."""
    monkeypatch.setattr("sys.stdin", io.StringIO(""))

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["expert", *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_what_runs_an_expert_takes_what_asks() -> None:
    """One question to an expert is answered by `llmos ask`, which reads its own options."""
    asks = vars(parser().parse_args(["ask", "Why?"]))
    runs = vars(parser().parse_args(["expert", "run", "librarian", "Why?"]))
    assert asks.keys() - runs.keys() <= {"expert"}  # given by name


def test_the_shipped_ones_are_listed(llmos: Run) -> None:
    code, out, _ = llmos("list", "--json")
    names = {one["name"]: one for one in json.loads(out)["experts"]}
    assert code == 0 and {"assistant", "librarian", "analyst", "researcher", "coder"} <= names.keys()
    assert all(one["error"] is None for one in names.values())


@pytest.mark.parametrize("name", ["assistant", "librarian", "analyst", "researcher", "coder"])
def test_a_shipped_expert_is_whole(llmos: Run, name: str) -> None:
    code, out, _ = llmos("info", name, "--json")
    value = json.loads(out)
    assert code == 0 and len(value["tests"]) >= 15 and all(want["agreed"] for want in value["wants"])
    shelf = Shelf(load_config())
    expert_actions._check(shelf.find(name), shelf)  # every file that it names is there


def test_new_validate_info(llmos: Run, fresh_machine: Path) -> None:
    (fresh_machine / "docs").mkdir()
    code, out, _ = llmos(
        "new", "handbook", "--describe", 'Answers "all" questions: of the house', "--knowledge", "docs",
        "--trust", "mine", "--grant", "calculator.evaluate",
    )  # fmt: skip
    assert code == 0 and "llmos expert run ./handbook.yaml" in out
    assert llmos("validate", "handbook.yaml")[:2] == (0, "handbook.yaml: good: handbook 0.1.0\n")
    code, out, _ = llmos("info", "./handbook.yaml")
    assert "docs (mine)" in out and "calculator.evaluate" in out and "not agreed to yet" in out
    code, _, err = llmos("new", "handbook", "--describe", "x")
    assert code == 1 and "is there already" in err
    assert llmos("new", "Bad Name", "--describe", "x")[0] == 1
    code, _, err = llmos("new", "nobody")
    assert code == 1 and "--describe" in err


def test_a_new_file_elsewhere_finds_what_was_named_from_here(llmos: Run, fresh_machine: Path) -> None:
    (fresh_machine / "docs").mkdir()
    where = ["--describe", "x", "--output", "experts/clerk.yaml", "--knowledge"]
    code, _, err = llmos("new", "clerk", *where, "nowhere")
    assert code == 1 and "nothing at" in err and not (fresh_machine / "experts/clerk.yaml").exists()
    assert llmos("new", "clerk", *where, "docs")[0] == 0
    (knowledge,) = json.loads(llmos("info", "experts/clerk.yaml", "--json")[1])["knowledge"]
    assert Path(knowledge["path"]).resolve() == fresh_machine / "docs"


def test_edit_opens_the_editor_and_checks_what_it_left(
    llmos: Run, fresh_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llmos("new", "clerk", "--describe", "A clerk.")
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", "sed -i s/clerk/judge/")
    assert llmos("edit", "clerk.yaml") == (0, "clerk.yaml: good\n", "")
    assert "judge" in (fresh_machine / "clerk.yaml").read_text()
    monkeypatch.setenv("EDITOR", "sed -i s/expert:/expart:/")
    code, _, err = llmos("edit", "clerk.yaml")
    assert code == 1 and "clerk.yaml:2: expart: unknown key" in err and "'expert'" in err
    monkeypatch.setenv("EDITOR", "no-such-editor")
    code, _, err = llmos("edit", "clerk.yaml")
    assert code == 1 and "no-such-editor cannot be started" in err and "$EDITOR" in err
    monkeypatch.setenv("EDITOR", "false")
    assert "false ended with 1" in llmos("edit", "clerk.yaml")[2]


def test_a_wrong_file_is_told_with_file_line_and_key(llmos: Run, fresh_machine: Path) -> None:
    (fresh_machine / "a.yaml").write_text("expert: a\ndescription: x\ngrants:\n  calculater.evaluate:\n")
    code, _, err = llmos("validate", "a.yaml")
    assert code == 1 and "a.yaml: grants" in err and "did you mean 'calculator.evaluate'" in err
    (fresh_machine / "a.yaml").write_text("expert: a\ndescription: x\nknowledge: [{path: gone/}]\n")
    code, _, err = llmos("validate", "a.yaml")
    assert code == 1 and "knowledge.0.path" in err and "nothing at" in err
    (fresh_machine / "a.yaml").write_text("expert: a\ndescription: x\nwindow: {budgte: 100}\n")
    code, _, err = llmos("validate", "a.yaml")
    assert code == 1 and "a.yaml:3: window.budgte: unknown key" in err and "'budget'" in err


def test_packed_published_found_installed_verified_removed(llmos: Run, fresh_machine: Path) -> None:
    assert llmos("new", "clerk", "--describe", "A clerk.", "--grant", "calculator.evaluate")[0] == 0
    code, _, err = llmos("pack", "./clerk.yaml")
    assert code == 1 and "llmos expert key" in err
    code, public, err = llmos("key")
    assert code == 0 and "known as" in err and llmos("key")[1] == public
    code, out, _ = llmos("pack", "./clerk.yaml")
    assert code == 0 and (fresh_machine / "clerk-0.1.0.expert").is_file()
    code, out, _ = llmos("verify", "clerk-0.1.0.expert", "--json")
    assert code == 0 and json.loads(out)["signer"] == public.strip()

    code, _, err = llmos("install", "clerk-0.1.0.expert")
    assert code == 1 and "nobody is there to ask" in err
    assert "clerk" not in llmos("list")[1]
    code, _, err = llmos("install", "clerk-0.1.0.expert", "--yes")
    assert code == 0 and "calculator.evaluate" in err, "what was agreed to is shown"
    assert "installed" in llmos("list")[1] and llmos("verify", "clerk")[0] == 0
    code, _, err = llmos("edit", "clerk")
    assert code == 1 and "--extends clerk" in err
    assert llmos("rm", "clerk")[0] == 0 and llmos("rm", "clerk")[0] == 1


def test_tests_gate_publishing(llmos: Run, fresh_machine: Path) -> None:
    llmos("key")
    file = fresh_machine / "clerk.yaml"
    file.write_text("expert: clerk\nversion: 1.0.0\ndescription: A clerk.\n")
    code, _, err = llmos("publish", "./clerk.yaml")
    assert code == 1 and "has no tests" in err
    file.write_text(
        file.read_text() + "tests: [{ask: a, expect: {contains: b}}, {ask: c, expect: {contains: d}}]\n"
    )
    shelf = Shelf(load_config())
    report = {"tests": 2, "passed": 1, "score": 0.5, "model": shelf.config.kernel.model}
    kept = expert_actions._kept(shelf, shelf.find("./clerk.yaml"))
    kept.parent.mkdir(parents=True)
    kept.write_text(json.dumps(report))
    code, _, err = llmos("publish", "./clerk.yaml")
    assert code == 1 and "1 of 2 of its tests pass" in err
    assert llmos("search", "--json")[1] == '{"experts": []}\n'
    assert llmos("publish", "./clerk.yaml", "--least", "0.5")[0] == 0
    (found,) = json.loads(llmos("search", "clerk", "--json")[1])["experts"]
    assert (found["version"], found["passed"], found["tests"]) == ("1.0.0", 1, 2)
    assert llmos("install", "clerk")[0] == 0
    assert "is the newest" in llmos("upgrade")[1]

    file.write_text(file.read_text().replace("1.0.0", "1.1.0"))
    kept = expert_actions._kept(shelf, shelf.find("./clerk.yaml"))
    kept.write_text(json.dumps({**report, "passed": 2, "score": 1.0}))
    assert llmos("publish", "./clerk.yaml")[0] == 0
    assert "clerk: 1.0.0 → 1.1.0" in llmos("upgrade", "clerk")[1]


def test_an_expert_that_nobody_agreed_to_is_not_run(llmos: Run, fresh_machine: Path) -> None:
    (fresh_machine / "a.yaml").write_text("expert: a\ndescription: x\ngrants: {calculator.evaluate: }\n")
    code, out, err = llmos("run", "./a.yaml", "What is 1+1?")
    assert code == 1 and out == "" and "nobody has agreed" in err and "llmos expert allow" in err
    assert main(["ask", "x", "--expert", "./a.yaml"]) == 1
    code, out, err = llmos("allow", "./a.yaml", "--yes")
    assert code == 0 and "a may call 1 syscall" in out and "calculator.evaluate" in err


def test_what_is_missing_is_told_before_any_model_is_loaded(llmos: Run, fresh_machine: Path) -> None:
    file = fresh_machine / "a.yaml"
    for text, said in (
        ("knowledge: [{path: gone.md}]", "has lost what it answers from"),
        ("adapter: gone.safetensors", "there is no file"),
        ("base: no-such-model", "no-such-model"),
        ("base: ./gone.gguf", "gone.gguf"),
        ("knowledge: [{path: 'http://127.0.0.1:9/x'}]", "cannot be fetched"),
    ):
        file.write_text(f"expert: a\ndescription: x\n{text}\n")
        code, out, err = llmos("run", "./a.yaml", "Why?")
        assert code == 1 and out == "" and said in err, (text, err)


@pytest.mark.parametrize("question", [[], ["Why?"]])
def test_run_takes_what_ask_and_shell_take(question: list[str]) -> None:
    """`run` hands its arguments to these two verbs: an option that they read and it lacks would be a traceback."""
    from llmos.cli.parser import parser

    ours = vars(parser().parse_args(["expert", "run", "librarian", *question])).keys() | {"expert"}
    theirs = vars(parser().parse_args(["ask", "x"] if question else ["shell"])).keys()
    assert theirs - {"verb"} <= ours


def test_the_schema_is_json(llmos: Run) -> None:
    code, out, _ = llmos("schema")
    assert code == 0 and json.loads(out)["title"] == "An llmos expert"


def test_the_guided_draft(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    answers = iter([
        "Answers: everything", "Be \"exact\".\nAnd kind.", str(tmp_path / "nowhere"), str(tmp_path / "docs"), "mine",
        "", "calculator files.read", "What is 1+1?", "2", "",
    ])  # fmt: skip
    said: list[str] = []
    made = draft.ask(
        draft.Draft("helper"), {"calculator": "x", "files": "y"}, said.append, lambda _: next(answers)
    )
    file = draft.write(made, tmp_path / "helper.yaml")
    found = Shelf(load_config()).find(str(file)).manifest
    assert (
        found.description == "Answers: everything" and found.instructions.strip() == 'Be "exact".\nAnd kind.'
    )
    assert [(k.path, k.trust) for k in found.knowledge] == [(str(tmp_path / "docs"), "mine")]
    assert list(found.grants) == ["calculator.*", "files.read"] and found.tests[0].expect.contains == ("2",)
    assert any("nothing at" in line for line in said)


def test_a_draft_that_is_broken_off_is_whole(tmp_path: Path) -> None:
    def leave(_: str) -> str:
        raise EOFError

    assert "expert:" in draft.ask(draft.Draft("helper"), {}, print, leave).text()
