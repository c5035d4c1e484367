"""`experts`, the system app by which a process asks an expert: a child that answers in its own right.

What: whoever knows the machine's experts, and the syscalls `ask`, `route` (ask whoever is best, by what experts say of
    themselves) and `list`.
Invariant: an expert that is asked has its own instructions, documents and grants, not its asker's, and gives back an
    answer alone, under the labels of all it has read. It acts on the world (`write` and beyond) only where its asker
    may too, so nobody acts through another. Nobody is asked who stands above in the same chain of questions, and a
    chain is short. What it uses, its asker has used. Whom a question goes to is decided by likeness and words, the
    same on every machine, and never by what an answer says.
Interface: `Directory`; `Experts`, one of `kernel.system.SYSTEM`; `narrowed(specialist, asker, syscalls)`;
    `nearest(question, roster, history)`.

The kernel imports no app: who knows the experts comes by an entry point of the group `llmos.experts`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from llmos.abi.app import App, Call, Effect, syscall
from llmos.abi.entries import entries
from llmos.abi.errors import CallDenied
from llmos.abi.labels import join
from llmos.abi.specialist import Specialist
from llmos.kernel.grants import Grant, covers
from llmos.kernel.journal.records import Spawned
from llmos.kernel.ledger import check_quotas
from llmos.kernel.systemcall import SystemCall, here
from llmos.memory.history import History

if TYPE_CHECKING:
    from llmos.abi.config import Config
    from llmos.abi.manifest import Syscall
    from llmos.kernel.kernel import Kernel
    from llmos.kernel.process import Process

GROUP = "llmos.experts"
CHAIN = 4  # experts that ask each other in turn: each waits for the next, and each answer loses something
ACTS: frozenset[Effect] = frozenset({"write", "send", "pay", "destroy", "admin"})


@dataclass(frozen=True, slots=True)
class Profile:
    """What an expert says of itself; `starters` are questions that it shows, `tested` those that it is tested with."""

    description: str
    starters: tuple[str, ...] = ()
    tested: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """All that it says, its description first, with what it shows."""
        return "\n".join((self.description, *self.starters)), *self.starters, *self.tested


Roster = Mapping[str, Profile]


class Directory(Protocol):
    """Who knows the machine's experts. Methods may read files; they are called on a thread of their own."""

    def roster(self) -> Roster:
        """Those that can be asked."""
        ...

    def specialist(self, name: str, syscalls: Mapping[str, Syscall]) -> Specialist:
        """The expert of that name; LLMOSError where there is none, or nobody has agreed to its grants."""
        ...


def directory(config: Config) -> Directory:
    """Who knows the experts here. CallDenied: nobody does."""
    for entry in entries(GROUP).values():
        found: Directory = entry.load()(config)
        return found
    raise CallDenied(
        "nobody here knows any experts", why=f"no entry point of the group {GROUP}", do="install llmos again"
    )


def narrowed(
    specialist: Specialist, asker: Sequence[Grant], syscalls: Mapping[str, Syscall]
) -> tuple[str, ...]:
    """Those of an expert's grants that it has where a process with the grants `asker` asks it: all that look, work
    out and read; of those that act, the ones that the asker has itself."""

    def acts(grant: Grant) -> bool:
        return any(grant.names(name) and s.effect in ACTS for name, s in syscalls.items())

    parsed = [(text, Grant.parse(text)) for text in specialist.grants]
    return tuple(text for text, grant in parsed if not acts(grant) or covers(asker, grant))


def nearest(question: str, roster: Roster, history: History) -> list[str]:
    """The names of a roster, whom a question suits best first; ties by name. A description says what somebody is for,
    and questions what that means, so both count: the description, and whatever is nearest."""
    said = [(name, text) for name, one in sorted(roster.items()) for text in one.texts]
    values = history.relevance(question, [text for _, text in said])
    described: dict[str, float] = {}
    best: dict[str, float] = {}
    for (name, _), value in zip(said, values, strict=True):
        described.setdefault(name, value)
        best[name] = max(value, best.get(name, value))
    return sorted(best, key=lambda name: (-described[name] - best[name], name))


class Experts(App):
    """Experts of this machine: ask one who knows."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._history: History | None = None  # keeps the vectors of what experts say
        self._lock = threading.Lock()  # of the history

    @cached_property
    def _directory(self) -> Directory:
        return directory(self._kernel.config)

    @syscall(effect="none", retry="safe")
    async def list(self, call: Call) -> dict[str, str]:
        """The experts that can be asked, and what each is for."""
        roster = await asyncio.to_thread(lambda: self._directory.roster())
        return {name: one.description for name, one in roster.items()}

    @syscall(effect="none", retry="safe", deadline=600)
    async def route(self, call: Call) -> str:
        """Pass what you were asked on, word for word, to the expert that fits it best; returns its answer."""
        me, kernel = here(call), self._kernel
        question, label = me.process.questions.asked
        if not question:
            raise CallDenied("there is no question to pass on", do="ask an expert by name: experts.ask")
        me.label = join([me.label, label])
        asked = next((c for c in kernel.table.children(me.process.pid) if _answers(c, me)), None)
        if asked is not None:
            return await self._answer(me, asked.expert, question)
        roster = await asyncio.to_thread(lambda: self._directory.roster())
        waiting = _above(kernel, me.process)
        free = {n: one for n, one in roster.items() if n not in waiting and _may_ask(me.process, n)}
        if not free:
            raise CallDenied("there is no expert to ask", do="answer from what you know")
        name = (await asyncio.to_thread(self._nearest, question, free))[0]
        return await self._answer(me, name, question)

    @syscall(effect="none", retry="safe", deadline=600)
    async def ask(self, call: Call, name: str, question: str) -> str:
        """Ask the expert of that name a question; returns its answer. It knows nothing of this conversation."""
        return await self._answer(here(call), name, question)

    def _nearest(self, question: str, roster: Roster) -> Sequence[str]:
        with self._lock:
            self._history = self._history or History(self._kernel.library.encode)
            return nearest(question, roster, self._history)

    async def _answer(self, me: SystemCall, name: str, question: str) -> str:
        """What that expert says."""
        kernel = self._kernel
        expert = await asyncio.to_thread(lambda: self._directory.specialist(name, kernel.syscalls))
        child = _asked_before(kernel, me, name) or await self._spawn(me, expert)
        try:
            if child.questions.count == 0:
                turn = await child.aask(question, label=me.label, detached=True, **expert.options)
                await turn.aresult()
            exchange = await child.asettled()
        finally:
            if not kernel.loop.closing:  # else the child goes on at the next boot, as its asker does
                child.obey("KILL")
                kernel.reap(child)
        if exchange is None:
            raise CallDenied(
                f"the expert {name} gave no answer", do="ask in other words, or go on without it"
            )
        me.read.append(exchange.label)
        return exchange.answer

    async def _spawn(self, me: SystemCall, expert: Specialist) -> Process:
        """A child of the caller that is that expert."""
        kernel, given = self._kernel, me.process.spawned
        above = _above(kernel, me.process)
        if expert.name in above:
            raise CallDenied(
                f"the expert {expert.name} cannot be asked here",
                why=f"it waits for this answer: {' → '.join((*above, expert.name))}",
                do="answer from what you know, or ask another",
            )
        if len(above) >= CHAIN:
            raise CallDenied(
                "no further expert can be asked here",
                why=f"{CHAIN} ask each other already: {' → '.join(above)}",
                do="answer from what you know",
            )
        for mount in expert.mounts:
            await asyncio.to_thread(kernel.library.mount, mount)
        mounts = [mount.dump() for mount in expert.mounts]
        version = await asyncio.to_thread(kernel.adapters.of, expert.name, expert.adapter or None)
        adapters = [version] if version else []
        settings = {
            "asked": me.key, "instructions": expert.instructions, "mounts": mounts, "adapters": adapters,
            "user": given.settings.get("user", ""),
        }  # fmt: skip
        spawned = Spawned(
            me.process.pid, expert.name, given.priority, narrowed(expert, me.process.grants, kernel.syscalls),
            check_quotas(expert.quotas), given.seed, given.path,
            settings={key: value for key, value in settings.items() if value},
        )  # fmt: skip
        return kernel.add(spawned, expert.mounts)


def _asked_before(kernel: Kernel, me: SystemCall, name: str) -> Process | None:
    """The child that answers this very call already: the machine stopped meanwhile."""
    return next(
        (c for c in kernel.table.children(me.process.pid) if _answers(c, me) and c.expert == name), None
    )


def _answers(child: Process, me: SystemCall) -> bool:
    """Whether that child was spawned for this very call."""
    return child.spawned.settings.get("asked") == me.key


def _may_ask(process: Process, name: str) -> bool:
    """Whether a question may go to that expert: where a process is granted `experts.ask` of some, to these."""
    asks = [grant for grant in process.grants if grant.names("experts.ask")]
    return not asks or any(grant.admits("experts.ask", {"name": name}) for grant in asks)


def _above(kernel: Kernel, process: Process) -> list[str]:
    """The experts that wait for this answer, the first asker first."""
    names: list[str] = []
    known = {p.pid: p for p in kernel.table}
    at: Process | None = process
    while at is not None:
        if at.expert and at.expert not in names:
            names.insert(0, at.expert)
        at = known.get(at.parent)
    return names
