"""The interpreter: Python that a model writes, in a sandbox, with variables that stay.

What: `interpreter.run` and `interpreter.reset`. Each agent has a session of its own, in a process of its own; its
    files are those of its working volume.
Invariant: code runs behind all layers of `llmos.drivers.sandbox`, or not at all. A cell that raises or takes too long
    is an error result, with all that it printed. A session that is lost is reported lost, at once or, where the machine
    went down, with the next cell: nothing is run twice in order to rebuild it.
Interface: `Interpreter`, `CellFailed`. Configuration: the keys of `Limits`, under `apps: interpreter:` in `llmos.yaml`.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from llmos.abi.app import App, Call, Image, Text, query, syscall
from llmos.abi.errors import AppError, AppFailed
from llmos.abi.settings import settings
from llmos.apps.interpreter.session import Cell, Session
from llmos.drivers.sandbox import Limits

__all__ = ["CellFailed", "Interpreter"]

MARK = ".llmos-interpreter"  # in the working volume, which does not show such names: what outlives a session

Parts = list[Text | Image]


class CellFailed(AppError):
    """A cell that raised, or was stopped at its limit. Variables are kept, files are as it left them."""


class Interpreter(App, stateful=True, settings=Limits):
    """Python with numpy, pandas, scipy, matplotlib and sympy."""

    def __init__(self) -> None:
        self._limits = settings("interpreter", Limits)
        self._session: Session | None = None
        self._lock = threading.Lock()

    @syscall(effect="execute", retry="query", deadline=660)
    def run(
        self,
        code: Annotated[
            str,
            'a program that prints the answer; a file such as "data.csv" is read with pandas',
            Field(json_schema_extra={"contentMediaType": "text/x-python"}),
        ],
        call: Call,
    ) -> Parts:
        """Run Python code: read files, calculate, count, sort, plot."""
        volume = _volume(call)
        with self._lock:
            note = self._begin(volume)
            assert self._session is not None
            _mark(volume, key=call.key, cells=self._session.number + 1)
            try:
                cell = self._session.run(code, lambda: call.cancelled)
            except BaseException as error:
                if self._session.ended:
                    self._session = None
                cells = 0 if self._session is None else self._session.number
                _mark(volume, key=call.key, cells=cells, text=str(error), failed=True)
                raise
            text = note + _words(cell, self._limits)
            failed = cell.stopped or cell.error is not None
            encoded = [base64.b64encode(figure).decode() for figure in cell.figures]
            _mark(volume, key=call.key, cells=cell.number, text=text, figures=encoded, failed=failed)
        if failed:
            raise CellFailed(text)
        return _parts(text, cell.figures)

    @query(run)
    def ran(self, key: str, call: Call) -> Parts:
        """What came of a cell whose result was lost; nothing where it never began."""
        mark = _marked(volume := _volume(call))
        if mark.get("key") != key:
            return []
        if mark.get("failed"):
            raise CellFailed(mark["text"])
        if "text" in mark:
            return _parts(mark["text"], map(base64.b64decode, mark.get("figures", ())))
        _mark(volume, cells=0)
        return [
            Text(
                "The machine stopped while this ran. The Python session and its variables are gone; files may "
                "have been changed in part. Look at them before you run it again."
            )
        ]

    @syscall(effect="execute", retry="safe")
    def reset(self, call: Call) -> str:
        """Forget all Python variables; files stay."""
        with self._lock:
            self.close()
            _mark(_volume(call), cells=0)
        return "A new Python session. Files are kept."

    def close(self) -> None:
        """End the session."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _begin(self, volume: Path) -> str:
        """See to it that there is a session; what is to be told about it."""
        if self._session is not None and not self._session.ended:
            return ""
        self.close()
        lost = _marked(volume).get("cells", 0)
        self._session = Session(self._limits, volume)
        if not lost:
            return ""
        return (
            "[This is a new Python session: the one before ended, and with it all variables and imports of its "
            f"{lost} cells. Files are kept.]\n"
        )


def _volume(call: Call) -> Path:
    if call.volume is None:
        raise AppFailed("there is no folder to work in", do="call it from a process of the kernel")
    return call.volume


def _words(cell: Cell, limits: Limits) -> str:
    """A cell's result as a model reads it."""
    lines = [cell.output.rstrip("\n")] if cell.output.strip() else []
    if cell.stopped:
        lines.append(f"Stopped after {limits.seconds:g} s; variables are kept.")
    if cell.error is not None and not cell.stopped:
        lines.append(cell.error)
    if cell.value is not None:
        lines.append(cell.value)
    if told := cell.changes.words():
        lines.append(f"[{told}]")
    if not lines:
        lines.append(f"Done; {len(cell.figures)} drawn." if cell.figures else "Done; nothing was printed.")
    return "\n".join(lines)


def _parts(text: str, figures: Iterable[bytes]) -> Parts:
    return [Text(text), *map(Image, figures)]


def _mark(volume: Path, **what: Any) -> None:
    (volume / MARK).write_text(json.dumps(what))


def _marked(volume: Path) -> dict[str, Any]:
    try:
        found = json.loads((volume / MARK).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
