"""Statistics against `statistics`, dates against `datetime`, equations against roots that were put into them."""

from __future__ import annotations

import contextlib
import math
import statistics as reference
import time
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llmos.abi.errors import BadArguments
from llmos.abi.manifest import Manifest
from llmos.abi.signature import Signature
from llmos.apps.calculator import CalculationError, Calculator, dates, evaluate, solve, statistics
from llmos.apps.calculator.polynomial import roots, through, value
from tests.abi.test_schema import complaint

_number = st.one_of(
    st.integers(-(10**6), 10**6).map(Fraction), st.fractions(-1000, 1000, max_denominator=1000)
)
_numbers = st.lists(_number, min_size=2, max_size=40)
_day = st.dates(date(1, 1, 1), date(9999, 12, 31))


# --- statistics ---


@settings(max_examples=80, deadline=None)
@given(_numbers)
def test_measures_are_those_of_the_standard_library(numbers: list[Fraction]) -> None:
    assert statistics.total(numbers) == sum(numbers)
    assert statistics.mean(numbers) == reference.fmean(numbers) or statistics.mean(numbers) == reference.mean(
        numbers
    )
    assert statistics.median(numbers) == reference.median(numbers)
    assert statistics.variance(numbers) == reference.variance(numbers)
    assert statistics.variance(numbers, population=True) == reference.pvariance(numbers)
    for population, other in ((False, reference.stdev), (True, reference.pstdev)):
        assert math.isclose(
            statistics.deviation(numbers, population=population), other(numbers), rel_tol=1e-9
        )
    modes = statistics.modes(numbers)
    assert modes == sorted(reference.multimode(numbers)) or (
        not modes and len({*map(numbers.count, numbers)}) == 1
    )


@settings(max_examples=80, deadline=None)
@given(_numbers)
def test_quartiles_are_those_of_the_standard_library(numbers: list[Fraction]) -> None:
    wanted = reference.quantiles(numbers, n=4, method="inclusive")
    assert [statistics.percentile(numbers, Fraction(p)) for p in (25, 50, 75)] == wanted
    assert statistics.percentile(numbers, Fraction(0)) == min(numbers)
    assert statistics.percentile(numbers, Fraction(100)) == max(numbers)


def test_statistics_in_words() -> None:
    said = Calculator().statistics([0.1, 0.2, 0.2, 10**30])
    assert said["sum"] == "1000000000000000000000000000000.5"
    assert said["mode"] == "0.2"
    assert said["median"] == "0.2"
    assert Calculator().statistics([7])["population stdev"] == "0"
    assert "stdev" not in Calculator().statistics([7])
    assert Calculator().percentile([1, 2, 3, 4], 25) == "1.75"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("median(3, 1, 2)", "2"),
        ("median(3 m, 1 m, 20 cm)", "1 m"),
        ("percentile(1, 2, 3, 90)", "2.8"),
        ("stdev(2, 4, 4, 4, 5, 5, 7, 9)", "2.1380899352994 (rounded)"),
        ("pstdev(2, 4, 4, 4, 5, 5, 7, 9)", "2"),
        ("variance(1 m, 2 m)", "0.5 m^2"),
        ("stdev(1 m, 300 cm) to cm", "141.42135623731 cm (rounded)"),
    ],
)
def test_statistics_in_expressions(text: str, wanted: str) -> None:
    assert evaluate(text).show() == wanted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stdev(3)", "two numbers"),
        ("median(1 m, 2 kg)", "m and kg"),
        ("percentile(1, 2, 101)", "0 to 100"),
        ("stdev(20 degC, 30 degC)", "measured in K"),
        ("2024-03-01 - 2024-01-15", "reads as a date"),
    ],
)
def test_complaints(text: str, words: str) -> None:
    with pytest.raises(CalculationError, match=words):
        evaluate(text)


# --- dates ---


@settings(max_examples=100, deadline=None)
@given(_day, _day)
def test_days_between(start: date, end: date) -> None:
    said = dates.between(start, end)
    assert said.split()[0].replace("-0", "0") == str((end - start).days)
    if "month" in said or "year" in said:  # the calendar's way, walked again
        told = said.rpartition("or ")[2] if "or " in said else said.partition("(")[2]
        words = told.rstrip(")").split()
        counts = {words[at + 1].rstrip("s"): int(words[at]) for at in range(0, len(words), 2)}
        months = counts.get("year", 0) * 12 + counts.get("month", 0)
        first, last = min(start, end), max(start, end)
        reached = dates.read(dates.later(first, months, "months")[:10])
        assert reached + timedelta(days=counts.get("day", 0)) == last


@settings(max_examples=100, deadline=None)
@given(_day, st.integers(-5000, 5000))
def test_adding_to_a_date(day: date, amount: int) -> None:
    for unit, days in (("days", 1), ("weeks", 7)):
        try:
            wanted = (day + timedelta(days=amount * days)).isoformat()
        except OverflowError:
            with pytest.raises(CalculationError, match="1 to 9999"):
                dates.later(day, amount, unit)  # type: ignore[arg-type]
            continue
        assert dates.later(day, amount, unit).startswith(wanted)  # type: ignore[arg-type]
    with contextlib.suppress(CalculationError):
        found = dates.read(dates.later(day, amount, "months")[:10])
        assert (found.year - day.year) * 12 + found.month - day.month == amount
        assert found.day == day.day or (found + timedelta(days=1)).day == 1


@pytest.mark.parametrize(
    "text",
    [
        "2024-03-01",
        "1 March 2024",
        "March 1, 2024",
        "Mar 1 2024",
        "1st of March 2024",
        "1.3.2024",
        "2024/3/1",
    ],
)
def test_a_date_is_read_however_it_is_written(text: str) -> None:
    assert dates.read(text) == date(2024, 3, 1)


@pytest.mark.parametrize(
    "text", ["03/04/2024", "2024-02-30", "yesterday", "", "2024", "1 Ma 2024", "0000-01-01"]
)
def test_a_date_that_is_none_or_two_is_refused(text: str) -> None:
    with pytest.raises(CalculationError):
        dates.read(text)


def test_dates_in_words() -> None:
    app = Calculator()
    assert app.days_between("2024-01-15", "2024-03-01").endswith(
        " is 46 days (6 weeks 4 days, or 1 month 15 days)"
    )
    assert app.days_between("2024-03-01", "2024-02-29") == "2024-03-01 to 2024-02-29 is -1 day"
    assert app.add_to_date("2024-01-31", 1, "months") == "2024-02-29 (Thursday); the month has no day 31"
    assert app.add_to_date("2024-02-29", -1, "years").startswith("2023-02-28")
    assert app.weekday("2026-11-22").startswith("2026-11-22 is a Sunday (day 326 of 2026, week 47")


# --- equations ---

_root = st.fractions(-50, 50, max_denominator=20)


@settings(max_examples=50, deadline=None)
@given(st.lists(_root, min_size=1, max_size=5), st.integers(-9, 9).filter(bool))
def test_rational_roots_are_found_exactly_and_none_besides(wanted: list[Fraction], scale: int) -> None:
    text = f"{scale}" + "".join(f"*(x - ({root}))" for root in wanted) + " = 0"
    told = [part.partition(" (")[0].removeprefix("x = ") for part in solve(text).split(" or ")]
    assert [evaluate(one).number for one in told] == sorted(set(wanted))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-30, 30), min_size=2, max_size=8))
def test_real_roots_of_any_polynomial_change_its_sign(shares: list[int]) -> None:
    assume(shares[-1])
    p = tuple(map(Fraction, shares))
    found = roots(p)
    assert all(value(p, root) == 0 for root in found.rational)
    for root in found.rounded:
        near = Fraction(root)
        width = max(abs(near), Fraction(1)) / 10**50
        ends = value(p, near - width), value(p, near + width)
        assert ends[0] == 0 or ends[1] == 0 or (ends[0] > 0) != (ends[1] > 0) or _double(p, near)
    surds = 0 if found.surd is None else 2
    assert len(found.rational) + surds + len(found.rounded) + found.complex <= len(p) - 1


def _double(p: tuple[Fraction, ...], x: Fraction) -> bool:
    """Whether p only touches zero there."""
    return abs(value(p, x)) < Fraction(1, 10**60)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-9, 9), min_size=1, max_size=9))
def test_a_polynomial_is_known_by_its_points(shares: list[int]) -> None:
    while len(shares) > 1 and not shares[-1]:
        shares.pop()
    p = tuple(map(Fraction, shares))
    assert through([(Fraction(x), value(p, Fraction(x))) for x in range(-6, 7)]) == p


@settings(max_examples=60, deadline=None)
@given(st.integers(-20, 20), st.integers(-100, 100), st.integers(-100, 100))
def test_a_quadratic_is_solved_by_its_formula(a: int, b: int, c: int) -> None:
    assume(a)
    said = solve(f"{a}x^2 + ({b})x + ({c}) = 0")
    square = b * b - 4 * a * c
    if square < 0:
        assert said.startswith("no real solution; complex ones are ")
        return
    wanted = sorted({(-b - math.sqrt(square)) / (2 * a), (-b + math.sqrt(square)) / (2 * a)})
    for part, root in zip(said.split(" or "), wanted, strict=True):
        value_text = part.partition("about ")[2].rstrip(")") or part.removeprefix("x = ")
        assert math.isclose(float(Fraction(value_text)), root, rel_tol=1e-9, abs_tol=1e-9)
        exact = part.removeprefix("x = ").partition(" (about")[0]
        assert math.isclose(float(evaluate(exact).number), root, rel_tol=1e-9, abs_tol=1e-9)


@pytest.mark.parametrize(
    ("equation", "wanted"),
    [
        ("3x + 4 = 19", "x = 5"),
        ("x^2 - 5x + 6 = 0", "x = 2 or x = 3"),
        (
            "x^2 + x = 1",
            "x = (-1 - sqrt(5))/2 (about -1.61803398874989) or x = (-1 + sqrt(5))/2 (about 0.618033988749895)",
        ),
        ("x^2 + 2x + 5 = 0", "no real solution; complex ones are x = -1 - 2i or x = -1 + 2i"),
        ("x^3 = 2", "x = 1.25992104989487 (rounded); besides, 2 complex solutions"),
        ("x^4 + 1 = 0", "no real solution; 4 complex ones"),
        ("t^2 = 16", "t = -4 or t = 4"),
        ("0.1x = 0.3", "x = 3"),
        ("x = x", "every x solves it"),
        ("x = x + 1", "no x solves it"),
        ("1/x = 2", "x = 0.5 (found by changes of sign between -100 and 100)"),
        ("x * exp(x) = 1", "x = 0.567143290409784 (rounded) (found by changes of sign between -100 and 100)"),
        ("log(x) = 3", "x = 1000 (found by changes of sign between -1000000 and 1000000)"),
        ("1/(x - 1) = 0", "no solution was found between -1000000 and 1000000"),
        ("floor(x) = 2.5", "no solution was found between -1000000 and 1000000"),
        ("x! = 120", "x = 5 (found by changes of sign between -100 and 100)"),
    ],
)
def test_equations(equation: str, wanted: str) -> None:
    assert solve(equation) == wanted


def test_an_interval_and_a_name_may_be_given() -> None:
    assert solve("sin(x) = 0.5", low=0, high=1).startswith("x = 0.523598775598299")
    assert solve("m * 2 = 10", "m") == "m = 5"  # a unit's name, where it is said to be the unknown
    assert "there may be more" in solve("sin(x) = 0.5")
    assert solve("x^2 - 5x + 6 = 0", low=0) == "x = 2 or x = 3"
    assert solve("x^2 - 5x + 6 = 0", low=2.5, high=9) == "x = 3"
    assert solve("x^2 = 2", low=0).startswith("x = sqrt(2) ")
    assert solve("x^2 - 5x + 6 = 0", high=1) == "no solution to 1"
    assert solve("exp(x) = 2x + 3", low=0).startswith("x = 1.92393875034588")
    with pytest.raises(CalculationError, match="smaller"):
        solve("x = 1", low=2, high=1)


@pytest.mark.parametrize(
    ("equation", "words"),
    [
        ("x + y = 3", "x, y: say which"),
        ("3 = 3", "none"),
        ("x = 1 = 2", "one equation"),
        ("x < 3", "one equation"),
        ("x" * 500, "characters"),
        ("x + = 2", "a number should be here"),
        ("sqrt(-1 - x^2) = 2", "no real root"),
        ("sin(3 m) = x", "plain number"),
        ("__import__('os') = x", "cannot be read"),
    ],
)
def test_equations_that_are_none(equation: str, words: str) -> None:
    with pytest.raises(CalculationError, match=words):
        solve(equation)


@settings(max_examples=80, deadline=None)
@given(st.text(st.sampled_from("0123456789.+-*/^%!(),= xsinqrtlogep"), max_size=30))
def test_any_text_is_answered_or_complained_about(text: str) -> None:
    with contextlib.suppress(CalculationError):
        assert solve(text)


@pytest.mark.parametrize(
    "equation",
    [
        "sin(" * 40 + "x" + ")" * 40 + " = 0.5",
        "exp(exp(exp(x))) = 10^50000",
        "x^16 * 10^3900 + x^15 * 10^3800 = 7^900",
        "(x - 1/3^900)(x + 1/7^800)(x^2 - 1/11^500) = 0",
        "*".join(f"(x-{n}/{10**9 + n})" for n in range(16)) + " = 1",
    ],
)
def test_hard_work_is_bounded(equation: str) -> None:
    began = time.process_time()
    with contextlib.suppress(CalculationError):
        assert len(solve(equation)) < 40_000
    assert time.process_time() - began < 8


def test_the_syscalls() -> None:
    manifest = Manifest.of(Calculator)
    for syscall in manifest.syscalls:
        assert complaint(syscall.parameters) == ""
    signature = Signature.read("calculator", Calculator.statistics)
    assert signature.arguments({"numbers": [1, 2.5]})["numbers"] == [1, 2.5]
    assert isinstance(signature.arguments({"numbers": [2**70]})["numbers"][0], int)
    for wrong in ([], ["a"], [1e400], list(range(2000)), [True]):
        with pytest.raises(BadArguments):
            signature.arguments({"numbers": wrong})
    assert statistics.exact(0.1) == Fraction(1, 10)
    assert Decimal(repr(1e-7)) == Fraction(1, 10**7) == statistics.exact(1e-7)


# --- units ---


@pytest.mark.parametrize(
    ("amount", "unit", "to", "converted"),
    [
        (350, "degrees Fahrenheit", "Celsius", "530/3 degC (about 176.666666666667)"),
        (-40, "Celsius", "degrees fahrenheit", "-40 degF"),
        (212, "degrees", "celsius", "100 degC"),
        (26.2, "miles", "kilometres", "42.1648128 kilometres"),
    ],
)
def test_amounts_are_converted(amount: float, unit: str, to: str, converted: str) -> None:
    assert Calculator().convert(amount, unit, to).endswith(f" = {converted}")


@pytest.mark.parametrize(("unit", "to"), [("zork", "km"), ("km", "kg"), ("", ""), ("km) * (3", "m")])
def test_what_cannot_be_converted_is_said(unit: str, to: str) -> None:
    with pytest.raises(CalculationError):
        Calculator().convert(3, unit, to)


def test_a_date_and_a_time_are_added_elsewhere() -> None:
    for text in ("2025-01-31+45", "2025-01-31 + 45 days", "2025-01-31 plus 3 weeks"):
        with pytest.raises(CalculationError, match=r"calculator\.add_to_date"):
            Calculator().days_between("2025-01-31", text)
