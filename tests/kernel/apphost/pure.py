"""A pure app, for calls inside of the kernel's process."""

from __future__ import annotations

import os
import time

from llmos.abi.app import App, syscall


class Pure(App, pure=True):
    """Depends on nothing but its arguments, or so it says."""

    @syscall(effect="none")
    def process(self) -> int:
        """Where it runs."""
        return os.getpid()

    @syscall(effect="none")
    def fail(self) -> int:
        """Raises."""
        raise ArithmeticError

    @syscall(effect="none")
    def spin(self) -> int:
        """Does not stop for a while."""
        time.sleep(4)
        return 1
