"""The browser as an app: what it declares, and a turn of a process that was granted it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.browser_set import Site
from llmos.abi.events import Ask, Result
from llmos.abi.manifest import Manifest
from llmos.apps.browser import Browser
from llmos.testing import call, scripted_kernel

__all__ = ["scripted_kernel"]


def test_what_it_declares_is_what_the_monitor_needs() -> None:
    declared = {one.name: one for one in Manifest.of(Browser).syscalls}
    effects = {name.partition(".")[2]: one.effect for name, one in declared.items()}
    assert effects == {
        "open": "fetch", "read": "read", "search": "fetch", "click": "send", "fill": "send", "screenshot": "fetch",
        "links": "read",
    }  # fmt: skip
    assert all(one.returns == "untrusted" for one in declared.values())
    for name in ("open", "click", "fill", "screenshot"):
        assert declared[f"browser.{name}"].targets == ("url",)
    assert declared["browser.fill"].payload == ("text",)
    assert declared["browser.search"].payload == ("query",)
    assert declared["browser.fill"].retry == declared["browser.click"].retry == "never"


@pytest.mark.parametrize("approve", [True, False])
def test_a_page_is_read_and_what_it_says_is_untrusted(
    scripted_kernel: Callable[..., Any], approve: bool
) -> None:
    """The user's own address is opened at once; one that the page names is asked about, with its literal value."""
    with Site({"/": "<h1>Rounds</h1><p>Go to /next", "/next": "<p>Raised: 73 million"}) as site:

        def script(window: str) -> str:
            if "73 million" in window or "not approved" in window:
                return "Done."
            return call("browser.open", url=f"{site.url}/next" if "Rounds" in window else f"{site.url}/")

        kernel = scripted_kernel(
            script, apps={"browser": {"allow": [f"127.0.0.1:{site.port}"]}}, ask=lambda ask: approve
        )
        turn = kernel.spawn(grants=["browser"]).ask(f"What was raised? Look at {site.url}/")
        events = list(turn)
        asked = [event.value for event in events if isinstance(event, Ask)]
        results = [event.ok for event in events if isinstance(event, Result)]
        assert asked == [f"{site.url}/next"]
        assert results == [True, approve]
        assert ("/next" in site.hits) == approve


def test_wrong_settings_are_told_when_it_is_called(scripted_kernel: Callable[..., Any]) -> None:
    kernel = scripted_kernel(
        lambda window: "No." if "apps.browser.alow" in window else call("browser.links"),
        apps={"browser": {"alow": ["x"]}},
    )
    turn = kernel.spawn(grants=["browser"]).ask("Links?")
    failed = [event for event in turn if isinstance(event, Result)]
    assert [event.ok for event in failed] == [False] and "alow" in failed[0].text
