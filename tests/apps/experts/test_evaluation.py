"""An expert's tests: what each expectation means, and that it fails where it should."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmos.apps.experts.evaluation import Seen, evaluate, judge, refuses
from llmos.apps.experts.launch import specialist
from llmos.apps.experts.manifest import Expect
from llmos.apps.experts.shelf import Shelf
from llmos.kernel.kernel import Kernel
from llmos.testing import call

Make = Callable[..., Kernel]
Write = Callable[..., Path]
APPS = {"counter": {"app": "tests.apps.experts.apps:Counter"}}


def fails(expect: dict[str, Any], answer: str, **seen: Any) -> list[str]:
    return judge(Expect.model_validate(expect), Seen(answer, **seen))


@pytest.mark.parametrize(
    ("expect", "good", "bad"),
    [
        ({"contains": "three months"}, "It is **Three  months**. [1]", "It is 3 months."),
        ({"contains": ["a", "b"]}, "a and b", "only a"),
        ({"contains": "48210"}, "48,210 people", "48.210 people"),
        ({"excludes": "Traceback"}, "fine", "a traceback"),
        ({"matches": r"^\d+$"}, "42", "42 !"),
        ({"refuses": True}, "The documents do not say.", "It is 42."),
        ({"refuses": True}, "Sorry, I cannot find it.", "It cannot rain."),
        ({"refuses": False}, "It is 42.", "I don't know."),
        ({"refuses": True}, "", "yes"),
        ({"json": True}, '{"a": 1}', "a = 1"),
        ({"json": {"a": 1}}, '```json\n{"a": 1.0, "b": 2}\n```', '{"a": "1"}'),
        ({"json": {"a": {"b": [1, 2]}}}, '{"a": {"b": [1, 2], "c": 0}}', '{"a": {"b": [1]}}'),
        ({"json": {"a": True}}, '{"a": true}', '{"a": 1}'),
        ({"json": None}, "null", "0"),
    ],
)
def test_what_an_answer_has_to_be(expect: dict[str, Any], good: str, bad: str) -> None:
    assert fails(expect, good) == []
    assert len(fails(expect, bad)) == 1


def test_citations() -> None:
    for source in ("handbook/leave.md", "leave.md", "docs/handbook/leave.md"):
        assert fails({"cites": "handbook/leave.md"}, "x", sources=(source,)) == []
    assert fails({"cites": "*.md"}, "x", sources=("a/leave.md",)) == []
    for sources in ((), ("other/leave.md",), ("leave.mdx",), ("xleave.md",)):
        assert fails({"cites": "handbook/leave.md"}, "x", sources=sources)
    assert len(fails({"cites": ["a.md", "b.md"]}, "x", sources=("a.md",))) == 1


def test_calls() -> None:
    made = (("counter.add", {"a": 1, "b": 2}),)
    for pattern in ("counter.add", "counter.*", "counter", "counter.add(a=1)"):
        assert fails({"calls": pattern}, "x", calls=made) == []
    assert fails({"calls": "counter.add(a=2)"}, "x", calls=made)
    assert "counter.add failed" in fails({"calls": "counter.add"}, "x", failed=("counter.add",))[0]
    assert fails({"calls": []}, "x") == [] and fails({"calls": []}, "x", calls=made)
    assert fails({"calls": []}, "x", failed=("counter.add",)), "one that failed is a call too"


def test_refusals_are_told_from_answers() -> None:
    for answer in (
        "The documents do not say.", "x (The documents do not say this.)", "I do not know.", "I'm sorry, I can't.",
        "There is no information about it.", "It is not mentioned in the text.",
    ):  # fmt: skip
        assert refuses(answer), answer
    for answer in (
        "Do not enter the room.", "It is not allowed to smoke.", "The lift may not be used.",
        "The notice is two weeks.",
        "Whoever is ill tells the team lead; a note is not needed.",
    ):  # fmt: skip
        assert not refuses(answer), answer


TESTS = """
instructions: You are the clerk.
grants: {counter.add: , files.read: }
tests:
  - {ask: "What is 2+3?", expect: {contains: "5", calls: counter.add}}
  - {ask: "What is 2+4?", expect: {contains: "7"}}
  - {ask: "What is in a.txt?", files: a.txt, expect: {contains: secret, calls: files.read}}
  - {ask: Read it., files: gone.txt, expect: {contains: x}}
  - {ask: Twice., expect: {contains: no, seeds: 2}}
"""


def test_a_whole_expert(scripted_kernel: Make, shelf: Shelf, write: Write) -> None:
    def script(window: str) -> str:
        last = window.rpartition("<|im_start|>user\n")[2]
        if "tool\n" in last:
            return "It is " + last.rpartition("tool\n")[2].partition("<|im_end|>")[0].strip()
        if "a.txt" in last:
            return call("files.read", path="a.txt")
        return call("counter.add", a=2, b=int(last[10])) if "2+" in last else "yes"

    file = write("clerk", TESTS)
    (file.parent / "a.txt").write_text("the secret word")
    expert = shelf.find(str(file))
    kernel = scripted_kernel(script, apps=APPS)
    told: list[int] = []
    ready = specialist(expert, ("counter.add", "files.read"), shelf.state)
    report = evaluate(kernel, expert, ready, tell=lambda number, _: told.append(number))
    assert [o.passed for o in report.outcomes] == [True, False, True, False, False]
    assert report.outcomes[1].failures == ("does not contain '7'",)
    assert "KnowledgeGone" in report.outcomes[3].failures[0]
    assert [f.partition(":")[0] for f in report.outcomes[4].failures] == ["seed 0", "seed 1"]
    assert (report.passed, report.score, told) == (2, 0.4, [1, 2, 3, 4, 5])
    assert report.dump()["outcomes"][0]["passed"] is True
    assert kernel.ps() == [], "nobody is left behind"
    only = evaluate(kernel, expert, ready, only=[2])
    assert [o.ask for o in only.outcomes] == ["What is 2+4?"]


def test_what_a_test_has_noted_is_forgotten(scripted_kernel: Make, shelf: Shelf, write: Write) -> None:
    """The notes of whoever uses the expert stay, and are there for its tests."""
    text = (
        "grants: {memory.note: , memory.recall: }\ntests: [{ask: Keep it., expect: {calls: memory.note}}]\n"
    )
    ready = specialist(shelf.find(str(write("clerk", text))), ("memory.note", "memory.recall"), shelf.state)
    kernel = scripted_kernel(
        lambda window: "kept" if "kept as" in window else call("memory.note", text="a fact")
    )
    mine = ready.spawn(kernel)
    assert mine.ask("Keep it.", **ready.asked()).answer == "kept"
    report = evaluate(kernel, shelf.find(str(write("clerk", text))), ready)
    assert report.outcomes[0].passed, report.outcomes[0].failures
    assert [note.text for note in kernel.library.notes.search("", expert="clerk")] == ["a fact"]


def test_an_answer_may_have_to_begin_with_a_call(scripted_kernel: Make, shelf: Shelf, write: Write) -> None:
    """`calls: required`: a model that would rather talk has to call first, and is free then."""
    expert = shelf.find(str(write("clerk", "grants: {counter.add: }\ncalls: required\n")))
    ready = specialist(expert, ("counter.add",), shelf.state)
    assert ready.options["tool_choice"] == "required"
    kernel = scripted_kernel(lambda window: "Just words.", apps=APPS)
    turn = ready.spawn(kernel).ask("What is 2+3?", **ready.asked(max_tokens=200))
    assert turn.usage.syscalls == 1 and turn.answer == "Just words."


def test_the_options_of_a_file_reach_the_process(scripted_kernel: Make, shelf: Shelf, write: Write) -> None:
    text = "instructions: Be short.\nsampling: {temperature: 0.5, max_tokens: 3, stop: x}\nwindow: {budget: 512}\n"
    expert = shelf.find(str(write("clerk", text)))
    ready = specialist(expert, (), shelf.state)
    assert ready.asked(max_tokens=2, seed=None) == {"temperature": 0.5, "max_tokens": 2, "stop": ("x",)}
    process = ready.spawn(scripted_kernel(lambda window: "Aye, aye."))
    assert (process.window, process.expert) == (512, "clerk")
    assert process.ask("?", **ready.asked()).answer == "Aye"


def test_knowledge_of_the_network_is_fetched_kept_and_refreshed(
    shelf: Shelf, write: Write, tmp_path: Path
) -> None:
    import os

    from llmos.apps.experts.errors import KnowledgeGone
    from llmos.apps.experts.knowledge import fetched
    from llmos.apps.experts.manifest import Knowledge
    from llmos.apps.experts.site import served

    site = tmp_path / "experts/web"
    site.mkdir(parents=True)
    (site / "page.html").write_text("<h1>One</h1>")
    expert = shelf.find(str(write("clerk", "tests: [{ask: '{site}', site: web, expect: {contains: x}}]\n")))
    with served(expert, shelf.config) as (config, sites):
        assert config.apps["browser"] is not None
        (base,) = sites.values()
        allow = config.apps["browser"].settings["allow"]
        weekly = Knowledge.model_validate({"path": f"{base}/page.html", "refresh": "weekly"})
        with pytest.raises(KnowledgeGone):
            fetched(weekly, shelf.state, ())  # the machine itself is not gone to unless its owner says so
        folder = fetched(weekly, shelf.state, allow)
        (file,) = folder.iterdir()
        assert (file.name, file.read_text()) == ("page.html", "<h1>One</h1>")
        (site / "page.html").write_text("<h1>Two</h1>")
        assert fetched(weekly, shelf.state, allow) == folder and "One" in file.read_text()
        os.utime(file, (1, 1))
        assert fetched(weekly, shelf.state, allow) == folder and "Two" in file.read_text()
    os.utime(file, (1, 1))
    assert fetched(weekly, shelf.state, allow) == folder, "the network is away: what was fetched is used"
