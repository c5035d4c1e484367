"""Apps that each break one rule, and one that keeps them all."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from llmos.abi.app import App, Call, Payload, Target, query, syscall
from llmos.abi.errors import AppError


class GoodError(AppError):
    """An error that says what is wrong."""


class Good(App, secrets=("token",)):
    """Keeps every rule."""

    @syscall(effect="none", retry="safe")
    def add(
        self, one: int, two: Annotated[int, Field(ge=0, le=9)] = 1, kind: Literal["sum", "gap"] = "sum"
    ) -> int:
        """Add two numbers."""
        return one + two if kind == "sum" else one - two

    @syscall(effect="read", retry="safe")
    def look(self, name: str, call: Call) -> str:
        """Read a note."""
        call.secret("token")
        assert call.volume is not None
        file = call.volume / "note.txt"
        if name != "note" or not file.exists():
            raise GoodError(f"there is no note {name[:20]!r}", do="ask for note")
        return file.read_text()

    @syscall(effect="write", retry="safe")
    def keep(self, text: Annotated[str, Target], call: Call) -> str:
        """Keep a note."""
        assert call.volume is not None
        (call.volume / "note.txt").write_text(text)
        return "kept"

    @syscall(effect="read", retry="safe")
    def wait(self, seconds: Annotated[float, Field(ge=0, le=1)], call: Call) -> str:
        """Wait."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not call.cancelled:
            time.sleep(0.01)
        return "waited"


class Undescribed(App):
    @syscall(effect="none")
    def add(self, x: int) -> int:
        """Add one."""
        return x + 1


class Writes(App):
    """Says that it computes, and writes."""

    @syscall(effect="none", retry="safe")
    def note(self, call: Call) -> str:
        """Compute."""
        assert call.volume is not None
        (call.volume / "log").write_text("x")
        return "done"


class WritesUnseen(App):
    """Says that it reads, and has another program write."""

    @syscall(effect="read", retry="safe")
    def note(self, call: Call) -> str:
        """Read."""
        assert call.volume is not None
        program = f"open({str(call.volume / 'seen')!r}, 'a').write('x')"
        subprocess.run([sys.executable, "-I", "-S", "-c", program], check=True)
        return "done"


class CallsHome(App):
    """Says that it reads, and reaches out."""

    @syscall(effect="read", retry="safe")
    def weather(self, city: str) -> str:
        """Read the weather."""
        with socket.socket() as s:
            s.settimeout(1)
            s.connect_ex(("127.0.0.1", 9))
        return f"fine in {city[:20]}"


class NoTarget(App):
    """Fetches from wherever it is told, and says nothing of it."""

    @syscall(effect="fetch", retry="safe", returns="user")
    def get(self, url: str) -> str:
        """Fetch a page."""
        return url[:20]


class Tells(App, secrets=("token",)):
    """Tells its secret when something goes wrong."""

    @syscall(effect="none", retry="safe")
    def try_it(self, call: Call) -> str:
        """Try."""
        raise GoodError(f"it does not work with {call.secret('token')}")


class Trips(App):
    """Raises what nobody means to raise."""

    @syscall(effect="none", retry="safe")
    def first(self, words: list[str]) -> str:
        """The first of some words."""
        return words[0]


class Lies(App):
    """Returns another type than it promises."""

    @syscall(effect="none", retry="safe")
    def count(self) -> int:
        """Count."""
        return "three"  # type: ignore[return-value]


class Ends(App):
    """Takes its process along."""

    @syscall(effect="none", retry="safe")
    def leave(self) -> int:
        """Leave."""
        os._exit(3)


class Floods(App):
    """Returns more than anybody takes."""

    @syscall(effect="none", retry="safe")
    def many(self) -> str:
        """Much text."""
        return "x" * (20 << 20)


class Grows(App):
    """Returns a hundred times what it is given."""

    @syscall(effect="none", retry="safe")
    def repeat(self, text: str) -> str:
        """Repeat a text."""
        return text * 100


class Slow(App):
    """Takes longer than it says."""

    @syscall(effect="none", retry="safe", deadline=0.3)
    def think(self, call: Call) -> str:
        """Think."""
        end = time.monotonic() + 60
        while time.monotonic() < end and not call.cancelled:
            time.sleep(0.01)
        return "thought"


class Stubborn(App):
    """Does not stop."""

    @syscall(effect="none", retry="safe", deadline=60)
    def count(self) -> int:
        """Count."""
        time.sleep(12)
        return 1


class Shares(App):
    """Keeps what it works on in itself, without a lock."""

    def __init__(self) -> None:
        self._working = 0
        self._lock = threading.Lock()

    @syscall(effect="none", retry="safe")
    def work(self) -> int:
        """How many work here now."""
        with self._lock:
            self._working += 1
        time.sleep(0.3)
        seen = self._working
        time.sleep(0.3)
        with self._lock:
            self._working -= 1
        return seen


class Twice(App):
    """Promises that a key counts once, and forgets it."""

    def __init__(self) -> None:
        self._count = 0

    @syscall(effect="write", retry="keyed")
    def add(self, note: Annotated[str, Target]) -> int:
        """Add a note; returns how many there are."""
        self._count += 1
        return self._count


class KnowsAll(App):
    """Its companion knows keys that nobody used."""

    @syscall(effect="send", retry="query")
    def send(self, to: Annotated[str, Target], text: Annotated[str, Payload]) -> str:
        """Send a letter."""
        return f"sent to {to}"

    @query(send)
    def sent(self, key: str) -> str | None:
        """What came of it."""
        return "sent"


class TripsAtTheStart(App):
    """Leaves a lock that a second start trips over."""

    def __init__(self) -> None:
        lock = Path(os.environ.get("HOME", "/")) / ".trips-lock"
        if lock.exists():
            raise RuntimeError("another one runs")
        lock.touch()

    @syscall(effect="none", retry="safe")
    def work(self) -> str:
        """Work."""
        return "done"
