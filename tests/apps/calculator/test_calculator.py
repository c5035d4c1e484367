"""The calculator against `fractions`, `decimal` and `math`; whatever is typed, it answers or complains."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from decimal import Context, Decimal
from fractions import Fraction
from typing import cast

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llmos.abi.app import Call
from llmos.abi.loading import load
from llmos.abi.manifest import Manifest
from llmos.abi.signature import Signature
from llmos.apps.calculator import CalculationError, Calculator, evaluate
from llmos.apps.calculator.arithmetic import HALF_PI, MAX_DIGITS, PI, show
from llmos.apps.calculator.units import Unit, find, names
from tests.abi.test_schema import complaint

WIDE = Context(prec=60)


def answer(text: str, digits: int = 15) -> str:
    return evaluate(text).show(digits)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2^64 + 1", "18446744073709551617"),
        ("0.1 + 0.2", "0.3"),
        ("0.1 + 0.2 == 0.3", "true"),
        ("1/3", "1/3 (about 0.333333333333333)"),
        ("1/8", "0.125"),
        ("-2^2", "-4"),
        ("2^3^2", "512"),
        ("2^-1", "0.5"),
        ("4 - -3", "7"),
        ("2(3 + 4)", "14"),
        ("7 % 3", "1"),
        ("-7 mod 3", "2"),
        ("15% of 80", "12"),
        ("50 * 3%", "1.5"),
        ("3!!", "720"),
        ("8^(1/3)", "2"),
        ("(-8)^(1/3)", "-2"),
        ("(4/9)^(3/2)", "8/27 (about 0.296296296296296)"),
        ("0^0", "1"),
        ("3²", "9"),
        ("6 ÷ 4 × 2", "3"),
        ("0xff + 0b11", "258"),
        ("1,234,567 + 1", "1234568"),
        ("max(1,234)", "234"),
        ("1.5e3", "1500"),
        ("sqrt(2)", "1.4142135623731 (rounded)"),
        ("sin(pi)", "0"),
        ("cos(60 deg)", "0.5 (rounded)"),
        ("acos(0.5) to deg", "60 deg (rounded)"),
        ("log(1000)", "3"),
        ("log(1/8, 2)", "-3"),
        ("log2(1024)", "10"),
        ("ln(1)", "0"),
        ("round(2.5)", "3"),
        ("round(-2.567, 2)", "-2.57"),
        ("floor(-1/2)", "-1"),
        ("ceil(1/2)", "1"),
        ("gcd(12, 18)", "6"),
        ("lcm(4, 6, 10)", "60"),
        ("comb(52, 5)", "2598960"),
        ("perm(5, 2)", "20"),
        ("mean(1, 2, 3, 4)", "2.5"),
        ("root(32, 5)", "2"),
        ("1e30 / 7", "142857142857142857142857142857.142857"),
    ],
)
def test_numbers(text: str, wanted: str) -> None:
    if "1e30" in text:
        assert answer(text).endswith("(about 1.42857142857143e29)")
    else:
        assert answer(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("3 ft + 2 in to cm", "96.52 cm"),
        ("5 ft 3 in to in", "63 in"),
        ("5 in in cm", "12.7 cm"),
        ("2 h 30 min to min", "150 min"),
        ("60 km/h to m/s", "50/3 m/s (about 16.6666666666667)"),
        ("10 m / 2 s", "5 m/s"),
        ("72 kg * 9.81 m/s^2 to N", "706.32 N"),
        ("72 kg * 9.81 m/s^2", "706.32 kg m/s^2"),
        ("20 degC to degF", "68 degF"),
        ("-40 °F to °C", "-40 degC"),
        ("300 K to degC", "26.85 degC"),
        ("2 kWh to MJ", "7.2 MJ"),
        ("5 GB to MiB", "4768.37158203125 MiB"),
        ("sqrt(16 m^2)", "4 m"),
        ("100 mph to km/h", "160.9344 km/h"),
        ("1 / (2 m)", "0.5 m^-1"),
        ("3 km > 3000 m", "false"),
        ("max(1 km, 1 mi)", "1 mi"),
        ("round(1234.5 m to km, 1)", "1.2 km"),
        ("1 m / 1 ft", "1250/381 (about 3.28083989501312)"),
        ("7 min % 2 min", "1 min"),
    ],
)
def test_units(text: str, wanted: str) -> None:
    assert answer(text) == wanted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "at the end: a number"),
        ("3 +", "at the end: a number"),
        ("(2", "closing parenthesis"),
        ("2)", "at ')' at character 2"),
        ("1.2.3", "'1.2.3' at character 1 cannot be read"),
        ("2 $ 3", "at character 3 cannot be read"),
        ("1/0", "at '/' at character 2: division by zero"),
        ("0^-1", "division by zero"),
        ("5 mod 0", "division by zero"),
        ("sqr(4)", "did you mean 'sqrt'"),
        ("12 apples", "unknown name"),
        ("sqrt(1, 2)", "sqrt takes 1 arguments, not 2"),
        ("sqrt(-1)", "no real root"),
        ("ln(0)", "not positive"),
        ("asin(2)", "arcsine"),
        ("tan(90 deg)", "right angle"),
        ("sin(1e30)", "beyond"),
        ("2.5!", "whole number"),
        ("(-1)!", "negative"),
        ("3 kg + 2 m", "kg and m"),
        ("3 kg + 2", "kg and a plain number"),
        ("3 m to kg", "conversion to kg"),
        ("sin(3 m)", "plain number"),
        ("2^(3 m)", "plain number"),
        ("1/2 m", "two ways"),
        ("200 + 10%", "percentage of what"),
        ("20 degC + 1 K", "temperatures"),
        ("20 degC * 2", "offset"),
        ("(1 < 2) + 1", "comparison"),
        ("9^9^9", "4000 digits"),
        ("10000!", "4000 digits"),
        ("1e99999", "exponent"),
        ("2^13290 * 2^13290", "4000 digits"),
        ("comb(10^9, 10^8)", "4000 digits"),
        ("exp(exp(100))", "10^999999"),
        ("(" * 100, "deeper"),
        ("-" * 100 + "1", "deeper"),
        ("1+" * 2000 + "1", "characters"),
        ("m^100", "beyond 20"),
        ("__import__('os')", "cannot be read"),
    ],
)
def test_complaints(text: str, words: str) -> None:
    with pytest.raises(CalculationError) as caught:
        answer(text)
    assert words in str(caught.value)


# --- against the standard library ---

_number = st.one_of(
    st.integers(-(10**6), 10**6).map(Fraction),
    st.decimals(-1000, 1000, places=4, allow_nan=False).map(Fraction),
)


@st.composite
def _expression(draw: st.DrawFn, depth: int = 4) -> tuple[str, Fraction]:
    """An expression as text, and its value by `Fraction`."""
    if depth == 0 or draw(st.booleans()):
        value = draw(_number)
        text = str(Decimal(value.numerator) / Decimal(value.denominator))
        return (f"({text})" if value < 0 else text), value
    (a, x), (b, y) = draw(_expression(depth - 1)), draw(_expression(depth - 1))
    sign = draw(st.sampled_from("+-*/^%"))
    if sign == "^":
        power = draw(st.integers(-4, 4))
        assume(x != 0 or power >= 0)
        return f"({a})^({power})", x**power
    assume(y != 0 or sign in "+-*")
    value = {
        "+": lambda: x + y,
        "-": lambda: x - y,
        "*": lambda: x * y,
        "/": lambda: x / y,
        "%": lambda: x % y,
    }[sign]()
    return f"({a}) {sign} ({b})", value


@settings(max_examples=300, deadline=None)
@given(_expression())
def test_exact_arithmetic_is_that_of_fractions(pair: tuple[str, Fraction]) -> None:
    text, value = pair
    assert evaluate(text).number == value


@settings(max_examples=200, deadline=None)
@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9))
def test_precedence_is_that_of_python(a: int, b: int, c: int) -> None:
    for text in (f"{a} + {b} * {c}", f"{a} - {b} - {c}", f"{a} * {b} - {c}", f"-{abs(a)} ** 2 + {b}"):
        assert evaluate(text).number == eval(text)  # noqa: S307 (made of three integers, here)


@settings(max_examples=200, deadline=None)
@given(st.fractions(min_value=Fraction(1, 10**6), max_value=10**6, max_denominator=10**6), st.integers(1, 50))
def test_roots_and_logarithms_are_those_of_decimal(x: Fraction, digits: int) -> None:
    exact = WIDE.divide(Decimal(x.numerator), Decimal(x.denominator))
    for name, reference in (("sqrt", WIDE.sqrt(exact)), ("ln", WIDE.ln(exact)), ("log10", WIDE.log10(exact))):
        number = evaluate(f"{name}({x.numerator}/{x.denominator})").number
        if isinstance(number, Decimal):
            near = Context(prec=digits)
            assert abs(near.plus(number) - near.plus(reference)) <= Decimal(10) ** (
                reference.adjusted() - digits + 1
            )
        else:
            assert abs(number - Fraction(reference)) < Fraction(1, 10**50)
    back = evaluate(f"exp(ln({x.numerator}/{x.denominator}))").number
    assert abs(Fraction(back) - x) < x / 10**55


@settings(max_examples=200, deadline=None)
@given(st.floats(-50, 50))
def test_angles_are_those_of_math(x: float) -> None:
    exact = Fraction(x)
    for name in ("sin", "cos", "atan"):
        ours = float(evaluate(f"{name}({exact.numerator}/{exact.denominator})").number)
        assert math.isclose(ours, getattr(math, name)(x), rel_tol=1e-12, abs_tol=1e-14)
    sine, cosine = (evaluate(f"{n}({exact.numerator}/{exact.denominator})").number for n in ("sin", "cos"))
    one = WIDE.add(WIDE.power(Decimal(sine) if isinstance(sine, Decimal) else Decimal(0), 2), _square(cosine))
    assert abs(one - 1) < Decimal("1e-50")


def _square(number: Fraction | Decimal) -> Decimal:
    return WIDE.power(number, 2) if isinstance(number, Decimal) else Decimal(int(number) ** 2)


def test_pi() -> None:
    assert (
        evaluate("16 * atan(1/5) - 4 * atan(1/239)").show(50)
        == WIDE.plus(PI).__format__(".50") + " (rounded)"
    )
    assert WIDE.multiply(HALF_PI, Decimal(2)) == WIDE.plus(PI)


_exact = [name for name in names() if isinstance(cast(Unit, find(name)).factor, Fraction)]


@settings(max_examples=200, deadline=None)
@given(st.data(), _number)
def test_conversions_are_exact(data: st.DataObject, value: Fraction) -> None:
    one = cast(Unit, find(a := data.draw(st.sampled_from(_exact))))
    like = [name for name in _exact if cast(Unit, find(name)).dimension == one.dimension]
    two = cast(Unit, find(b := data.draw(st.sampled_from(like))))
    quantity = evaluate(f"{Decimal(value.numerator) / value.denominator} {a} to {b}")
    assert quantity.number == value * Fraction(one.factor) + one.offset
    assert quantity.unit == two
    shown = quantity.show(30).partition(" ")[0]
    wanted = (quantity.number - two.offset) / Fraction(two.factor)
    assert abs(Fraction(shown) - wanted) <= abs(wanted) / 10**29


@settings(max_examples=200, deadline=None)
@given(st.fractions(max_denominator=10**6))
def test_an_exact_answer_can_be_read_back(value: Fraction) -> None:
    text = show(value).partition(" ")[0]
    assert evaluate(text).number == value


@settings(max_examples=500, deadline=None)
@given(st.text(st.sampled_from("0123456789.+-*/^%!(),= eintomkgsqrlcd°²pif<>"), max_size=40))
def test_any_text_is_answered_or_complained_about(text: str) -> None:
    began = time.monotonic()
    try:
        assert evaluate(text).show()
    except CalculationError as error:
        assert str(error)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    "text",
    [
        "9!" * 60,
        "*".join(["2^13000"] * 100),
        "(1/3)^8000 + (1/7)^4000",
        "lcm(" + ",".join(str(10**15 + i) for i in range(80)) + ")",
        "+".join(["exp(1)"] * 280),
        "+".join(["sin(1e19)"] * 190),
        "root(10^3999, 3999) + 2^(1/9999)",
        "1/3" + "+1/7^999" * 150,
        "^".join(["1.1"] * 50),
    ],
)
def test_hard_work_is_bounded(text: str) -> None:
    began = time.monotonic()
    with contextlib.suppress(CalculationError):
        assert len(answer(text)) < 3 * MAX_DIGITS
    assert time.monotonic() - began < 2


def test_as_an_app() -> None:
    manifest = Manifest.of(Calculator)
    assert manifest.pure
    found = manifest.syscall("calculator.evaluate")
    assert complaint(found.parameters) == ""
    assert found.parameters["required"] == ["expression"]
    signature = Signature.read("calculator", Calculator.evaluate)
    given = {"expression": "22/7 - pi", "digits": 5}
    reply = asyncio.run(signature.invoke(Calculator().evaluate, given, cast(Call, None)))
    assert reply.value == "0.0012645 (rounded)"


def test_it_is_installed_as_an_app() -> None:
    assert load("calculator") is Calculator
