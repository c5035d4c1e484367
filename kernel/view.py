"""What a process sees: how its windows are laid out.

What: from a question to a window of the process's size, with its syscall table, what retrieval finds in its mounts, and
    what of its conversation bears on the question.
Invariant: room for an answer is left. Nothing here runs on the loop: retrieval and tokenising take their time.
Interface: `View(process)`: `lay_out`, `foreseen`, `table`, `worth`, `knows`, `looked`, `seen`, `size`,
    `fills`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llmos.abi.errors import ConfigError, WindowOverflow
from llmos.abi.labels import USER, Label, join
from llmos.abi.limits import PAGE_TOKENS
from llmos.abi.manifest import Syscall
from llmos.kernel import grounding
from llmos.kernel.layout import DEFAULT_MAX_TOKENS, Layout, lay_out, lay_out_messages, lay_out_pieces, raw
from llmos.kernel.ledger import exceeded
from llmos.kernel.support import about
from llmos.kernel.syscalls import SyscallTable
from llmos.memory.history import History

if TYPE_CHECKING:
    from llmos.kernel.engine.gaze import Shares
    from llmos.kernel.execution import Asking
    from llmos.kernel.journal.state import Exchange
    from llmos.kernel.process import Process
    from llmos.kernel.prompt import Message
    from llmos.memory.volume import Passage

FADED = 0.01  # a share of attention that is forgotten
PAGED_IN = 2.0  # the score of a passage that was asked for by name: above all that retrieval finds


class View:
    """Of one process."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._resident: frozenset[int] = frozenset()  # turns that stood in the last window
        self._before: frozenset[int] = frozenset()  # and in that of the turn before
        self._found: list[Passage] | None = None  # for the question that was laid out last
        self._seen: tuple[Layout, Shares] | None = None  # where the last answer looked that was asked for it
        self._used: dict[str, float] = {}  # what the last answers looked at, by name
        self._history: History | None = None
        self._lock = threading.Lock()  # of the history

    def lay_out(
        self,
        question: str,
        label: Label,
        asking: Asking,
        messages: Sequence[Message] | None = None,
        *,
        words: bool = False,
    ) -> Layout:
        """The window for a question: room is left for the answer, as long as was asked for or at least a short one.
        `words`: what was laid out last is to be answered in words, so the syscall table stays out; what was found for
        it is still what was found. The turn is computed with the adapter that the process has now.

        Raises:
            QuotaExceeded: what has to stand in it does not fit the quota of pages.
            WindowOverflow: nor the kernel's window.
        """
        process = self._process
        adapter = process.adapter
        try:
            return replace(self._laid_out(question, label, asking, messages, words=words), adapter=adapter)
        except WindowOverflow as overflow:
            if self.size < process.kernel.window:
                raise exceeded("pages", process.ledger.limit("pages")) from overflow
            raise

    def _laid_out(
        self, question: str, label: Label, asking: Asking, messages: Sequence[Message] | None, *, words: bool
    ) -> Layout:
        process, kernel = self._process, self._process.kernel
        if asking.raw:
            return raw(kernel.raw_tokens(question), self._budget(asking), kernel.tokenizer, label)
        if messages is not None:
            tools, described = self._described(None if words else self.table(asking), asking)
            return lay_out_messages(
                kernel.prompt, kernel.tokenizer, self._budget(asking), messages, tools, described
            )
        if not words:
            self._before = self._resident
            self._found = self._passages(question) if process.mounts else None
        layout = self._fitted(question, label, asking, self._found, words=words)
        self._resident = layout.resident
        return replace(layout, words=words)

    def foreseen(self, question: str, asking: Asking) -> Layout:
        """The window as it would be for a question that may be asked; nothing of it is remembered."""
        process = self._process
        found = self._passages(question) if process.mounts and question.strip() else []
        layout = self._fitted(question, USER, asking, found if process.mounts else None)
        return replace(layout, adapter=process.adapter)

    def in_pieces(self, passages: Sequence[Passage], asking: Asking) -> Layout:
        """These passages as a blended window of this process would put them together."""
        process = self._process
        tools, described = self._described(self.table(asking), asking)
        instructions = str(process.spawned.settings.get("instructions", ""))
        layout = lay_out_pieces(
            process.kernel.prompt, process.kernel.tokenizer, instructions, passages, tools, described
        )
        return replace(layout, adapter=process.adapter)

    def _budget(self, asking: Asking) -> int:
        whole = self.size
        return max(whole - (asking.max_tokens or min(DEFAULT_MAX_TOKENS, whole // 2)), 1)

    def _described(
        self, table: SyscallTable | None, asking: Asking
    ) -> tuple[Sequence[Mapping[str, Any]], Label]:
        """The syscalls as a window describes them, and the label of that."""
        if table is None:
            return (), USER
        apps = self._process.kernel.apps
        return table.tools, USER if asking.tools else join(map(apps.label_of, table.syscalls))

    def _fitted(
        self, question: str, label: Label, asking: Asking, found: list[Passage] | None, *, words: bool = False
    ) -> Layout:
        """The window for a question, with these passages."""
        process, kernel, placed = self._process, self._process.kernel, self._placed
        tools, described = self._described(None if words else self.table(asking), asking)
        return lay_out(
            kernel.prompt,
            kernel.tokenizer,
            self._budget(asking),
            question,
            label=label,
            instructions=str(process.spawned.settings.get("instructions", "")),
            passages=found,
            conversation=[e for e in process.conversation if placed.get(f"turn {e.turn}") != "out"],
            worth=lambda exchanges: self.worth(question, exchanges),
            resident=self._before,
            tools=tools,
            tools_label=described,
            blend=self.blends,
            pinned=lambda item: self._place(item) == "pinned",
            attention=lambda item: self._used.get(names_of(item)[0], 0.0),
        )

    @property
    def blends(self) -> bool:
        """Whether its knowledge is put together of pieces."""
        return self._process.spawned.settings.get("fidelity") == "blend"

    @property
    def _placed(self) -> Mapping[str, str]:
        """What the owner has said about things that can be read: reference -> place."""
        found: Mapping[str, str] = self._process.spawned.settings.get("placed", {})
        return found

    def _place(self, item: Passage | Exchange) -> str:
        placed = self._placed
        names = names_of(item)
        return next((placed[name] for name in names if name in placed), "")

    def _passages(self, question: str) -> list[Passage]:
        """What was paged in by its owner, then what retrieval finds but for what was paged out."""
        process, library = self._process, self._process.kernel.library
        named = [
            replace(passage, score=PAGED_IN)
            for reference, place in self._placed.items()
            if place != "out" and not reference.startswith("turn ")
            for passage in library.named(process.mounts, reference)
        ]
        if self.blends:  # what is a little far may stand there too: it costs next to nothing
            found = library.search(question, process.mounts, grounding.BLENDED)
        else:
            near = library.search(question, process.mounts, grounding.PASSAGES * grounding.LOOKED_AT)
            found = about(question, near)[: grounding.PASSAGES]
        one_each = {(p.source, p.position): p for p in [*found, *named]}
        return [p for p in one_each.values() if self._place(p) != "out"]

    def knows(self, reference: str) -> bool:
        """Whether there is something of that name to page in or out."""
        process = self._process
        return any(f"turn {e.turn}" == reference for e in process.conversation) or (
            bool(process.mounts) and bool(process.kernel.library.named(process.mounts, reference))
        )

    def worth(self, question: str, exchanges: Sequence[Exchange]) -> list[float]:
        """How much earlier exchanges bear on a question."""
        with self._lock:
            self._history = self._history or History(self._process.kernel.library.encode)
            return self._history.relevance(question, [f"{e.question}\n{e.answer}" for e in exchanges])

    def looked(self, layout: Layout, attention: Shares) -> None:
        """Take note of what an answer looked at: that is worth keeping, and with each answer that did not half as much.
        It is a hint of this kernel's life, which no record keeps."""
        self._seen = layout, attention
        found: dict[str, float] = {}
        for region in layout.map(attention):
            if region.source:
                found[region.source] = found.get(region.source, 0.0) + (region.attention or 0.0)
        whole = sum(found.values()) or 1.0
        kept = {name: share / 2 for name, share in self._used.items() if share > FADED}
        self._used = kept | {name: kept.get(name, 0.0) + share / whole / 2 for name, share in found.items()}

    def seen(self, layout: Layout) -> Shares | None:
        """Where the answer behind that window looked, as far as that is known."""
        return self._seen[1] if self._seen is not None and self._seen[0] is layout else None

    @property
    def size(self) -> int:
        """Tokens that a window may hold."""
        return min(self._process.kernel.window, self._process.ledger.limit("pages") * PAGE_TOKENS)

    def fills(self, tokens: int) -> bool:
        """Whether a window of so many tokens has used the quota of pages up."""
        return tokens >= self._process.ledger.limit("pages") * PAGE_TOKENS

    def table(self, asking: Asking) -> SyscallTable | None:
        """The syscalls of a turn: what was granted, or what the asker carries out; None for none."""
        process, kernel = self._process, self._process.kernel
        if asking.raw or asking.choice == "none":
            return None
        if asking.tools:
            found = [Syscall.model_validate(tool) for tool in asking.tools]
            named = [s for s in found if asking.choice in (s.name, "auto", "required")]
            if not named:
                names = ", ".join(s.name for s in found)
                raise ConfigError(
                    f"there is no tool {asking.choice!r} to choose", do=f"choose one of {names}"
                )
            return SyscallTable(named, kernel.tokenizer)
        if not process.grants:
            return None
        granted = [s for s in kernel.syscalls.values() if any(g.names(s.name) for g in process.grants)]
        return SyscallTable(granted, kernel.tokenizer) if granted else None


def names_of(item: Passage | Exchange) -> tuple[str, ...]:
    """What something that can be read is called, the narrower name first."""
    if hasattr(item, "turn"):
        return (f"turn {item.turn}",)
    return (f"{item.source}, {item.position}", item.source)
