"""Expert files: what they may say, what is refused and how, and what extending means."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from llmos.abi.errors import ConfigError
from llmos.apps.experts.bounds import grants_of
from llmos.apps.experts.manifest import Manifest, schema
from llmos.apps.experts.packing import dump
from llmos.apps.experts.shelf import Shelf
from llmos.drivers.yamlfile import parse
from llmos.kernel.grants import Grant

Write = Callable[..., Path]

WHOLE = """
expert: librarian
version: 1.2.0
description: Answers from the house's documents, with citations.
base: qwen2.5-coder-0.5b
instructions: |
  Answer from the documents.
knowledge:
  - {path: handbook/, trust: mine, readers: [staff]}
  - {path: https://docs.example.org/guide, refresh: weekly}
extends: assistant
grants:
  memory.search:
  calculator.*:
  browser.read: {hosts: [docs.example.org]}
  files.write: {under: out/}
sampling: {temperature: 0.2, max_tokens: 600}
window: {budget: 6000}
starters: ["Where do I…?"]
tests:
  - ask: What is the notice period?
    expect: {contains: "three months", cites: handbook/leave.md}
  - {ask: Give it as JSON., expect: {json: {months: 3}, seeds: 3}}
  - {ask: Sum it., expect: {calls: "calculator.*", matches: "\\\\d+", refuses: false, seeds: [4, 5]}}
  - {ask: Say null., expect: {json: null, calls: []}}
"""


def test_the_whole_of_a_file() -> None:
    manifest = parse(WHOLE, Manifest)
    assert manifest.knowledge[0].readers == ("staff",) and manifest.knowledge[1].remote
    assert manifest.tests[0].expect.contains == ("three months",)
    assert manifest.tests[1].expect.seeds == (0, 1, 2) and manifest.tests[1].expect.json_ == {"months": 3}
    assert manifest.tests[3].expect.calls == ()
    assert parse(dump(manifest).decode(), Manifest) == manifest, "written out and read again it is the same"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("instrutions: x", "f.yaml:3: instrutions: unknown key.*did you mean 'instructions'"),
        ("sampling: {temprature: 1}", "sampling.temprature: unknown key.*'temperature'"),
        ("sampling: {temperature: hot}", "f.yaml:3: sampling.temperature: 'hot'"),
        ("sampling: {max_tokens: 0}", "sampling.max_tokens"),
        ("version: 1.2", "version"),
        ("version: one.two.three", "version"),
        ("knowledge: handbook/", "knowledge.*a list"),
        ("knowledge:\n  - {path: a, refresh: weekly}", "f.yaml:4.*https"),
        ("knowledge:\n  - {path: 'https://a.org', trust: mine}", "not your words"),
        ("knowledge:\n  - {path: a, trust: ours}", "f.yaml:4: knowledge.0.trust: 'ours'"),
        ("grants: {'*': }", "nobody is granted everything"),
        ("grants: {'*.read': }", "nobody is granted everything"),
        ("grants: {'files.write(path=a)': }", "behind the colon"),
        ("grants: {'rm -rf': }", "expected a syscall"),
        ("grants:\n  browser.read: {hosts: ['*.example.org']}", "f.yaml:4.*no wildcards"),
        ("grants:\n  browser.read: {hosts: ['a.org/x']}", "expected a host"),
        ("grants:\n  browser.read: {hosts: []}", "expected a value for hosts"),
        ("grants:\n  files.write: {under: ../}", "within the working volume"),
        ("grants:\n  files.write: {under: /etc}", "within the working volume"),
        ("grants:\n  files.write: {under: 'out*'}", "within the working volume"),
        ("grants:\n  files.write: {path: 'a,b=c'}", "without , "),
        ("window: {budget: 1}", "window.budget"),
        ("tests:\n  - {ask: q, expect: {}}", "f.yaml:4: tests.0.expect.*at least one"),
        ("tests:\n  - {ask: q, expect: {seeds: 2}}", "at least one"),
        ("tests:\n  - {ask: q, expect: {contain: x}}", "did you mean 'contains'"),
        ("tests:\n  - {ask: q, expect: {jason: x}}", "did you mean 'json'"),
        ("tests:\n  - {ask: q, expect: {matches: '('}}", "regular expression"),
        ("tests:\n  - {ask: q, expect: {contains: x, seeds: 0}}", "tests.0.expect.seeds"),
        ("tests:\n  - {expect: {contains: x}}", "tests.0.ask: missing"),
        ("description: again", "given twice"),
        ("base: &a x", "anchor"),
        ("instructions: !!python/object:os.system x", "tag"),
    ],
)
def test_what_is_wrong_is_named(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){said}"):
        parse(f"expert: clerk\ndescription: x\n{text}\n", Manifest, file="f.yaml")


@pytest.mark.parametrize("name", ["", "Clerk", "a b", "../x", "x" * 70, "1st", "a/b", "é"])
def test_names_that_no_expert_may_have(name: str) -> None:
    with pytest.raises(ConfigError, match="expert"):
        parse(f"expert: '{name}'\ndescription: x\n", Manifest)


def test_bounds_become_grants_that_only_narrow() -> None:
    grants = [Grant.parse(text) for text in grants_of(parse(WHOLE, Manifest).grants)]

    def admitted(name: str, **arguments: object) -> bool:
        return any(grant.admits(name, arguments) for grant in grants)

    assert admitted("calculator.evaluate", expression="1") and admitted("memory.search", query="x")
    assert admitted("browser.read", url="https://docs.example.org/a/b?c")
    assert admitted("browser.read", url="https://docs.example.org")
    for url in (
        "https://docs.example.org.evil.com/", "https://evil.com/https://docs.example.org/", "https://evil.com",
        "https://docs.example.org@evil.com/", "https://docs.example.org:8443/", "file://docs.example.org/",
    ):  # fmt: skip
        assert not admitted("browser.read", url=url), url
    assert admitted("files.write", path="out/a.txt", text="x") and not admitted("files.write", text="x")
    for path in ("a.txt", "outside/a.txt", "/out/a.txt", "x/out/a.txt", "out"):
        assert not admitted("files.write", path=path), path
    assert not admitted("memory.note", text="x") and not admitted(
        "browser.open", url="https://docs.example.org/"
    )


def test_several_values_of_a_bound_are_choices() -> None:
    assert grants_of({"mail.send": {"to": ("a@x.org", "b@x.org"), "subject": ("Re*",)}}) == (
        "mail.send(to=a@x.org, subject=Re*)", "mail.send(to=b@x.org, subject=Re*)",
    )  # fmt: skip


def test_extending(shelf: Shelf, write: Write) -> None:
    write(
        "base", "instructions: Be kind.\ngrants: {calculator.*: , files.write: }\nknowledge: [{path: a.md}]\n"
        "sampling: {temperature: 0.5, max_tokens: 9}\ntests: [{ask: q, expect: {contains: x}}]\n",
    )  # fmt: skip
    file = write(
        "child", "extends: ./base.yaml\ninstructions: Be short.\ngrants: {files.write: {under: out}}\n"
        "knowledge: [{path: b.md}]\nsampling: {max_tokens: 5}\n",
    )  # fmt: skip
    child = shelf.find(str(file)).manifest
    assert child.instructions == "Be kind.\n\nBe short."
    assert child.grants == {"calculator.*": None, "files.write": {"under": ("out",)}}
    assert [Path(k.path) for k in child.knowledge] == [file.parent / "a.md", file.parent / "b.md"]
    assert (child.sampling.temperature, child.sampling.max_tokens) == (0.5, 5)
    assert child.tests == () and child.extends is None


def test_a_shipped_expert_can_be_extended(shelf: Shelf, write: Write) -> None:
    child = shelf.find(str(write("mine", "extends: assistant\n"))).manifest
    assert child.instructions == shelf.find("assistant").manifest.instructions.strip()


def test_circles_are_refused(shelf: Shelf, write: Write) -> None:
    write("a", "extends: ./b.yaml\n")
    write("b", "extends: ./c.yaml\n")
    write("c", "extends: ./a.yaml\n")
    with pytest.raises(ConfigError, match=r"circle.*a → b → c → a"):
        shelf.find(str(write("a", "extends: ./b.yaml\n")))
    with pytest.raises(ConfigError, match="circle"):
        shelf.find(str(write("self", "extends: ./self.yaml\n")))


def test_long_chains_are_refused(shelf: Shelf, write: Write) -> None:
    for n in range(20):
        write(f"e{n}", f"extends: ./e{n + 1}.yaml\n")
    with pytest.raises(ConfigError, match="more than 8"):
        shelf.find(str(write("e0", "extends: ./e1.yaml\n")))


def test_a_name_that_nobody_has(shelf: Shelf) -> None:
    with pytest.raises(ConfigError, match=r"there is no expert 'libarian'.*did you mean 'librarian'"):
        shelf.find("libarian")
    with pytest.raises(ConfigError, match="cannot be read"):
        shelf.find("./nowhere.yaml")


def test_the_schema_accepts_what_we_accept() -> None:
    made = schema()
    json.dumps(made)
    assert {"expert", "grants", "tests", "knowledge"} <= made["properties"].keys()
    assert made["additionalProperties"] is False and set(made["required"]) == {"expert", "description"}
    assert "json" in made["$defs"]["Expect"]["properties"]
    assert {"type": "string", "minLength": 1} in made["$defs"]["Expect"]["properties"]["contains"]["anyOf"]
