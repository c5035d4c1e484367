"""Nothing from outside acts on the terminal; bars and charts say what is."""

from __future__ import annotations

import io
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from llmos.drivers.terminal import Bar, chart, columns, neutralise, table


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


def test_a_bar_in_a_log_tells_what_takes_long() -> None:
    out, now = io.StringIO(), [100.0]
    bar = Bar(out, clock=lambda: now[0])
    for done in range(41):
        bar("fetching", done * 1000, 40_000, "bytes")
        now[0] += 1.0
    bar("quick", 0, 3)
    bar("quick", 3, 3)
    bar("waiting", 0, 0)
    now[0] += 20
    bar("waiting", 0, 0)
    bar.close()
    assert out.getvalue().splitlines() == [
        "fetching: 15.0 KB of 40.0 KB after 15 s",
        "fetching: 30.0 KB of 40.0 KB after 30 s",
        "fetching: 40.0 KB in 40.0 s",
        "waiting: 0 after 20 s",
    ]


def test_a_table_keeps_its_last_column_within_the_terminal() -> None:
    rows = [("name", "about"), ("ann", "one two three four five six"), ("漢字", "漢字 漢字 漢字 漢字 漢字")]
    lines = table(rows, 26)
    assert lines == [
        "name  about", "ann   one two three four", "      five six", "漢字  漢字 漢字 漢字 漢字", "      漢字",
    ]  # fmt: skip
    assert all(columns(line) <= 26 for line in lines)
    assert table(rows, 12) == table(rows), "too narrow to read in: the terminal wraps it"
    assert table([("a", "x" * 99)], 40) == ["a  " + "x" * 99], "a word is never cut"


def test_a_table_is_aligned() -> None:
    assert table([("a", "bb"), ("ccc", "d\x07")]) == ["a    bb", "ccc  d␇"]


def test_wide_characters_take_two_columns() -> None:
    assert [columns(text) for text in ("abc", "漢字", "👋🏽", "e\u0301", "")] == [3, 4, 2, 1, 0]
    rows = table([("漢字", "x"), ("abcde", "y")])
    assert rows == ["漢字   x", "abcde  y"]
    lines = chart([("漢", 0.5), ("ab", 0.5)], width=40)
    assert lines[0].removeprefix("漢") == lines[1].removeprefix("ab")
