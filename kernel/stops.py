"""Stop texts: end a stream where a text appears, without ever showing a part of it."""

from __future__ import annotations


class StopText:
    """Feed pieces with `push`; what comes back is safe to show. `met` is set once a stop text was found."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = tuple(s for s in stops if s)
        self._held = ""
        self.met = False

    def push(self, piece: str) -> str:
        """Text that is certain not to begin a stop text; "" after one was met."""
        if self.met:
            return ""
        self._held += piece
        found = [i for s in self._stops if (i := self._held.find(s)) >= 0]
        if found:
            self.met = True
            shown, self._held = self._held[: min(found)], ""
            return shown
        keep = max((self._overlap(s) for s in self._stops), default=0)
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown

    def flush(self) -> str:
        """What was held back, once no more can come."""
        shown, self._held = self._held, ""
        return "" if self.met else shown

    def _overlap(self, stop: str) -> int:
        """Length of the longest end of the held text that begins `stop`."""
        return next(
            (n for n in range(min(len(stop) - 1, len(self._held)), 0, -1) if self._held.endswith(stop[:n])), 0
        )
