"""Nothing from outside acts on the terminal; bars and charts say what is."""

from __future__ import annotations

import io
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from llmos.drivers.terminal import Bar, chart, neutralise, table


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@given(st.text())
def test_no_control_character_is_left(text: str) -> None:
    safe = neutralise(text)
    assert len(safe) == len(text)
    assert all(c in "\n\t" or unicodedata.category(c) != "Cc" for c in safe)
    assert neutralise(safe) == safe


@given(st.text(), st.text())
def test_neutralising_piece_by_piece_is_the_same(one: str, two: str) -> None:
    assert neutralise(one) + neutralise(two) == neutralise(one + two)


def test_what_escapes_become() -> None:
    assert neutralise("\x1b]52;c;aGk=\x07 \x9b2J \r\u202eabc") == "␛]52;c;aGk=␇ \ufffd2J ␍\ufffdabc"
    assert neutralise("a\tb\nc é 漢 👋🏽") == "a\tb\nc é 漢 👋🏽"


def test_a_chart_keeps_its_proportions() -> None:
    lines = chart([("mat", 0.5), ("a\x1b\n", 0.25), ("x", 0.0)], width=60)
    assert [line.count("█") for line in lines] == [22, 11, 0]
    assert lines[0].startswith("mat   50.0%")
    assert "\x1b" not in "".join(lines)
    assert chart([]) == []


def test_a_bar_on_a_terminal_ends_its_line() -> None:
    out = Tty()
    bar = Bar(out)
    for done in (0, 50, 100, 100):
        bar("fetching \x1b[31mm", done, 100, "bytes")
    bar("indexing", 0, 0)
    bar.close()
    bar.close()
    text = out.getvalue()
    assert "100% of 100 B" in text
    assert "\x1b[31m" not in text
    assert text.count("\n") == 2
    assert text.endswith("\n")


def test_a_bar_in_a_log_is_one_line_a_task() -> None:
    out = io.StringIO()
    bar = Bar(out)
    for done in range(0, 2_000_001, 1000):
        bar("fetching", done, 2_000_000, "bytes")
    bar("indexing", 3, 3)
    bar.close()
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("fetching: 2.0 MB in ")
    assert lines[1].startswith("indexing: 3 in ")


def test_a_table_is_aligned() -> None:
    assert table([("a", "bb"), ("ccc", "d\x07")]) == ["a    bb", "ccc  d␇"]
