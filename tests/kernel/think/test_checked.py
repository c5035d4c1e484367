"""Turns whose answers the calculator checks: one kernel for all, for its apps take a while to start."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from llmos.abi.config import Config
from llmos.abi.events import Call, Result
from llmos.drivers.yamlfile import check
from llmos.kernel.engine.scripted import byte_tokenizer, call, chat_template
from llmos.kernel.kernel import Kernel
from llmos.kernel.think import BestOf, Makes, Revise, SelfConsistency, Sums, Tree
from tests.kernel.think.conftest import let_go
from tests.kernel.think.drawn import DrawnRunner, Replies

Set = Callable[[Replies], Kernel]
QUESTION = "What is 6 times 7?"


@pytest.fixture(scope="module")
def calculating(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Set]:
    """Gives the kernel other answers to draw among."""
    config = check({"machine": {"state": str(tmp_path_factory.mktemp("machine"))}}, Config)
    runner = DrawnRunner(lambda _: [])
    with Kernel(config, runner, byte_tokenizer(), chat_template()) as kernel:

        def make(replies: Replies) -> Kernel:
            runner._replies = replies
            return kernel

        yield make


def test_a_checker_chooses_and_settles_it(calculating: Set) -> None:
    kernel = calculating(
        lambda _: ["4 + 6 + 7 + 1", "(7 - 1) * 4 + 6", "4 * (6 + 1 - 7)", "6 * (7 - 4 + 1)", "24", "none"]
    )
    check = Makes(target=24, numbers=(4, 6, 7, 1))
    turn = kernel.spawn().ask("Make 24 of 4, 6, 7 and 1.", think=BestOf(budget="200x", verifier=check))
    assert turn.answer == "6 * (7 - 4 + 1)" and turn.confidence == 1.0
    tree = turn.tree
    assert tree is not None and tree.why == "it passes its check"
    assert tree.thoughts[0].note == "4 + 6 + 7 + 1 is 18"
    assert let_go(kernel)


def test_wrong_sums_lose_votes(calculating: Set) -> None:
    kernel = calculating(lambda _: ["6 * 7 = 40. So 40."] * 4 + ["6 * 7 = 42. So 42."] * 3)
    with_sums = kernel.spawn().ask(QUESTION, think=SelfConsistency(budget="40x", verifier=Sums(), sure=1.0))
    assert with_sums.answer.endswith("So 42.")
    assert with_sums.tree is not None and with_sums.tree.thoughts[0].note == "6 * 7 is not 40"
    assert with_sums.tree.thoughts[0].value == 0.0


def test_the_tree_turns_back_from_what_is_wrong(calculating: Set) -> None:
    steps = [
        "First, 3 * 4 = 15 of them.\nSo the answer is 16.",
        "First, 3 * 4 = 12 of them.\nThen 12 + 1 = 14 now.\nIt is 14.",
        "First, 3 * 4 = 12 of them.\nThen 12 + 1 = 13 now.\nIt is 13.",
    ]  # fmt: skip
    kernel = calculating(lambda window: ["y"] if "correct?" in window.rpartition("user")[2] else steps)
    way = Tree(budget=6000, verifier=Sums(), branch=4, beam=1)
    turn = kernel.spawn().ask("3 boxes of 4 pens and one more: how many?", think=way)
    tree = turn.tree
    assert tree is not None and turn.answer.endswith("It is 13."), tree
    wrong = [t for t in tree.thoughts if t.state == "dropped" and "is not" in t.note]
    assert wrong and all(t.value == 0.0 or t.value is not None for t in wrong)
    went_on = {t.parent for t in tree.thoughts}
    assert not {t.number for t in wrong} & went_on, "it went on from what it had dropped"
    assert any(t.parent for t in tree.thoughts)
    assert let_go(kernel)


def test_second_thoughts_are_kept_only_where_they_are_better(calculating: Set) -> None:
    def replies(window: str) -> list[str]:
        return ["6 * 7 = 42. So 42."] if "Check the answer" in window else ["6 * 7 = 41. So 41."]

    kernel = calculating(replies)
    turn = kernel.spawn().ask(QUESTION, think=Revise(budget="40x", verifier=Sums()))
    assert turn.answer.endswith("42.") and turn.tree is not None
    assert [t.kind for t in turn.tree.thoughts][:2] == ["answer", "revision"]
    worse = calculating(
        lambda w: ["6 * 7 = 40. So 40."] if "Check the answer" in w else ["6 * 7 = 42. So 42."]
    )
    assert worse.spawn().ask(QUESTION, think=Revise(budget="40x", verifier=Sums())).answer.endswith("42.")


def test_a_call_is_made_once_and_the_answer_to_it_is_thought_about(calculating: Set) -> None:
    def replies(window: str) -> list[str]:
        if "<tool_response>" in window or "im_start|>tool" in window or window.count("42") > 0:
            return ["It is 42.", "So 42."]
        return [call("calculator.evaluate", expression="6 * 7", digits=3)]

    kernel = calculating(replies)
    process = kernel.spawn(grants=["calculator.evaluate"])
    events = list(turn := process.ask(QUESTION, think=SelfConsistency(budget="100x"), seed=3))
    assert [type(e) for e in events if isinstance(e, (Call, Result))] == [Call, Result]
    assert process.ledger.syscalls == 1 and turn.usage.syscalls == 1
    assert "42" in turn.answer and turn.tree is not None
    assert let_go(kernel)
