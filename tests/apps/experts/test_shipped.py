"""What ships is whole: files that can be read, grants that are there and agreed to, tests enough, files that exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmos.apps.experts.expert import paths_of
from llmos.apps.experts.grants import Consents, granted, syscalls
from llmos.apps.experts.shelf import Shelf, shipped_names

NAMES = sorted(shipped_names())


def test_those_that_ship() -> None:
    assert {"analyst", "assistant", "coder", "librarian", "operator", "researcher", "router"} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_whole_and_agreed_to_as_it_ships(name: str, shelf: Shelf) -> None:
    expert = shelf.find(name)
    known = syscalls(shelf.config)
    grants = granted(expert, known, Consents(shelf.state), None)  # nobody is asked
    assert all(any(one.startswith(s) for s in known) for one in grants)
    assert bool(grants) == bool(expert.manifest.grants)
    assert all(Path(path).exists() for _, path in paths_of(expert.manifest))
    assert expert.manifest.starters and expert.manifest.tests


@pytest.mark.parametrize("name", ["analyst", "assistant", "coder", "librarian", "researcher"])
def test_it_has_tests_of_its_own_and_none_twice(name: str, shelf: Shelf) -> None:
    asked = [case.ask for case in shelf.find(name).manifest.tests]
    assert len(asked) >= 15 and len(set(asked)) == len(asked)
