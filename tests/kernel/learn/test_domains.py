"""What is asked, what is right, what is held out; and checks that misbehave."""

from __future__ import annotations

from random import Random

import pytest

from llmos.abi.errors import ConfigError, LearningError
from llmos.kernel.learn.domains import DOMAINS, HELD_OUT, Task, described, draw, named, restored
from llmos.kernel.learn.domains.arithmetic import Arithmetic, without_carry
from llmos.kernel.learn.domains.countdown import ALMOST, Countdown, value
from llmos.kernel.learn.referee import Referee
from tests.kernel.learn.bandit import Bandit


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
def test_the_teacher_errs_and_is_right_often_enough_to_be_learnt_from(name: str) -> None:
    domain = named(name)
    assert restored(described(domain)) == domain
    tasks = [draw(domain, "train", i % domain.levels, Random(i)) for i in range(100)]
    marks = [domain.check(task, domain.teach(task, Random(i))) for i, task in enumerate(tasks)]
    right = sum(mark == 1 for mark in marks)
    assert 5 < right < 80
    assert all(0 <= mark <= 1 for mark in marks)


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
