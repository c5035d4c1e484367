"""Ctrl-C, heard wherever it strikes.

What: a handler of SIGINT that does not lose it.
Invariant: an interrupt either reaches the code that runs as a KeyboardInterrupt, or ends the process. Python
    only prints an exception that strikes inside a destructor or a garbage collector's callback (jax has one), and
    a library may wrap it into an error of its own: both are noticed here.
Interface: `Interrupts().install()`; `caused(error)`, whether an error is an interrupt in disguise. Three within
    two seconds end the process at once.
"""

from __future__ import annotations

import os
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

INTERRUPTED = 130
_PATIENCE = 2.0  # seconds
_AGAIN = 0.02  # seconds after which a lost interrupt strikes again


class Interrupts:
    """See the module."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def install(self) -> None:
        """Takes SIGINT over, and SIGALRM, which repeats a lost one."""
        signal.signal(signal.SIGINT, self._struck)
        signal.signal(signal.SIGALRM, self._strike)
        self._hook, sys.unraisablehook = sys.unraisablehook, self._unraisable

    def caused(self, error: BaseException) -> bool:
        """Whether `error` came of an interrupt: by its chain of causes, or because one struck just now."""
        link: BaseException | None = error
        while link is not None:
            if isinstance(link, KeyboardInterrupt):
                return True
            link = link.__cause__ or link.__context__
        return bool(self._times) and time.monotonic() - self._times[-1] < _PATIENCE

    def _struck(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        self._times = [t for t in self._times if now - t < _PATIENCE] + [now]
        if len(self._times) > 2:
            os._exit(INTERRUPTED)
        raise KeyboardInterrupt

    def _strike(self, signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def _unraisable(self, lost: sys.UnraisableHookArgs) -> None:
        if lost.exc_type is KeyboardInterrupt:
            signal.setitimer(signal.ITIMER_REAL, _AGAIN)
        else:
            self._hook(lost)
