"""What a turn tells its reader while it runs, and what it leaves behind.

What: the typed events of a turn, and the value records read after it (`Citation`, `Usage`, `Timings`).
Invariant: frozen; every turn ends with exactly one `Done`, unless it raises.
Interface: the dataclasses below. Times are seconds, sizes are tokens unless the name says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from llmos.abi.labels import UNTRUSTED, Label

StopReason = Literal["stop", "length", "cancelled", "error", "calls"]
"""`calls`: the turn ended by calls that whoever asked carries out."""


@dataclass(frozen=True, slots=True)
class Token:
    """Text that became certain with a sampled token; `text` may be empty inside a UTF-8 sequence."""

    text: str
    id: int
    logprob: float | None = None


@dataclass(frozen=True, slots=True)
class PageIn:
    """Knowledge entered the window."""

    source: str
    position: str
    tokens: int
    label: Label = UNTRUSTED


@dataclass(frozen=True, slots=True)
class PageOut:
    """Something left the window; `why` is the policy's reason."""

    source: str
    tokens: int
    why: str


@dataclass(frozen=True, slots=True)
class Call:
    """The model called a syscall; `number` counts the process's calls."""

    number: int
    syscall: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a call, as the model reads it; `ok` is False where `text` is an error. `files` are the paths of
    pictures and files that came with it and lie in the working volume."""

    number: int
    syscall: str
    ok: bool
    text: str
    label: Label = UNTRUSTED
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ask:
    """Somebody has to approve a value before call `number` may happen: the value itself, and why."""

    number: int
    syscall: str
    argument: str
    value: Any
    why: str
    label: Label = UNTRUSTED


@dataclass(frozen=True, slots=True)
class Citation:
    """A chunk that the answer itself names by `[number]`."""

    number: int
    source: str
    position: str
    text: str
    label: Label = UNTRUSTED


@dataclass(frozen=True, slots=True)
class Usage:
    """The ledger of a turn. `faults` are pages that came back from host memory or disk, `lost` those that were damaged
    there and computed again; `thinking_tokens` were written or read beside the answer, by a turn that thought."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    pages: int = 0
    faults: int = 0
    syscalls: int = 0
    citations_dropped: int = 0
    lost: int = 0
    thinking_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Thought:
    """A branch of a turn that thought: an answer, a step towards one, or an answer looked at again.

    Args:
        number: from 1, in the order in which they were begun.
        parent: the thought that it goes on from; 0 for the question.
        text: its own words, the beginning of them where they are many.
        value: how good it looks, 0 to 1; None where nobody said.
        answer: what it comes to, as answers are compared; "" where it comes to none.
        note: what a verifier, or whoever gave it up, said.
    """

    number: int
    parent: int
    kind: Literal["answer", "step", "revision"]
    text: str
    tokens: int
    value: float | None = None
    answer: str = ""
    state: Literal["chosen", "kept", "dropped"] = "kept"
    note: str = ""


@dataclass(frozen=True, slots=True)
class ThoughtTree:
    """How a turn came to its answer: by which strategies, why it stopped, and its branches; `tokens` that were written
    or read beside the window, `seconds` that it took. `evidence`, from 0 to 1, is what the confidence stands on, of the
    kind `basis`: the plain answer's likelihood, votes, or a verifier's word."""

    strategy: str
    why: str
    tokens: int
    seconds: float
    basis: str = ""
    evidence: float = 0.0
    thoughts: tuple[Thought, ...] = ()


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds, and tokens per second after the first token."""

    boot_s: float = 0.0
    first_token_s: float = 0.0
    total_s: float = 0.0
    prefill_tokens_per_s: float = 0.0
    decode_tokens_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Done:
    """The turn is over. `confidence` and `tree` are of turns that thought: how likely the answer is right, and how it
    was come to."""

    answer: str
    reason: StopReason
    citations: tuple[Citation, ...] = ()
    usage: Usage = field(default_factory=Usage)
    timings: Timings = field(default_factory=Timings)
    calls: tuple[Call, ...] = ()
    confidence: float | None = None
    tree: ThoughtTree | None = None


Event = Token | Call | Result | Ask | PageIn | PageOut | Done
