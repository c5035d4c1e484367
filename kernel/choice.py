"""To call or to answer in words: decided once, before a turn's first word.

What: a small model that sees functions calls them whatever it is asked, or writes a call where none can be read.
    `Choice` weighs how much the model itself wants to open a call against whether the question speaks of what the
    syscalls do, and commits the turn to one or the other. A value that is written in signs rather than in words (an
    expression, a date, a file's name) is called for where a syscall's parameter shows one as its example (forms.py).
Invariant: a pure function of the question, the table and one distribution of the model, which is itself a function of
    the window: a turn that is resumed or replayed chooses again as it did. It judges relevance, never permission:
    what may be called is the grants' and the monitor's business.
Interface: `choice_of(identity) -> Choice | None`; `choice.calls(question, syscalls, first)`: those to be called, none
    for words, `first` being the likeliest first words with their log-probabilities, at least `CANDIDATES` of them, and
    `behind` the same behind a `FENCE`; `choice.named(question, syscalls)`: those that a value asks for, else all;
    `choice.left(question, syscalls, made)`: what is still to be called when some calls have their results.

The weights belong to a model's weights: they were fitted by logistic regression on half of the questions of
`benchmarks/bfcl.py`, and the figures come from the other half. A model that has none decides for itself. (The
threshold of the 0.5B: where 79 % of that half's calls that do not fit are withheld, 4 points above what is asked.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from typing import TYPE_CHECKING

from llmos.kernel.forms import takes
from llmos.kernel.heard import Heard, stems

if TYPE_CHECKING:
    from llmos.abi.manifest import Syscall

CANDIDATES = 40
FENCE = "```"
# Of calls, as unpractised models write them: tags, bare JSON, fenced JSON; other fences hold code that was asked for.
_OPENINGS, _FENCED = ("<", "{", FENCE), ("json", "tool")
Likely = Sequence[tuple[str, float]]  # words, with their log-probabilities
_PURPOSES = re.compile(r"[,;:.]|\bor\b")  # what stands between the purposes that a description lists
_FEW = 3  # words of a purpose, at least
_FLOOR = 1e-4  # likelihoods nearer to 0 or 1 say no more


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What each piece of evidence counts: a call is made where their sum is above `threshold`."""

    opening: float  # log-odds of the model's opening a call
    name: float  # share of the words of a syscall's name that the question has
    description: float  # the same of its description
    number: float  # that it needs a number and none was said
    threshold: float
    words: float  # the same where words alone decide

    def calls(
        self, question: str, syscalls: Iterable[Syscall], first: Likely, behind: Likely | None = None
    ) -> list[Syscall]:
        """The syscalls of which one is to be called to answer this question. Without `behind`, every fence is taken for
        a call's."""
        syscalls = list(syscalls)
        if any(takes(s, question) for s in syscalls):
            return self.named(question, syscalls)
        fits = max(self._fit(Heard(question), s) for s in syscalls)
        return syscalls if self.opening * _log_odds(first, behind) + fits > self.threshold else []

    def named(self, question: str, syscalls: Iterable[Syscall]) -> list[Syscall]:
        """The syscalls that a value in the question asks for by its form, with those that its words speak of; all of
        them where no form does."""
        syscalls, heard = list(syscalls), Heard(question)
        found = [s for s in syscalls if takes(s, question)]
        return [s for s in syscalls if s in found or self._fit(heard, s) > self.words] if found else syscalls

    def left(
        self, question: str, syscalls: Iterable[Syscall], made: Sequence[tuple[Syscall, str]]
    ) -> list[Syscall]:
        """The syscalls that the question speaks of in words that no call has answered yet: neither a syscall that was
        called nor what it was called with has them. `made`: the calls so far, each with its arguments as text. What the
        model itself wants says nothing here: behind results a small one always opens another call.
        """
        called = {s.name for s, _ in made}
        answered = stems(" ".join(f"{_spoken(s)} {s.description} {given}" for s, given in made))
        heard = Heard(" ".join(word for word in question.split() if not stems(word) & answered))
        return [s for s in syscalls if s.name not in called and self._fit(heard, s) > self.words]

    def _fit(self, heard: Heard, syscall: Syscall) -> float:
        """How far the words that were heard speak of a syscall."""
        return (
            self.name * heard.share(stems(_spoken(syscall)))
            + self.description * _described(heard, syscall.description)
            + self.number * (_counts(syscall) and not heard.numbers)
        )


_CHOICES = {  # by the identity of the weights (drivers.weights.Weights.identity)
    "2bce23d164710f8c8e8670ac02e522a9": Choice(  # Qwen2.5-Coder-0.5B-Instruct, Q4_K_M
        opening=0.3, name=4.2, description=5.4, number=-2.0, threshold=1.0, words=1.9
    ),
    "44314ab96a54536ab3656807c203049b": Choice(  # Qwen2.5-Coder-1.5B-Instruct, Q4_K_M
        opening=0.7, name=4.2, description=5.4, number=-2.0, threshold=2.8, words=1.9
    ),
}


def choice_of(identity: str) -> Choice | None:
    """How the model of a runner with that identity is helped to choose; None where nobody has measured it."""
    return _CHOICES.get(identity.partition("/")[0])


def _spoken(syscall: Syscall) -> str:
    """A syscall's name as words."""
    return syscall.name.replace(".", " ")


def _counts(syscall: Syscall) -> bool:
    """Whether it cannot be called without a number."""
    described = syscall.parameters.get("properties", {})
    needed = [described.get(name) for name in syscall.parameters.get("required", ())]
    needed += [given.get("items") for given in needed if isinstance(given, Mapping)]
    return any(given.get("type") in ("integer", "number") for given in needed if isinstance(given, Mapping))


def _described(heard: Heard, description: str) -> float:
    """The share of a description's words that were heard. One that lists several purposes is about each of them alone
    ("Run a command: list files, count lines"); but one word that was heard says little, whatever it is a part of."""
    parts = [stems(part) for part in _PURPOSES.split(description)]
    shares = [sum(map(heard.word, part)) / max(_FEW, len(part)) for part in parts]
    return max(heard.share(stems(description)), *shares)


def _log_odds(first: Likely, behind: Likely | None = None) -> float:
    """Of a call's opening, among the likeliest first words."""
    fence = 1.0 if behind is None else _sum(behind, _FENCED)  # the share of its fences that open calls
    likely = _sum(first, _OPENINGS) - (1 - fence) * _sum(first, (FENCE,))
    likely = min(max(likely, _FLOOR), 1 - _FLOOR)
    return log(likely / (1 - likely))


def _sum(words: Likely, beginnings: tuple[str, ...]) -> float:
    """How likely it is that one of these begins a word."""
    return sum(exp(logprob) for text, logprob in words if text.lstrip().lower().startswith(beginnings))
