"""Laying out a window: what a process reads before it answers.

What: from a question, a conversation, retrieved passages and the syscall table to the tokens of a window that fits.
Invariant: the window never exceeds its budget and nothing is cut: what does not fit stays out whole, in the order that
    a policy gives, told as events and by a line in the window; a question that alone does not fit is an error.
Interface: `lay_out(prompt, …, question, …) -> Layout`, `lay_out_messages`, `lay_out_pieces`, `raw`,
    `Layout.dump/load` (for the journal), `resumed`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from llmos.abi.events import Event, PageIn, PageOut
from llmos.abi.labels import USER, Label, dump_label, join, load_label
from llmos.abi.machine import Region
from llmos.kernel import grounding
from llmos.kernel.blending import blended, ends, in_pieces
from llmos.kernel.journal.state import Exchange, Run
from llmos.kernel.prompt import ChatPrompt, Message, Part
from llmos.memory.paging import Held, LeastValue, Policy
from llmos.memory.window import Segment, Window

if TYPE_CHECKING:
    from llmos.drivers.weights import Tokenizer
    from llmos.kernel.engine.gaze import Shares
    from llmos.memory.volume import Passage

DEFAULT_MAX_TOKENS = 512  # of an answer
DEFAULT = LeastValue()
HEAD = 48  # characters of a question outside that a window names
HEADS = 512  # tokens of a window for which it names one of these


@dataclass(frozen=True, slots=True)
class Layout:
    """A window that fits: its tokens, where they came from, and what was read or left out to make it so."""

    tokens: tuple[int, ...]
    labels: tuple[tuple[int, Label], ...]  # runs of (end, label)
    passages: tuple[Passage, ...] = ()
    events: tuple[Event, ...] = ()
    said: tuple[tuple[str, Label], ...] = field(default=(), repr=False)  # the texts, for `monitor.provenance`
    resident: frozenset[int] = frozenset()  # turns of the conversation that stand in it
    pieces: tuple[int, ...] = ()  # ends of those that are put together (`Request.pieces`)
    origins: tuple[tuple[str, str], ...] = ()  # kind and source of each run of `labels`
    adapter: str = ""  # the version that the whole turn is computed with
    words: bool = False  # laid out for an answer in words: what could be called is not in it
    messages: tuple[Message, ...] = field(
        default=(), repr=False
    )  # what was laid out; not kept by the journal

    @property
    def taint(self) -> Label:
        """Of anything that is written after reading this window."""
        return join(label for _, label in self.labels)

    @classmethod
    def of(cls, segments: Sequence[Segment], tokenizer: Tokenizer, **more: Any) -> Layout:
        """The layout of segments in the order in which the model reads them."""
        return replace(cls((), ()).extended((), segments, tokenizer), **more)

    def extended(self, tokens: Sequence[int], segments: Sequence[Segment], tokenizer: Tokenizer) -> Layout:
        """The window after the model wrote `tokens` and `segments` (results) came in."""
        labels, origins = list(self.labels), list(self.origins)
        at = len(self.tokens) + len(tokens)
        if tokens:
            labels.append((at, self.taint))
            origins.append(("assistant", ""))
        for segment in segments:
            at += len(segment)
            labels.append((at, segment.label))
            origins.append((segment.kind, segment.source))
        added = tuple(token for segment in segments for token in segment.tokens)
        said = tuple((tokenizer.decode(s.tokens), s.label) for s in segments)
        return replace(
            self, tokens=(*self.tokens, *tokens, *added), labels=tuple(labels), origins=tuple(origins),
            said=(*self.said, *said),
        )  # fmt: skip

    def after(
        self, tokens: Sequence[int], results: Sequence[int], label: Label, tokenizer: Tokenizer
    ) -> Layout:
        """As `extended`, where all that is known of the results is their tokens and the join of their labels."""
        return self.extended(tokens, [Segment("result", tuple(results), label)], tokenizer)

    def dump(self) -> dict[str, Any]:
        """What a turn needs to go on after a crash, beside the tokens, as JSON."""
        return {
            "labels": [[end, *dump_label(label)] for end, label in self.labels],
            "passages": [{**asdict(p), "label": dump_label(p.label)} for p in self.passages],
            "pieces": list(self.pieces),
            "origins": [list(origin) for origin in self.origins],
            "words": self.words,
            "adapter": self.adapter,
        }

    @classmethod
    def load(cls, tokens: Sequence[int], dumped: Mapping[str, Any], tokenizer: Tokenizer) -> Layout:
        """What `dump` gave, with the tokens of the window."""
        from llmos.memory.volume import Passage

        labels = tuple((end, load_label(rest)) for end, *rest in dumped["labels"])
        passages = tuple(Passage(**{**p, "label": load_label(p["label"])}) for p in dumped["passages"])
        begins = (0, *(end for end, _ in labels))
        said = tuple(
            (tokenizer.decode(tokens[begin:end]), label)
            for begin, (end, label) in zip(begins, labels, strict=False)
        )
        origins = tuple((kind, source) for kind, source in dumped.get("origins", [("", "")] * len(labels)))
        return cls(
            tuple(tokens), labels, passages, (), said, pieces=tuple(dumped.get("pieces", ())), origins=origins,
            words=bool(dumped.get("words", False)), adapter=str(dumped.get("adapter", "")),
        )  # fmt: skip

    def map(self, attention: Shares | None = None) -> list[Region]:
        """The window as stretches of one origin each, in the order in which the model reads them.

        Args:
            attention: what each token had of an answer's attention; those behind the window are the answer's own.
        """
        regions, start = [], 0
        whole = 0.0 if attention is None else float(attention[: len(self.tokens)].sum())
        for (end, label), (kind, source) in zip(self.labels, self.origins, strict=True):
            share = float(attention[start:end].sum()) / whole if attention is not None and whole else None
            regions.append(Region(kind, source, start, end - start, label, share))
            start = end
        return regions


def resumed(layout: Layout, runs: Sequence[Run], tokenizer: Tokenizer) -> tuple[Layout, tuple[int, ...]]:
    """Where the journal left a turn that began with `layout`: the window up to its last results, and the words that
    followed."""
    known: tuple[int, ...] = ()
    for run in runs:
        if run.call is None:
            known += run.tokens
        else:
            layout, known = layout.after(known, run.tokens, run.label, tokenizer), ()
    return layout, known


def raw(text: Sequence[int], budget: int, tokenizer: Tokenizer, label: Label = USER) -> Layout:
    """A window that holds a text alone, to be continued."""
    window = Window(budget)
    window.add(Segment("user", tuple(text), label))
    return Layout.of(window.segments, tokenizer)


def lay_out(
    prompt: ChatPrompt,
    tokenizer: Tokenizer,
    budget: int,
    question: str,
    *,
    label: Label = USER,
    instructions: str = "",
    passages: Sequence[Passage] | None = None,
    conversation: Sequence[Exchange] = (),
    worth: Callable[[Sequence[Exchange]], Sequence[float]] | None = None,
    resident: Collection[int] = (),
    policy: Policy = DEFAULT,
    tools: Sequence[Mapping[str, Any]] = (),
    tools_label: Label = USER,
    blend: bool = False,
    pinned: Callable[[Passage | Exchange], bool] = lambda _: False,
    attention: Callable[[Passage | Exchange], float] = lambda _: 0.0,
) -> Layout:
    """Lay a window of `budget` tokens out; leave out what does not fit.

    Args:
        passages: what retrieval found, the best first; None where nothing is mounted.
        instructions: of the process's expert.
        worth: how much exchanges bear on the question; asked for when not all of them fit.
        resident: the turns that stood in the window before: events tell what changed.
        policy: what leaves first.
        blend: passages stand where what was computed for them can be put together (see blending.py).
        pinned: whether something never leaves.
        attention: what something had of the last answers' attention, 0 to 1.

    Raises:
        WindowOverflow: the question does not fit, with all that is pinned.
    """
    found = list(passages or ())
    items: list[Passage | Exchange] = [*found, *conversation]
    out: set[int] = set()
    leaving: list[int] | None = None  # the last goes first
    held: list[Held] = []
    while True:
        kept = [p for i, p in enumerate(found) if i not in out]
        earlier = [e for i, e in enumerate(conversation, len(found)) if i not in out]
        missing = [e for i, e in enumerate(conversation, len(found)) if i in out]
        messages = _messages(
            question,
            label,
            instructions,
            None if passages is None else kept,
            earlier,
            missing,
            budget // HEADS,
        )
        shown, pieces = kept, 0
        if blend and kept:
            messages, shown, pieces = blended(messages, question, kept)
        segments = prompt.segments(messages, tools, tools_label)
        over = sum(map(len, segments)) - budget
        if over <= 0 or leaving == []:
            break
        if leaving is None:
            held = _held(found, conversation, worth, tokenizer, _frame(prompt), pinned, attention)
            leaving = policy.leaving(held)[::-1]
        while over > 0 and leaving:
            out.add(gone := leaving.pop())
            over -= held[gone].tokens
    window = Window(budget)
    window.add(*segments)
    knowledge = [s for s in window if s.kind == "knowledge"]
    read = [PageIn(p.source, p.position, len(s), s.label) for p, s in zip(shown, knowledge, strict=False)]
    events = [*_moved(items, out, resident, held), *read]
    return Layout.of(
        window.segments, tokenizer, passages=tuple(kept), events=tuple(events),
        resident=frozenset(e.turn for e in earlier), pieces=ends(window, pieces), messages=tuple(messages),
    )  # fmt: skip


def _held(
    passages: Sequence[Passage],
    conversation: Sequence[Exchange],
    worth: Callable[[Sequence[Exchange]], Sequence[float]] | None,
    tokenizer: Tokenizer,
    frame: int,
    pinned: Callable[[Passage | Exchange], bool],
    attention: Callable[[Passage | Exchange], float],
) -> list[Held]:
    """What may leave, with the tokens that it takes; `frame` of them are the template's, of each exchange."""
    values = worth(conversation) if worth is not None else [0.0] * len(conversation)
    knowledge = [
        Held("knowledge", len(tokenizer.encode(p.text)), p.score, age, pinned(p), attention(p))
        for age, p in enumerate(passages)
    ]
    exchanges = [
        Held(
            "exchange",
            len(tokenizer.encode(e.question)) + len(tokenizer.encode(e.answer)) + frame,
            value,
            len(conversation) - 1 - n,
            pinned(e),
            attention(e),
        )
        for n, (e, value) in enumerate(zip(conversation, values, strict=True))
    ]
    return [*knowledge, *exchanges]


def _frame(prompt: ChatPrompt) -> int:
    """Tokens that the template writes around an exchange."""
    asked = Message.of("user", "c")
    exchange = [Message.of("user", "a"), Message.of("assistant", "b")]
    return sum(map(len, prompt.segments([*exchange, asked]))) - sum(map(len, prompt.segments([asked]))) - 2


def _moved(
    items: Sequence[Passage | Exchange], out: Collection[int], resident: Collection[int], held: Sequence[Held]
) -> Iterator[Event]:
    """What left the window, and which exchanges came back."""
    for i, item in enumerate(items):
        if not isinstance(item, Exchange):
            if i in out:
                yield PageOut(item.source, held[i].tokens, "the window is full, and it is worth the least")
        elif i in out and (item.turn in resident or not resident):
            yield PageOut(f"turn {item.turn}", held[i].tokens, f"the window is full: {item.question[:60]!r}")
        elif i not in out and resident and item.turn not in resident and item.turn < max(resident):
            tokens = held[i].tokens if held else 0
            yield PageIn(f"turn {item.turn}", "", tokens, item.label)


def lay_out_pieces(
    prompt: ChatPrompt,
    tokenizer: Tokenizer,
    instructions: str,
    passages: Sequence[Passage],
    tools: Sequence[Mapping[str, Any]] = (),
    tools_label: Label = USER,
) -> Layout:
    """These passages as every blended window of the process would have them: each a piece behind its front."""
    messages = in_pieces(_messages("", USER, instructions, passages, (), (), 0), passages)
    segments = prompt.segments(messages, tools, tools_label)
    return Layout.of(segments, tokenizer, passages=tuple(passages), pieces=ends(segments, len(passages)))


def lay_out_messages(
    prompt: ChatPrompt,
    tokenizer: Tokenizer,
    budget: int,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] = (),
    tools_label: Label = USER,
) -> Layout:
    """A window of exactly these messages.

    Raises:
        WindowOverflow: they do not fit.
    """
    window = Window(budget)
    window.add(*prompt.segments(messages, tools, tools_label))
    return Layout.of(window.segments, tokenizer, messages=tuple(messages))


def _messages(
    question: str,
    label: Label,
    instructions: str,
    passages: Sequence[Passage] | None,
    conversation: Sequence[Exchange],
    missing: Sequence[Exchange],
    heads: int,
) -> list[Message]:
    earlier = [
        message
        for e in conversation
        for message in (
            Message("user", (Part("user", e.question, e.asked, f"turn {e.turn}"),)),
            Message("assistant", (Part("assistant", e.answer, e.label, f"turn {e.turn}"),)),
        )
    ]
    system = instructions or ("" if passages is None else grounding.INSTRUCTIONS)
    head = [Message.of("system", system)] if system else []
    outside = [Part("system", _outside(missing, heads), join(e.asked for e in missing))] if missing else []
    if passages is None:
        return [*head, *earlier, Message("user", (*outside, Part("user", question, label)))]
    knowledge = [
        Part("knowledge", f"{text}\n\n", p.label, f"{p.source}, {p.position}")
        for p, text in zip(passages, grounding.knowledge_text(passages, question), strict=True)
    ]
    asked = Part("user", grounding.question_text(question), label)
    return [*head, *earlier, Message("user", (*outside, *knowledge, asked))]


def _outside(missing: Sequence[Exchange], heads: int) -> str:
    """What a window says of the exchanges that are not in it, naming the last `heads` of them."""
    named = missing[max(len(missing) - heads, 0) :]
    topics = "; ".join(f"turn {e.turn}, {' '.join(e.question.split())[:HEAD]!r}" for e in named)
    return (
        f"({len(missing)} exchanges of this conversation are not shown{': ' if topics else ''}{topics}.)\n\n"
    )
