"""The kernel that a shell talks to, reached behind its back.

What: boots or attaches on a thread of its own, says how far that is, notices when the kernel has gone, and looks for it
    again.
Invariant: nobody who types waits for it. Who needs the kernel waits, and gets it or the error that kept it from coming.
    A private kernel that has failed to boot is not tried again.
Interface: `Link(reach, again)`: `start`, `kernel`, `task`, `state`, `gone`, `close`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from llmos.abi.errors import EngineError, LLMOSError
from llmos.abi.progress import Progress, Unit

if TYPE_CHECKING:
    from llmos.abi.machine import Machine

LOOK_S = 0.5  # between two looks for a kernel that has gone

Reach = Callable[[Progress], "Machine"]
Again = Callable[[], "Machine | None"]
State = Literal["loading", "ready", "failed", "lost", "closed"]
Change = Literal["ready", "failed", "lost", "back"]


class Link:
    """To one kernel.

    Args:
        reach: boots or attaches; may take long.
        again: attaches to a kernel that runs; None where none does.
        changed: called, on some thread, when the state is another; `back` where a kernel that had gone is there again.
    """

    def __init__(
        self, reach: Reach, again: Again, changed: Callable[[Change], None] = lambda _: None
    ) -> None:
        self._reach, self._again, self.changed = reach, again, changed
        self.state: State = "loading"
        self.task = ""  # what is being done, for a line that says so
        self._kernel: Machine | None = None
        self._error: BaseException | None = None
        self._settled = threading.Event()  # there is a kernel, or an error
        self._closing = threading.Event()

    def start(self) -> None:
        """Begin; returns at once."""
        threading.Thread(target=self._boot, name="llmos-boot", daemon=True).start()

    @property
    def kernel(self) -> Machine:
        """The kernel; waits for it. Raises what kept it from coming, or EngineError while it is gone."""
        if self.state == "lost":
            raise EngineError(
                "the kernel has gone", why="its end of the socket is closed",
                do="start it again in another terminal (`llmos up`); this shell goes on when it is there",
            )  # fmt: skip
        self._settled.wait()
        if self._error is not None:
            raise self._error
        assert self._kernel is not None
        return self._kernel

    @property
    def ready(self) -> bool:
        """Whether `kernel` answers at once."""
        return self.state == "ready"

    @property
    def attached(self) -> bool:
        """Whether the kernel goes on without this shell."""
        return self._kernel is not None and hasattr(self._kernel, "gone")

    def close(self) -> None:
        """Let go of the kernel; ends a private one. One that is still booting is left to the end of this program."""
        self._closing.set()
        kernel, self._kernel = self._kernel, None
        self.state = "closed"
        if kernel is not None:
            kernel.close()

    # -- its threads ---------------------------------------------------------------------------------------------

    def _boot(self) -> None:
        def progress(task: str, done: int, total: int, unit: Unit = "items", /) -> None:
            self.task = f"{task} {done / total:.0%}" if total else task

        try:
            self._take(self._reach(progress))
        except BaseException as error:
            self._error = error
            self._turn("failed")
            self._settled.set()

    def _take(self, kernel: Machine) -> None:
        if self._closing.is_set():
            kernel.close()
            return
        self._kernel, self._error, self.task = kernel, None, ""
        back = self.state == "lost"
        self.state = "ready"
        self._settled.set()
        self.changed("back" if back else "ready")
        if hasattr(kernel, "gone"):
            threading.Thread(target=self._watch, args=(kernel,), name="llmos-watch", daemon=True).start()

    def _watch(self, kernel: Machine) -> None:
        kernel.gone()  # type: ignore[attr-defined]  # of one that this shell is attached to
        if self._closing.is_set():
            return
        self._settled.clear()
        self._turn("lost")
        while not self._closing.wait(LOOK_S):
            try:
                found = self._again()
            except LLMOSError:  # it is starting, or going down
                continue
            if found is not None:
                self._take(found)
                return

    def _turn(self, state: Literal["failed", "lost"]) -> None:
        self.state = state
        self.changed(state)
