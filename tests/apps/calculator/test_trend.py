"""Trends, and what an expression may be written with."""

from __future__ import annotations

import math
import re
from datetime import date, timedelta
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmos.apps.calculator import CalculationError, Calculator, Point, units
from llmos.apps.calculator.parser import is_known, written
from llmos.apps.calculator.trend import fit

_points = st.lists(
    st.tuples(st.dates(date(1950, 1, 1), date(2050, 1, 1)), st.fractions(1, 10**6, max_denominator=1000)),
    min_size=2, max_size=8, unique_by=lambda point: point[0],
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(_points, st.sampled_from(["linear", "logarithmic"]))
def test_a_trend_is_the_line_of_least_squares(points: list[tuple[date, Fraction]], scale: str) -> None:
    days, values = zip(*points, strict=True)
    heights = [math.log(v) if scale == "logarithmic" else float(v) for v in values]
    slope, middle = np.polyfit([d.toordinal() - days[0].toordinal() for d in days], heights, 1)
    line = fit(days, values, scale)
    for day in days:
        height = middle + slope * (day.toordinal() - days[0].toordinal())
        wanted = math.exp(height) if scale == "logarithmic" else height
        assert float(line.at(day)) == pytest.approx(wanted, rel=1e-6, abs=1e-4)


def test_growth_is_found_again() -> None:
    start = date(2020, 1, 1)
    points = [Point(date=str(start + timedelta(days=n)), value=2**n) for n in range(5)]
    told = Calculator().trend(points, ["2020-01-11"], "logarithmic")
    assert float(told["2020-01-11"]) == 1024
    two = [Point(date="2020-01-01", value=1), Point(date="1 January 2021", value=2)]
    told = Calculator().trend(two, ["2022-01-01"], "linear")
    assert told == {"2022-01-01": "2.9972678", "growth": "0.997951 a year"}


@pytest.mark.parametrize(
    ("days", "values", "complaint"),
    [
        ([date(2020, 1, 1)] * 2, [1, 2], "two different dates"),
        ([date(2020, 1, 1), date(2020, 1, 2)], [1, 0], "0 has no logarithm"),
        ([date(2020, 1, 1), date(2020, 1, 2)], [1], "2 dates and 1 values"),
    ],
)
def test_what_has_no_trend(days: list[date], values: list[int], complaint: str) -> None:
    with pytest.raises(CalculationError, match=complaint):
        fit(days, [Fraction(v) for v in values], "logarithmic")


def test_a_trend_beyond_all_numbers() -> None:
    line = fit([date(2020, 1, 1), date(2020, 1, 2)], [Fraction(1), Fraction(10) ** 3000], "logarithmic")
    with pytest.raises(CalculationError, match="leaves all numbers"):
        line.at(date(9999, 1, 1))


@pytest.mark.parametrize(
    "text",
    [
        "2^64 + 1", "15% of 80", "sqrt(2)", "60 km/h to m/s", "mean(1, 2.5, 3)", "0x1F + 0b11", "1e9 * 2E3", "-3!",
        "20 °C to fahrenheit", "3 GiB in MB", "5 kilometers as miles", "2 µm", "7 mod 3", "1,234.5 × 2", "x", "n kg",
    ],
)  # fmt: skip
def test_the_grammar_has_the_words_of_expressions(text: str) -> None:
    names = re.findall(r"[^\W\d_]+", re.sub(r"\b0[xb]\w+|\d[eE]\d", "", text))
    assert bool(re.match(written(), text)) == all(map(is_known, names))


def test_the_grammar_has_every_unit_and_is_short() -> None:
    table, prefixed = units._units()
    made = [
        p + name for p in (*units._PREFIXES, *units._BINARY) for name in prefixed if units._alike(p, name)
    ]
    known = [name for name in (*table, *made) if units.find(name)]
    assert all(re.match(written(), f"2 {name} to {name}") for name in known) and len(known) > 1000
    assert len(written()) < 1200, "it is part of the schema, which other clients read"


@pytest.mark.parametrize(
    "text",
    [
        "amount raised / valuation", "the mean of 3 and 4", "Series D: 155 / 3500", "35 million / 2",
        "amount(3)", "3 x 4",
    ],
)  # fmt: skip
def test_words_of_a_question_are_no_expression(text: str) -> None:
    assert not re.match(written(), text)
