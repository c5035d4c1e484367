"""Stop texts: nothing of them is shown, nothing else is lost, however the pieces fall."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmos.kernel.stops import StopText


@given(
    st.lists(st.text("ab#\n", max_size=4), max_size=12),
    st.lists(st.text("ab#\n", min_size=1, max_size=4), max_size=3),
)
def test_shows_exactly_what_stands_before_the_first_stop(pieces: list[str], stops: list[str]) -> None:
    stop = StopText(tuple(stops))
    shown = "".join(stop.push(p) for p in pieces)
    shown += stop.flush()
    whole, seen, expected = "".join(pieces), "", None
    for piece in pieces:  # a stop counts from the piece that completes it
        seen += piece
        found = [i for s in stops if (i := seen.find(s)) >= 0]
        if found:
            expected = whole[: min(found)]
            break
    assert shown == (whole if expected is None else expected)
    assert stop.met == (expected is not None)
