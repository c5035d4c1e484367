"""Questions that come together are served together, and nobody waits for company."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from llmos.memory.together import Together


class Server:
    """Doubles numbers; what it is asked while it is held waits. Negative numbers are none."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append(sorted(numbers))
        self.begun.set()
        assert self.go.wait(60)
        if min(numbers) < 0:
            raise ValueError(min(numbers))
        return [2 * n for n in numbers]


@pytest.fixture
def server() -> Server:
    return Server()


def all_wait(together: Together[int, int], count: int) -> None:
    deadline = time.monotonic() + 60
    while len(together._waiting) < count:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_one_alone_is_served_at_once(server: Server) -> None:
    server.go.set()
    together = Together(server)
    assert [together.ask(3), together.ask(4)] == [6, 8]
    assert server.batches == [[3], [4]]


def test_who_waits_is_served_with_the_others(server: Server) -> None:
    together = Together(server)
    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(together.ask, 0)
        assert server.begun.wait(60)
        later = [pool.submit(together.ask, n) for n in (1, 2, 3, 3)]
        all_wait(together, 4)
        server.go.set()
        assert [asked.result(60) for asked in (first, *later)] == [0, 2, 4, 6, 6]
    assert server.batches == [[0], [1, 2, 3, 3]]


def test_who_asks_for_what_fails_gets_the_error_alone(server: Server) -> None:
    together = Together(server)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(together.ask, 0)
        assert server.begun.wait(60)
        later = {n: pool.submit(together.ask, n) for n in (1, -7, 2)}
        all_wait(together, 3)
        server.go.set()
        assert first.result(60) == 0
        with pytest.raises(ValueError, match="-7"):
            later[-7].result(60)
        assert [later[n].result(60) for n in (1, 2)] == [2, 4]
