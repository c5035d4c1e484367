"""`memory`, the system app of what lies outside of a window: documents, the conversation's past, notes.

What: a process asks for what is not resident (a fault), and keeps notes that outlive it.
Invariant: what is read carries the label it was stored with into the window; a note carries the label of everything its
    writer had read. A process reaches its own mounts, its own conversation, and the notes of its expert and its
    user alone.
Interface: `Memory`, one of `kernel.system.SYSTEM`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from llmos.abi.app import App, Call, syscall
from llmos.abi.errors import CallDenied
from llmos.kernel.systemcall import here
from llmos.memory.notes import Note

if TYPE_CHECKING:
    from llmos.kernel.journal.state import Exchange
    from llmos.kernel.kernel import Kernel
    from llmos.kernel.process import Process
    from llmos.memory.volume import Passage

FOUND = 4  # of a search
HEAD = 300  # characters of each that it shows


class Memory(App):
    """Documents, the earlier conversation, and notes."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    @syscall(effect="none", retry="safe")
    async def search(self, call: Call, query: str) -> str:
        """Search the documents and the earlier conversation; gives references that `memory.read` reads."""
        process = here(call).process
        lines = []
        for reference, passage in await self._passages(call, query):
            here(call).read.append(passage.label)
            lines.append(f"[{reference}] {passage.source}, {passage.position}: {_head(passage.text)}")
        exchanges = process.conversation
        values = await asyncio.to_thread(process.view.worth, query, exchanges)
        for place in sorted(range(len(exchanges)), key=lambda i: -values[i])[:FOUND]:
            exchange = exchanges[place]
            here(call).read.append(exchange.label)
            lines.append(f"[turn {exchange.turn}] {_head(_said(exchange))}")
        return "\n".join(lines) or "nothing was found"

    @syscall(effect="none", retry="safe")
    async def read(self, call: Call, reference: str) -> str:
        """Read what a reference names: a turn of this conversation ("turn 3"), a note ("note 2") or a passage."""
        process = here(call).process
        kind, _, number = reference.strip().strip("[]").partition(" ")
        if kind == "turn":
            for exchange in process.conversation:
                if str(exchange.turn) == number:
                    here(call).read.append(exchange.label)
                    return _said(exchange)
        elif kind == "note" and _is_number(number):
            expert, user = _owner(process)
            found_note = self._kernel.library.notes.get(int(number), expert=expert, user=user)
            if found_note is not None:
                here(call).read.append(found_note.label)
                return found_note.text
        elif kind == "passage":
            volume, _, chunk = number.partition("-")
            if _is_number(volume) and _is_number(chunk) and int(volume) < len(process.mounts):
                mount = process.mounts[int(volume)]
                found = await asyncio.to_thread(self._kernel.library.passages, mount, [int(chunk)])
                if found:
                    here(call).read.append(found[0].label)
                    return f"{found[0].source}, {found[0].position}\n{found[0].text}"
        raise CallDenied(
            f"there is no {reference!r} to read", do="take a reference that `memory.search` gave"
        )

    @syscall(effect="write", retry="keyed", returns="user")
    async def note(
        self, call: Call, text: Annotated[str, Field(max_length=4000), "in a sentence or two"]
    ) -> str:
        """Keep a fact for later conversations."""
        process = here(call).process
        origin = f"process {process.pid}, turn {process.questions.count}"
        kept = self._kernel.library.notes.add(
            Note(text, here(call).label, origin, *_owner(process)),
            key=f"{self._kernel.machine_id}/{here(call).key}",
        )
        return f"kept as note {kept.number}"

    @syscall(effect="none", retry="safe")
    async def recall(self, call: Call, query: str = "") -> str:
        """Notes of earlier conversations that bear on a query; the newest where it is empty."""
        process = here(call).process
        (expert, user), search = _owner(process), self._kernel.library.notes.search
        notes = await asyncio.to_thread(lambda: search(query, expert=expert, user=user, k=FOUND))
        here(call).read.extend(note.label for note in notes)
        return "\n".join(f"[note {note.number}] {note.text}" for note in notes) or "there are no notes"

    @syscall(effect="destroy", retry="safe", returns="user")
    async def forget(self, call: Call, number: int) -> str:
        """Remove a note for good."""
        expert, user = _owner(here(call).process)
        done = self._kernel.library.notes.forget(number, expert=expert, user=user)
        return "forgotten" if done else "there is no such note"

    async def _passages(self, call: Call, query: str) -> list[tuple[str, Passage]]:
        process = here(call).process
        if not process.mounts:
            return []
        found = await asyncio.to_thread(self._kernel.library.search, query, process.mounts, FOUND)
        return [(f"passage {passage.volume}-{passage.chunk_id}", passage) for passage in found]


def _owner(process: Process) -> tuple[str, str]:
    """Whose notes a process keeps and finds: of which expert and which user."""
    return process.expert, str(process.spawned.settings.get("user", ""))


def _is_number(text: str) -> bool:
    """Of a row that SQLite can have."""
    return text.isdecimal() and len(text) < 19


def _said(exchange: Exchange) -> str:
    return f"user: {exchange.question}\nyou: {exchange.answer}"


def _head(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= HEAD else f"{line[:HEAD]}…"
