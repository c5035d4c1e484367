"""The monitor: the one place that allows, denies or asks.

What: a pure function over (what a syscall is declared to do, what the process was granted, the arguments with
    their labels, what the window has read) to a decision.
Invariant: it looks at labels, never at what words say: a model that was talked into something stands before the
    same rule. Whoever is asked approves a literal value for one syscall, not a kind of action.
Interface: `decide(call, grants, taint, policy, approved) -> Allow | Deny | Ask`; `Policy`, `Attempt`, `provenance`.

The rule is that of information flow: integrity for what steers an effect (Biba 1977), readers for what leaves
with it (Denning 1976); for agents see FIDES (Costa et al. 2025, arXiv 2505.23643) and CaMeL (Debenedetti et al.
2025, arXiv 2503.18813).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from llmos.abi.app import Effect
from llmos.abi.labels import USER, Integrity, Label
from llmos.kernel.grants import Grant

if TYPE_CHECKING:
    from llmos.abi.manifest import Syscall

NEEDED: Mapping[Effect, Integrity] = {  # how far the words must be believed that choose an effect's target
    "none": Integrity.UNTRUSTED, "read": Integrity.UNTRUSTED, "execute": Integrity.UNTRUSTED,
    "fetch": Integrity.STORE, "write": Integrity.STORE,
    "send": Integrity.USER, "pay": Integrity.USER, "destroy": Integrity.USER, "admin": Integrity.USER,
}  # fmt: skip
LEAVES = frozenset({"fetch", "send", "pay", "admin"})  # effects that carry their payload out of the machine


@dataclass(frozen=True, slots=True)
class Policy:
    """What the machine's owner allows beforehand: `hosts` may be fetched from, whoever named them."""

    hosts: tuple[str, ...] = ()

    def trusts(self, effect: Effect, value: object) -> bool:
        """Whether `value` may be the target of `effect` without anybody being asked."""
        host = urlsplit(str(value)).hostname or ""
        return effect == "fetch" and any(fnmatchcase(host, pattern) for pattern in self.hosts)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A call that a process wants to make: its arguments, and where each of their words came from."""

    syscall: Syscall
    arguments: Mapping[str, object]
    labels: Mapping[str, Label] = field(default_factory=dict)  # of arguments; one that is missing is USER


@dataclass(frozen=True, slots=True)
class Allow:
    """It may happen."""


@dataclass(frozen=True, slots=True)
class Deny:
    """It may not; `why` is told to the process."""

    why: str


@dataclass(frozen=True, slots=True)
class Doubt:
    """A value that somebody has to approve: what it is, for which argument, and why it is not simply taken."""

    argument: str
    value: object
    label: Label
    why: str

    @property
    def key(self) -> tuple[str, str]:
        """What an approval is for."""
        return self.argument, value_key(self.value)


def value_key(value: object) -> str:
    """A literal value as approvals remember it."""
    return json.dumps(value, sort_keys=True)


@dataclass(frozen=True, slots=True)
class Ask:
    """It may happen once every doubt is approved."""

    doubts: tuple[Doubt, ...]


Decision = Allow | Deny | Ask
Approved = frozenset[tuple[str, str, str]]  # (syscall, argument, value as JSON)


def decide(
    attempt: Attempt, grants: Iterable[Grant], taint: Label, policy: Policy, approved: Approved = frozenset()
) -> Decision:
    """May this call happen?

    Args:
        grants: of the process.
        taint: the label of everything that its window has read.
        approved: values that somebody has approved before.
    """
    syscall, arguments = attempt.syscall, attempt.arguments
    if not any(grant.admits(syscall.name, arguments) for grant in grants):
        return Deny(f"{syscall.name} with these arguments was not granted to this process")
    if taint == USER:
        return Allow()
    needed, doubts = NEEDED[syscall.effect], list[Doubt]()
    targets = {name: arguments[name] for name in syscall.targets if name in arguments}
    for name, value in targets.items():
        label = attempt.labels.get(name, USER)
        if label.integrity < needed and not policy.trusts(syscall.effect, value):
            doubts.append(Doubt(name, value, label, f"it was chosen by {_words(label)} words"))
    if syscall.effect in LEAVES:
        recipients = frozenset(map(str, targets.values()))
        for name in syscall.payload or arguments:
            label = attempt.labels.get(name, USER)
            meant = recipients and label.readers is not None and recipients <= label.readers
            if name in arguments and label.readers is not None and not meant:
                readers = ", ".join(sorted(label.readers)) or "nobody"
                doubts.append(Doubt(name, arguments[name], label, f"it may be read by {readers} only"))
    doubts = [d for d in doubts if (syscall.name, *d.key) not in approved]
    return Ask(tuple(doubts)) if doubts else Allow()


def _words(label: Label) -> str:
    return {Integrity.UNTRUSTED: "untrusted", Integrity.STORE: "stored"}[label.integrity]


def provenance(value: object, said: Iterable[tuple[str, Label]], taint: Label) -> Label:
    """The label of an argument that a model wrote: the taint of all it has read; but where the very value stands
    in what somebody said, it is as good as the best of those who said it. Its readers are never widened.

    Only whole words count, and only texts and numbers; `said` is what stands in the window, with its labels.
    """
    text = value if isinstance(value, str) else json.dumps(value)
    if isinstance(value, (str, int, float)) and not isinstance(value, bool) and text.strip():
        whole = re.compile(rf"(?<![\w.@/:-]){re.escape(text)}(?![\w@/:-]|\.\w)")
        found = [label.integrity for words, label in said if text in words and whole.search(words)]
        if found:
            return Label(max(found), taint.readers)
    return taint
