"""What a turn was asked, and all that was said before.

What: `Asked` is the question of a turn with everything that its process has heard. Where a whole conversation was given
    in place of a question, `asked_in` reads the user's last words back from the window.
Invariant: a function of the window, so a turn that is resumed was asked the same. Results are nobody's question, though
    templates without a place for them write them down as the user's.
Interface: `Asked`, `asked_in(layout, prompt, tokenizer)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmos.kernel.prompt import Message, Part

if TYPE_CHECKING:
    from llmos.drivers.weights import Tokenizer
    from llmos.kernel.layout import Layout
    from llmos.kernel.prompt import ChatPrompt

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """A question."""

    question: str
    heard: str  # all that was said, the question included, but for instructions and the syscall table
    end: int  # of the window, in tokens, where it is answered at once: what stands behind are calls and results


def asked_in(layout: Layout, prompt: ChatPrompt, tokenizer: Tokenizer) -> Asked | None:
    """The last words of the user in a window; None where there are none."""
    user, result = _openings(prompt, tokenizer)
    tokens, begin = layout.tokens, 0
    found: list[tuple[int, int]] = []
    for end, _ in layout.labels:
        at = _behind(user, tokens[begin:end])
        if at is not None and not (result and tokens[begin + at : end][: len(result)] == result):
            found.append((begin + at, end))
        begin = end
    if not user or not found:
        return None
    (first, _), (start, end) = found[0], found[-1]
    question, heard = tokenizer.decode(tokens[start:end]), tokenizer.decode(tokens[first:])
    behind = [run for run, _ in layout.labels if run > end]
    return Asked(question, heard, len(tokens) if len(behind) == 1 else end)  # one: the opening of the answer


def _openings(prompt: ChatPrompt, tokenizer: Tokenizer) -> tuple[Tokens, Tokens]:
    """What the template writes before a user's words, wherever they stand; and what it writes between that and a
    result, where it writes results down as the user's."""
    mark = Message.of("user", "?")
    content = len(tokenizer.encode("?"))
    segments = prompt.segments([mark, Message.of("assistant", "!"), mark])
    first, second = (s.tokens[:-content] for s in segments if s.kind == "user")
    same = 0
    while same < min(len(first), len(second)) and first[-1 - same] == second[-1 - same]:
        same += 1
    user = first[len(first) - same :]
    results = prompt.results([Part("result", "?")])[0].tokens[:-content]
    at = _behind(user, results)
    return user, () if at is None else results[at:]


def _behind(wanted: Tokens, tokens: Tokens) -> int | None:
    """Where the last `wanted` in `tokens` ends."""
    ends = range(len(tokens), len(wanted) - 1, -1)
    return next((end for end in ends if tokens[end - len(wanted) : end] == wanted), None)
