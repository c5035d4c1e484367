"""Replay: the same words again, or the first that is not."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmos.abi.errors import NoSuchProcess, QuotaExceeded
from llmos.abi.events import Result
from llmos.abi.manifest import Manifest
from llmos.kernel.engine.scripted import ScriptedRunner
from llmos.kernel.journal import read
from llmos.kernel.journal.records import Started
from llmos.kernel.kernel import Kernel
from llmos.kernel.replay import replay
from llmos.testing import call
from tests.kernel.shop import Shop

Make = Callable[..., Kernel]
LONG = "word " * 400
SHOP = {"shop": {"app": "tests.kernel.shop:Shop"}}


def script(window: str, says: str = "You said") -> str:
    question, _, rest = window.rpartition("<|im_start|>user\n")[2].partition("<|im_end|>")
    if question == "shop":
        steps = [
            call("shop.price", item="tea") + "\n" + call("shop.price", item="coffee"),
            "So. " + call("shop.pay", to="bob", cents=3),
            "All done.",
        ]
        return steps[min(rest.count("<|im_start|>assistant") - 1, 2)]
    answers = {"long": LONG, "tools": call("shop.price", item="tea"), "point": '{"x": 31}'}
    return answers.get(question, f"{says} {question}.")


def lived(kernel: Kernel) -> int:
    """A process that has seen much; its pid."""
    p = kernel.spawn(grants=["shop"], seed=5)
    p.ask("hi").result
    assert [e.ok for e in p.ask("shop", max_tokens=2000) if isinstance(e, Result)] == [True] * 3
    p.ask("hot", temperature=0.9, top_k=3, seed=8).result
    p.ask(
        "point", schema={"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
    ).result
    p.ask("long", max_tokens=30).result
    p.ask("long", stop=["d word w"]).result
    p.ask("tools", tools=Manifest.of(Shop).syscalls, max_tokens=300).result
    for _ in (turn := p.ask("long", max_tokens=1500)):
        break
    assert turn.reason == "cancelled"
    p.ask("bye", queue=True).result
    return p.pid


def test_every_word_comes_again(scripted_kernel: Make) -> None:
    kernel = scripted_kernel(script, apps=SHOP)
    pid = lived(kernel)
    kernel.process(pid).close()
    other = kernel.spawn()
    other.ask("hi").result  # what was journalled before is on the disk
    paid, records = list(kernel.state.rglob("paid-*")), list(kernel.journal.records())
    report = kernel.replay(pid)
    assert (report.turns, report.divergence, report.notes) == (9, None, ())
    assert report.tokens > 300 and report.recorded == (report.weights,) == ("scripted",)
    assert list(kernel.state.rglob("paid-*")) == paid, "no app was called"
    assert other.ask("ho").answer == "You said ho."
    written = list(kernel.journal.records())[len(records) :]
    assert {record.pid for record in written} == {other.pid}, "the replay has written nothing"


def test_a_kernel_that_has_not_looked_at_its_apps(scripted_kernel: Make, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with scripted_kernel(script, apps=SHOP, state=state) as kernel:
        p = kernel.spawn(grants=["shop"])
        p.ask("shop", max_tokens=2000).result
    other = scripted_kernel(lambda window: script(window).replace("All", "Well"), apps=SHOP)
    found = replay(other, p.pid, state).divergence
    assert found is not None and (found.expected_text, found.got_text) == ("A", "W"), "behind three results"
    assert other.apps.ps() == [], "no app was started"


def test_what_an_unfinished_process_said_so_far(scripted_kernel: Make) -> None:
    kernel = scripted_kernel(script, pages=64)
    p = kernel.spawn()
    p.ask("hi").result
    turn = p.ask("long", max_tokens=900)
    reading = iter(turn)
    for _ in range(40):
        next(reading)
    report = kernel.replay(p.pid)
    assert (report.turns, report.divergence) == (2, None)
    assert report.tokens >= 12 + 40 and report.notes == ()
    p.signal("KILL")
    p.wait(10)
    assert kernel.replay(p.pid).divergence is None


def test_a_quota_ends_it_again_without_a_divergence(scripted_kernel: Make) -> None:
    kernel = scripted_kernel(script)
    p = kernel.spawn(quotas={"tokens": 40})
    with pytest.raises(QuotaExceeded):
        _ = p.ask("long").answer
    p.wait(10)
    report = kernel.replay(p.pid)
    assert (report.turns, report.tokens, report.divergence) == (1, 40, None)


def test_forks(scripted_kernel: Make) -> None:
    kernel = scripted_kernel(script)
    p = kernel.spawn()
    p.ask("a").result
    (child,) = p.fork()
    child.ask("b").result
    assert kernel.replay(child.pid).turns == 1
    assert kernel.replay(child.pid).divergence is None


def test_other_weights_diverge_and_say_so(scripted_kernel: Make, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with scripted_kernel(script, state=state) as kernel:
        p = kernel.spawn()
        p.ask("long", max_tokens=20).result
        p.ask("hi").result
        pid = p.pid
    other = scripted_kernel(lambda window: script(window, "You sang"))
    other.runner.identity = "another"
    report = replay(other, pid, state)
    found = report.divergence
    assert found is not None and found.turn == 2
    bodies = [record.body for record in read(state, pid, kinds=[Started])]
    window = [len(body.window) for body in bodies if isinstance(body, Started)]
    assert found.position == window[1] + len("You sa")
    assert (found.expected_text, found.got_text) == ("i", "n")
    assert (report.recorded, report.weights) == (("scripted",), "another")
    assert "weights are not those" in report.notes[0]


@pytest.mark.parametrize(("says", "expected", "got"), [("You", " ", ""), ("You said so", "", " ")])
def test_shorter_and_longer_answers(
    scripted_kernel: Make, tmp_path: Path, says: str, expected: str, got: str
) -> None:
    """An answer that ends early or goes on differs where it does."""
    state = tmp_path / "state"

    def answer(text: str) -> Callable[[str], str]:
        return lambda _: text

    with scripted_kernel(answer("You said"), state=state) as kernel:
        kernel.spawn().ask("hi").result
    found = replay(scripted_kernel(answer(says)), 1, state).divergence
    assert found is not None and (found.expected_text, found.got_text) == (expected, got)
    assert (found.expected is None, found.got is None) == (not expected, not got)


def test_damaged_words_are_found(scripted_kernel: Make, tmp_path: Path) -> None:
    """A journal whose tokens were changed: the chain would tell, and so does the replay."""
    state = tmp_path / "state"
    with scripted_kernel(script, state=state) as kernel:
        p = kernel.spawn()
        p.ask("hi").result
    with closing(sqlite3.connect(next(state.glob("*.sqlite")))) as db, db:
        table = next(
            n for (n,) in db.execute("select name from sqlite_master where type = 'table'") if "rec" in n
        )
        rows = db.execute(f"select seq, body from {table} where kind = 'sampled' order by seq").fetchall()
        seq, body = rows[0]
        changed: dict[str, Any] = json.loads(body)
        changed["tokens"][-1] = ord("!")
        db.execute(f"update {table} set body = ? where seq = ?", (json.dumps(changed).encode(), seq))
    found = replay(scripted_kernel(script), p.pid, state).divergence
    assert found is not None and found.expected_text == "!" and found.turn == 1


def test_a_step_that_fails_is_a_divergence(
    scripted_kernel: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    with scripted_kernel(script, state=state) as kernel:
        kernel.spawn().ask("hi").result
    other = scripted_kernel(script)
    monkeypatch.setattr(ScriptedRunner, "forward", lambda *_: 1 / 0)
    report = replay(other, 1, state)
    assert report.divergence is not None and report.divergence.got is None
    assert "ZeroDivisionError" in report.notes[0]
    assert replace(report, notes=()).turns == 1


def test_who_is_not_known(scripted_kernel: Make) -> None:
    with pytest.raises(NoSuchProcess, match="process 7"):
        scripted_kernel(script).replay(7)
