"""What holds in every test of the engine: no page is leaked, and nobody reads a page that was freed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llmos.kernel.engine import engine as module
from llmos.kernel.engine.pages import PagePool


@pytest.fixture(autouse=True)
def pools_end_empty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Engines are made in debug mode, which fills freed pages with NaN; their pools must be empty in the end."""
    made: list[PagePool] = []

    def pool(pages: int, page: int, identity: str) -> PagePool:
        made.append(PagePool(pages, page, identity))
        return made[-1]

    monkeypatch.setenv("LLMOS_DEBUG", "1")
    monkeypatch.setattr(module, "PagePool", pool)
    yield
    assert [p.leaked for p in made] == [0] * len(made)
