"""What is asked, what is right, what is held out; and checks that misbehave."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import nullcontext
from random import Random

import pytest

from llmos.abi.errors import ConfigError, LearningError
from llmos.cli.learn_rl import add
from llmos.drivers.sandbox import SandboxMissing
from llmos.kernel.learn.domains import DOMAINS, HELD_OUT, Task, described, draw, named, restored
from llmos.kernel.learn.domains.arithmetic import Arithmetic, without_carry
from llmos.kernel.learn.domains.calls import ALMOST as ALMOST_RIGHT
from llmos.kernel.learn.domains.calls import Calls
from llmos.kernel.learn.domains.countdown import ALMOST, Countdown, value
from llmos.kernel.learn.domains.programs import Programs, done
from llmos.kernel.learn.referee import Referee
from tests.kernel.learn.bandit import Bandit


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Referee]:
    """One referee for all: it boots a kernel and starts apps. It leaves no process and no file behind."""
    folder = tmp_path_factory.mktemp("calls")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        with Referee(Calls(), seconds=60.0) as referee:
            yield referee
            process = referee._process
            assert process is None or list(folder.iterdir())
    assert process is None or process.returncode == 0
    assert not list(folder.iterdir())


@pytest.mark.parametrize("name", DOMAINS)
def test_what_is_held_out_is_never_learnt_from(name: str) -> None:
    domain = named(name)
    sides = {
        split: [draw(domain, split, i % domain.levels, Random(f"{split}{i}")) for i in range(30)]
        for split in ("train", *HELD_OUT)
    }
    trained = {tuple(sorted(map(str, task.facts))) for task in sides["train"]}
    for split in HELD_OUT:
        assert not trained & {tuple(sorted(map(str, task.facts))) for task in sides[split]}
    assert {task.level for task in sides["size"]} == {domain.levels}

    def wordings(tasks: list[Task]) -> set[str]:
        return {"".join(c for c in task.question if c.isalpha()).replace("and", "") for task in tasks}

    assert not wordings(sides["train"]) & wordings(sides["wording"])
    assert draw(domain, "fresh", 0, Random(5)) == draw(domain, "fresh", 0, Random(5))


@pytest.mark.parametrize("name", DOMAINS)
def test_the_teacher_errs_and_is_right_often_enough_to_be_learnt_from(name: str, calls: Referee) -> None:
    domain = named(name)
    assert restored(described(domain)) == domain
    count = {"programs": 12, "calls": 8}.get(name, 100)  # fewer where answers are run
    tasks = [draw(domain, "train", i % domain.levels, Random(i)) for i in range(count)]
    answers = [domain.teach(task, Random(i)) for i, task in enumerate(tasks)]
    with Referee(domain, seconds=60.0) if name != "calls" else nullcontext(calls) as referee:
        verdicts = [referee.judge(task, answer) for task, answer in zip(tasks, answers, strict=True)]
    if "SandboxMissing" in verdicts[0].fault:
        pytest.skip(verdicts[0].fault)
    assert not any(verdict.fault for verdict in verdicts)
    assert 0.05 * count < sum(verdict.reward == 1 for verdict in verdicts) < 0.8 * count


def test_carrying_is_what_the_teacher_forgets() -> None:
    assert without_carry(47, 38) == 75
    assert without_carry(42, -18) == 36
    assert without_carry(41, 38) == 79  # nothing to carry
    assert without_carry(95, 14) == 109  # the last column has nowhere to carry to
    task = Task("", 1, (47, 38, -12))
    domain = Arithmetic(lapse=1.0)
    assert domain.teach(task, Random(0)) == "47 + 38 = 75, 75 - 12 = 63"
    assert Arithmetic(lapse=0.0).teach(task, Random(0)) == "47 + 38 = 85, 85 - 12 = 73"
    assert domain.check(task, "47 + 38 = 85, and 85 - 12 is 73.") == 1
    assert domain.check(task, "1,073") == domain.check(task, "") == domain.check(task, "9" * 5000) == 0


def test_expressions_are_computed_exactly_and_nothing_else_is() -> None:
    assert value("3 * (7 + 1)") == 24
    assert value("8 / 3") * 3 == 8  # type: ignore[operator]
    for hostile in (
        "9**9**9**9",
        "1//2",
        "__import__('os')",
        "1/0",
        "1e9",
        "(" * 100,
        "+" * 119 + "1",
        "",
        "1 2",
    ):
        assert value(hostile) is None, hostile
    domain, task = Countdown(), Task("", 1, (24, 1, 3, 7))
    assert domain.check(task, "3 * (7 + 1) = 24") == 1
    assert domain.check(task, "I think that 3 × (7 + 1)") == 1
    assert domain.check(task, "3 * (1 + 7 - 1) = 24") == 0  # 1 is used twice
    assert domain.check(task, "3 + 7 + 1 = 24") == ALMOST
    assert domain.check(task, "24") == domain.check(task, "24 = 24") == 0


def test_programs_are_judged_by_what_they_do() -> None:
    domain = Programs(lapse=0.0)
    task = Task("", 1, ("above", 5, "times", 3, "sum"))
    assert done(task.facts, [4, 5, 6, 10]) == 48
    one = "def f(xs):\n    return 3 * sum(x for x in xs if x > 5)"
    try:
        assert domain.check(task, domain.teach(task, Random(0))) == domain.check(task, one) == 1
    except SandboxMissing as error:
        pytest.skip(str(error))
    assert domain.check(task, f"Here it is:\n```python\n{one}\n```\nIt sums.") == 1
    assert domain.check(task, "xs") == domain.check(task, "def f(xs): return") == 0
    assert 0 < domain.check(task, "def f(xs): return 0") < 1  # right for the empty list
    assert domain.check(task, "import os\nos._exit(0)") == 0
    slips = Programs(lapse=1.0)
    tasks = [draw(slips, "train", i % 3, Random(i)) for i in range(6)]
    assert sum(slips.check(task, slips.teach(task, Random(i))) for i, task in enumerate(tasks)) < 4


def test_calls_are_made_and_judged_by_what_came_of_them(calls: Referee) -> None:
    def says(*made: tuple[str, dict[str, object]]) -> str:
        return "\n".join(json.dumps({"name": name, "arguments": given}) for name, given in made)

    def worth(task: Task, *made: tuple[str, dict[str, object]]) -> float:
        verdict = calls.judge(task, says(*made))
        assert not verdict.fault
        return verdict.reward

    two = Task("", 1, (json.dumps(["weekday", "2233-09-16"]), json.dumps(["append", "menu.txt", "copper"])))
    day = ("calculator.weekday", {"date": "2233-09-16"})
    add = ("files.append", {"path": "menu.txt", "text": "copper"})
    assert worth(two, day, add) == 1
    assert worth(two, add, day) == 1  # nothing of it depends on the order
    assert worth(two, day, ("files.write", {"path": "menu.txt", "text": "anchor\nkettle\ncopper\n"})) == 1
    assert (
        worth(two, day, ("files.edit", {"path": "menu.txt", "old": "kettle", "new": "kettle\ncopper"})) == 1
    )
    for wrong in (
        (day,), (add,), (day, day, add), (day, add, ("files.write", {"path": "more.txt", "text": "x"})),
        (("calculator.weekday", {"date": "2233-09-17"}), add),
        (day, ("files.write", {"path": "menu.txt", "text": "copper"})),
    ):  # fmt: skip
        assert worth(two, *wrong) == ALMOST_RIGHT, wrong


@pytest.mark.parametrize(
    "answer",
    [
        "", "It is a Monday.", "{", "[]", "1", '{"name": 3, "arguments": 4}', "</tool_call>",
        '{"name": "files.read", "arguments": {"path": "menu.txt"}}',  # not granted
        '{"name": "files.write", "arguments": {"path": "../menu.txt", "text": "x"}}',
        '{"name": "calculator.weekday", "arguments": {"date": "2233-13-45"}}',
        '{"arguments": {"date": "2233-09-16"}, "name": "calculator.weekday"}',  # the grammar lets none such through
        '{"name": "calculator.weekday", "arguments": {"date": "2233-09-16", "more": 1}}',
    ],
)  # fmt: skip
def test_what_cannot_be_called_is_worth_nothing(calls: Referee, answer: str) -> None:
    task = Task("", 0, (json.dumps(["weekday", "2233-09-16"]),))
    verdict = calls.judge(task, answer)
    assert (verdict.reward, verdict.fault) == (0, "")


def test_the_command_names_every_domain() -> None:
    action = argparse.ArgumentParser()
    add(action)
    told = " ".join(action.format_help().split())
    assert all(name in told for name in DOMAINS)


def test_what_is_no_domain_is_told() -> None:
    for name in ("sums", "nowhere.at.all:Domain", "llmos.kernel.learn.domains:Nothing", "dataclasses:Field"):
        with pytest.raises(ConfigError):
            named(name)
    assert named("tests.kernel.learn.bandit:Bandit") == Bandit()


def test_too_few_tasks_are_told() -> None:
    class Few(Bandit):
        def task(self, level: int, rng: Random, unseen: bool) -> Task:
            return Task("the only one", level, (1,))

    side = Few().task(0, Random(0), False).kept_back
    with pytest.raises(LearningError, match="too few"):
        draw(Few(), "train" if side else "fresh", 0, Random(0))


@pytest.mark.parametrize(
    ("odd", "told"),
    [
        ("hang", "no verdict after 1 s"), ("exit", "ended with 3"), ("raise", "I do not like this"),
        ("eat", "MemoryError"), ("nan", "not from 0 to 1"), ("large", "not from 0 to 1"),
    ],
)  # fmt: skip
def test_a_check_that_misbehaves_counts_as_wrong_and_no_more(odd: str, told: str) -> None:
    domain = Bandit(odd=odd)
    task = domain.task(0, Random(0), False)
    with Referee(domain, seconds=1.0 if odd == "hang" else 60.0) as referee:
        found = referee.judge(task, "abc")
        assert found.reward == 0 and told in found.fault
    with Referee(domain, seconds=60.0) as referee:
        if odd != "hang":
            assert referee.judge(task, "abc").reward == 0
        good = referee.judge(task, "abcD")  # by a fresh one, where it has to be
        assert (good.reward, good.fault) == (0.75, "")
        assert "characters" in referee.judge(task, "a" * (1 << 20)).fault
        assert referee.judge(task, "ab\ud800\n").reward == 0.5


def test_a_referee_that_cannot_start_is_an_error() -> None:
    class Local(Bandit):
        pass

    with Referee(Local()) as referee, pytest.raises(LearningError, match="no referee"):
        referee.judge(Task("", 0, ()), "a")
