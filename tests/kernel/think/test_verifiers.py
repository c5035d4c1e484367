"""Who judges answers: what is read of them, and programs that mean no good."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from llmos.drivers.sandbox import SandboxMissing
from llmos.kernel.kernel import Kernel
from llmos.kernel.think import BestOf, Examples, Think
from llmos.kernel.think.candidates import Candidate
from llmos.kernel.think.mind import Mind
from llmos.kernel.think.strategies import stays_first
from llmos.kernel.think.trial import examples_in, passed
from llmos.kernel.think.verifiers import equations_in, expressions_in
from tests.kernel.think.conftest import let_go

Make = Callable[..., Kernel]


def test_equations_are_found_in_what_is_said() -> None:
    text = "First 12 * 7 = 84 apples, (84 - 4) / 2 = $40.50, so x = 5 and 3 + 4 = 7 * 2 = 14. \\(2 \\times 3 = 6\\)"
    assert list(equations_in(text)) == [
        ("12 * 7", "84"), ("(84 - 4) / 2", "40.50"), ("7 * 2", "14"), ("2 * 3", "6")
    ]  # fmt: skip
    assert list(equations_in("1,200 + 300 = 1,500")) == [("1200 + 300", "1500")]
    assert list(equations_in("The room is 5 = five. a + b = c. 2024-05-06")) == []
    assert list(equations_in("\\frac{1}{2} + 1 = 1.5")) == [("(1/2) + 1", "1.5")]


def test_equations_in_long_nonsense_end_soon() -> None:
    start = time.monotonic()
    list(equations_in("1 + " * 4000 + "= " + "(" * 4000))
    list(expressions_in("1+" * 8000))
    assert time.monotonic() - start < 30


def test_expressions_are_found_the_last_first() -> None:
    assert list(expressions_in("Try (4+6)*2 = 20. No.\nAnswer: 6 * (7 - 4 + 1) = 24")) == [
        "6 * (7 - 4 + 1)",
        "(4+6)*2",
    ]
    assert list(expressions_in("24")) == []


def test_examples_are_read_from_prompts_of_many_forms() -> None:
    doctest = (
        'def add(a, b):\n    """Adds.\n    >>> add(1, 2)\n    3\n    >>> add([1], [2])\n    [1, 2]\n    """\n'
    )
    assert examples_in(doctest) == (("add(1, 2)", "3"), ("add([1], [2])", "[1, 2]"))
    arrows = (
        "def f(n):\n  '''\n  f(3) == 4\n  * f([1, 2]) => True\n  f('a') ➞ \"b\"\n  f(0) returns None.\n"
        "  For example, for g(1) == 2 nothing.\n  f(5) = 6 # six\n  '''"
    )
    assert examples_in(arrows) == (
        ("f(3)", "4"), ("f([1, 2])", "True"), ("f('a')", '"b"'), ("f(0)", "None"), ("f(5)", "6")
    )  # fmt: skip
    assert examples_in("What is f(x) = 3?") == () and examples_in("") == ()


@pytest.fixture(scope="module")
def sandboxed() -> Iterator[None]:
    try:
        passed("x = 1", [("x", "1")], 10)
    except SandboxMissing as error:
        pytest.skip(str(error))
    yield


@pytest.mark.usefixtures("sandboxed")
def test_programs_are_tried_and_those_that_mean_no_good_fail() -> None:
    examples = [("f(1)", "2"), ("f(0.1)", "1.1"), ("f(-1)", "0")]
    assert passed("def f(x):\n    return x + 1\n", examples, 20) == 3
    assert passed("def f(x):\n    return 2\n", examples, 20) == 1
    assert passed("def f(x):\n    if x < 1: raise ValueError\n    return 2\n", examples, 20) == 1
    for bad in (
        "def f(:", "import os; os._exit(0)", "raise SystemExit", "print('1 ' * 10**6)\ndef f(x): return None",
        "import sys\nsys.__stdout__.write('\\n' * 100)\ndef f(x): return None", "open('/etc/passwd', 'w')",
        "x = 'a' * (4 << 30)", "import socket; socket.create_connection(('1.1.1.1', 80))",
    ):  # fmt: skip
        assert passed(bad, examples, 20) == 0, bad


@pytest.mark.usefixtures("sandboxed")
def test_values_of_many_kinds_are_compared() -> None:
    code = "from collections import Counter\nfrom fractions import Fraction\ndef f(x): return x\n"
    right = [
        ("f(Counter('aab'))", "{'a': 2, 'b': 1}"), ("f(Fraction(1, 2))", "Fraction(2, 4)"), ("f(0.1) + 0.2", "0.3"),
        ("f(frozenset([1]))", "{1}"), ("f((1, [None]))", "(1, [None])"), ("f(True)", "True"), ("f(2)", "2.0"),
    ]  # fmt: skip
    assert passed(code, right, 20) == len(right)
    wrong = [
        ("f(1)", "True"),
        ("f(True)", "1"),
        ("f((1,))", "[1]"),
        ("f('1')", "1"),
        ("f('a')", "1.5"),
        ("f", "f("),
    ]
    assert passed(code, wrong, 20) == 0


@pytest.mark.usefixtures("sandboxed")
def test_a_program_finds_no_answers_in_its_sandbox() -> None:
    looks = (
        "import sys\nframe, seen = sys._getframe(), ''\nwhile frame:\n"
        "    seen += repr(dict(frame.f_globals))\n    frame = frame.f_back\n"
        "def f(x): return str(47 * 100 + 11) in seen\ndef g(): return len(seen) > 50"
    )
    assert passed(looks, [("g()", "True")], 20) == 1
    assert passed(looks, [("f(1)", "True"), ("f(2)", "4711")], 20) == 0


@pytest.mark.usefixtures("sandboxed")
def test_a_program_that_hangs_is_ended_and_keeps_what_it_passed() -> None:
    code = "def f(x):\n    while x < 0: pass\n    return x + 1\n"
    start = time.monotonic()
    assert passed(code, [("f(1)", "2"), ("f(-1)", "0"), ("f(2)", "3")], 2) == 1
    assert time.monotonic() - start < 60


@pytest.mark.usefixtures("sandboxed")
def test_code_is_chosen_by_the_examples_of_the_question(drawing_kernel: Make) -> None:
    question = (
        "Complete this function:\ndef add(a, b):\n    >>> add(1, 2)\n    3\n    >>> add(-1, 1)\n    0\n"
    )
    bodies = ("return a", "while True: pass", "return a + b", "raise OSError")
    kernel = drawing_kernel(lambda _: [f"```python\ndef add(a, b):\n    {body}\n```" for body in bodies])
    turn = kernel.spawn().ask(question, think=Think(budget="40x", verifier=Examples(seconds=3.0)))
    assert "return a + b" in turn.answer and turn.tree is not None and turn.tree.why == "it passes its check"
    turn = kernel.spawn().ask(question, think="40x")
    assert "return a + b" in turn.answer
    assert let_go(kernel)


class Broken:
    """A verifier that fails, or never answers."""

    exact = False

    def __init__(self, hangs: bool) -> None:
        self.hangs = hangs

    async def check(self, mind: Mind, candidate: Candidate) -> float | None:
        import asyncio

        if self.hangs:
            await asyncio.sleep(3600)
        raise ZeroDivisionError("ha")


@pytest.mark.parametrize(
    ("hangs", "note"), [(False, "failed: ZeroDivisionError"), (True, "did not answer within")]
)
def test_a_verifier_that_crashes_or_hangs_only_says_nothing(
    drawing_kernel: Make, monkeypatch: pytest.MonkeyPatch, hangs: bool, note: str
) -> None:
    async def check(self: Examples, mind: Mind, candidate: Candidate) -> float | None:
        return await Broken(hangs).check(mind, candidate)

    monkeypatch.setattr(Examples, "check", check)
    monkeypatch.setattr("llmos.kernel.think.mind.VERIFIER_S", 0.2)
    kernel = drawing_kernel(lambda _: ["It is 42.", "So 42.", "No."])
    turn = kernel.spawn().ask("6 times 7?", think=BestOf(budget="30x", verifier=Examples()))
    assert "42" in turn.answer and turn.tree is not None and note in turn.tree.thoughts[0].note
    assert let_go(kernel)


def test_a_sandbox_that_cannot_be_had_says_nothing(
    drawing_kernel: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> int:
        raise SandboxMissing("there is no bubblewrap")

    monkeypatch.setattr("llmos.kernel.think.trial.passed", missing)
    kernel = drawing_kernel(lambda _: ["```python\ndef f(x):\n    return 1\n```"])
    turn = kernel.spawn().ask("Write a function.\ndef f(x):\n    >>> f(1)\n    1\n", think="6x")
    assert turn.tree is not None and "bubblewrap" in turn.tree.thoughts[0].note and turn.answer


def test_votes_are_sure_only_when_there_are_enough() -> None:
    from llmos.kernel.think.answers import Value

    def votes(*answers: str) -> list[Candidate]:
        return [
            Candidate(n, 0, "answer", (), (), a, a, a, True, value=Value(a, a)) for n, a in enumerate(answers)
        ]

    assert stays_first([]) == 0 and stays_first(votes("1")) < 0.8
    assert stays_first(votes("1", "1", "1")) < 0.95 < stays_first(votes("1", "1", "1", "1"))
    assert stays_first(votes("1", "1", "1", "2", "2")) < 0.7
    assert stays_first(votes(*"1" * 20, *"2" * 5)) > 0.99
