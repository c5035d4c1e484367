"""Ctrl-C, heard wherever it strikes.

What: a handler of SIGINT that does not lose it.
Invariant: an interrupt either reaches the code that runs as a KeyboardInterrupt, or ends the process. It waits for
    a module that is being imported: one in C++ that is interrupted takes the process along (jaxlib's do). Python
    only prints an exception that strikes inside a destructor or a garbage collector's callback (jax has one), and
    a library may wrap it into an error of its own: both are noticed here.
Interface: `Interrupts().install()`; `caused(error)`, whether an error is an interrupt in disguise; `end()`. Three
    within two seconds end the process at once.
"""

from __future__ import annotations

import os
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

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

    def end(self) -> NoReturn:
        """End the process, as one that was interrupted ends. Python's own way out waits for threads and takes apart
        what C++ may still be at (packing weights, compiling): now and then it ends in an abort."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        try:
            sys.stdout.flush()
            sys.stderr.write("\nllmos: interrupted\n")
            sys.stderr.flush()
        finally:
            os._exit(INTERRUPTED)

    def _struck(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        self._times = [t for t in self._times if now - t < _PATIENCE] + [now]
        if len(self._times) > 2:
            os._exit(INTERRUPTED)
        self._strike(signum, frame)

    def _strike(self, signum: int, frame: FrameType | None) -> None:
        if _importing(frame):
            signal.setitimer(signal.ITIMER_REAL, _AGAIN)
        else:
            raise KeyboardInterrupt

    def _unraisable(self, lost: sys.UnraisableHookArgs) -> None:
        if lost.exc_type is KeyboardInterrupt:
            signal.setitimer(signal.ITIMER_REAL, _AGAIN)
        else:
            self._hook(lost)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
