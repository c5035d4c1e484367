"""An app like the web for the kernel's tests: gives back what somebody else wrote."""

from __future__ import annotations

from llmos.abi.app import App, Call, syscall


class Web(App, name="web"):
    """The web."""

    @syscall(effect="fetch", retry="safe")
    def page(self, call: Call) -> str:
        """The text of the page."""
        assert call.volume is not None
        return (call.volume / "page").read_text("utf-8")
