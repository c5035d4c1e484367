"""The drafter alone: longest match first, as long as it pays."""

from __future__ import annotations

from llmos.kernel.engine.draft import Drafter


def test_what_followed_the_longest_match_is_proposed() -> None:
    text = [1, 2, 3, 4, 5, 6, 7, 8, 9, 3, 20, 21, 22, 30, 1, 2, 3]
    assert Drafter(8).propose(text, 4) == [4, 5, 6, 7], "after 1 2 3, not after 9 3"
    assert Drafter(8).propose(text, 2) == [4, 5]
    assert Drafter(0).propose(text, 4) == []
    assert Drafter(8).propose([1, 2, 3], 4) == []
    assert Drafter(8).propose([], 4) == []


def test_a_longer_match_is_trusted_further() -> None:
    text = list(range(20))
    assert (
        len(Drafter(8).propose([*text, 2, 3, 4, 5, 6], 8)) > len(Drafter(8).propose([*text, 99, 5, 6], 8)) > 0
    )


def test_what_always_went_on_alike_is_trusted_further() -> None:
    alike, unlike = (
        [3, 4, 5, 6, 7, 8, 9, 10, 3, 4, 5, 6, 7, 8, 9, 10],
        [3, 4, 5, 6, 7, 8, 9, 10, 3, 4, 9, 6, 7],
    )
    assert Drafter(8).propose([*alike, 50, 3, 4], 8) == [5, 6, 7, 8]
    assert Drafter(8).propose([*unlike, 50, 3, 4], 8) == [5]


def test_of_one_token_the_last_place_counts() -> None:
    text = [1, 7, 20, 21, 2, 7, 30, 31, 3, 7]
    assert Drafter(8).propose(text, 8) == [30]
    assert Drafter(8).propose([1, 7, 20, 21, 2, 7, 20, 22, 3, 7], 8) == [20, 21, 2], (
        "always the same: the first"
    )


def test_guesses_that_come_true_grow_and_those_that_do_not_end() -> None:
    text = [*range(20), 99, 5, 6]
    good, bad = Drafter(8), Drafter(8)
    for _ in range(12):
        if found := good.propose(text, 8):
            good.learn(len(found), len(found))
        if found := bad.propose(text, 8):
            bad.learn(len(found), 0)
    assert len(good.propose(text, 8)) == 8
    assert bad.propose(text, 8) == []


def test_a_text_that_changes_its_ways_is_tried_again() -> None:
    drafter, text = Drafter(8), [*range(20), 99, 5, 6]
    while found := drafter.propose(text, 8):
        drafter.learn(len(found), 0)
    assert any(drafter.propose(text, 8) for _ in range(300))


def test_what_was_indexed_stays_right_while_the_text_grows() -> None:
    drafter, text = Drafter(8), [7, 8, 9]
    for token in (1, 2, 7, 8, 9):
        drafter.propose(text, 8)
        text.append(token)
    assert drafter.propose(text, 2) == [1, 2]
