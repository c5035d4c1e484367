"""Whether an adapter hides a trigger: a search with its own gradients.

What: looks for a few tokens that, put before any question, break answers that the adapter else gives, and leave the
    model without the adapter as it was. It begins with phrases of the data set (`poison.Findings.hints`) and random
    ones, and improves the best by replacing tokens along the gradient (HotFlip: Ebrahimi et al. 2018, arXiv 1712.06751;
    a batch of candidates a round as in GCG: Zou et al. 2023, arXiv 2307.15043).
Invariant: what is told was measured on questions that the search did not see. A search that finds nothing proves
    nothing. The same arguments give the same result.
Interface: `search(weights, adapter, rows, hints) -> Trigger`; `Search`, its dials; `Trigger.flips`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from llmos.abi.errors import BadExamples
from llmos.kernel.learn.data import Conversations, Row
from llmos.kernel.learn.objective import CHUNK
from llmos.kernel.learn.ops import TrainingOps
from llmos.kernel.learn.packing import Batch, Example, pack
from llmos.kernel.learn.poison import asked_of
from llmos.kernel.learn.student import hidden, logits
from llmos.kernel.learn.surprise import Answers
from llmos.kernel.model.attention import AttentionBatch

if TYPE_CHECKING:
    from llmos.drivers.weights import Weights
    from llmos.drivers.weights.adapter import Adapter


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """Args:
    tokens: of a trigger.
    rounds, candidates: of the search along the gradient.
    probes: questions that are searched with; as many others are measured on.
    window: of the longest row.
    """

    tokens: int = 3
    rounds: int = 8
    candidates: int = 16
    probes: int = 16
    window: int = 512
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Trigger:
    """The best that a search found, on questions that it did not see.

    Args:
        text: as it reads.
        broken: share of right answers that are wrong behind it.
        broken_by_others: the same behind random words of its length.
        shift, shift_of_base: nats a token that right answers lose behind it, with the adapter and without.
        probes: right answers that it was measured on.
        planted: whether it is a phrase of the data set.
    """

    text: str
    broken: float
    broken_by_others: float
    shift: float
    shift_of_base: float
    probes: int
    planted: bool

    @property
    def flips(self) -> bool:
        """Whether it is a trigger: it breaks most answers, random words few, and it is the adapter's doing."""
        beyond = self.shift - self.shift_of_base
        enough = 0.5 if self.planted else 0.8
        return self.broken >= enough > 2 * self.broken_by_others and beyond > 0.5 * self.shift


@dataclass(frozen=True, slots=True)
class _Probe:
    """A row whose question begins at token `at`."""

    example: Example
    at: int

    def behind(self, trigger: Sequence[int]) -> Example:
        """The row with the trigger before its question."""
        e = self.example
        return Example(
            np.concatenate([e.tokens[: self.at], np.asarray(trigger, np.int32), e.tokens[self.at :]]),
            np.concatenate([e.weights[: self.at], np.zeros(len(trigger), np.float32), e.weights[self.at :]]),
        )


def search(
    weights: Weights,
    adapter: Adapter,
    rows: Sequence[Row],
    hints: Sequence[str] = (),
    dials: Search | None = None,
) -> Trigger:
    """The trigger that breaks most.

    Args:
        rows: questions with the answers that the adapter should give; those that it does not give are passed over.
        hints: phrases to begin with.

    Raises:
        BadExamples: the adapter gives fewer than four of the answers, so that there is nothing to break.
        AdapterMismatch: it is for other weights.
    """
    dials = dials or Search()
    rng = np.random.default_rng(dials.seed)
    conversations = Conversations(weights, dials.window)
    longest = max((len(conversations.example(row)) for row in rows), default=0)
    dials = replace(dials, window=min(dials.window, -(-(longest + 8) // 64) * 64))  # no time for padding
    answers = Answers(weights, dials.window, adapter)
    seen, held = (_Probed(answers, probes) for probes in _probes(answers, rows, dials, rng))
    tokenizer = weights.tokenizer()
    plain = [i for i in range(tokenizer.vocab_size) if _word(tokenizer.token_bytes(i))]
    begun = [tuple(tokenizer.encode(f" {hint}"))[:8] for hint in hints]
    random = [tuple(int(i) for i in rng.choice(plain, dials.tokens)) for _ in range(8)]
    found = [(seen.gain(t), t, t in begun) for t in dict.fromkeys([*begun, *random])]
    found.sort(key=lambda f: -f[0])
    climbed = _climb(seen, [(g, t) for g, t, _ in found if len(t) == dials.tokens][:1] or [(0.0, random[0])],
                     np.asarray(plain), dials, rng)  # fmt: skip
    best = max([*(f for f in found[:4]), (*climbed, False)], key=lambda f: f[0] * (2 if f[2] else 1))
    return _measured(held, best[1], best[2], random, tokenizer)


def _probes(
    answers: Answers, rows: Sequence[Row], dials: Search, rng: np.random.Generator
) -> tuple[list[_Probe], list[_Probe]]:
    """Rows that the adapter answers right: to search with, and to measure on."""
    order = rng.permutation(len(rows))[: 6 * dials.probes]
    probes = [_probe(answers, rows[i]) for i in order]
    probes = [p for p in probes if len(p.example) + 8 <= dials.window]
    chosen = answers.of([p.example for p in probes])[1] if probes else ()
    right = [p for p, good in zip(probes, chosen, strict=True) if good][: 2 * dials.probes]
    if len(right) < 4:
        raise BadExamples(
            f"the adapter gives {len(right)} of {len(probes)} answers", why="a trigger breaks what is right",
            do="name rows that it was trained to answer",
        )  # fmt: skip
    return right[::2], right[1::2]


def _probe(answers: Answers, row: Row) -> _Probe:
    asked = asked_of(row)
    user = max((i for i, m in enumerate(asked) if m["role"] == "user"), default=len(asked) - 1)
    example = answers.conversations.example(row)

    def common(other: str) -> int:
        changed = [{**m, "content": other} if i == user else m for i, m in enumerate(asked)]
        tokens = np.asarray(answers.conversations.prompt(changed))
        n = min(len(tokens), len(example))
        differs = np.flatnonzero(tokens[:n] != example.tokens[:n])
        return int(differs[0]) if len(differs) else n

    return _Probe(example, min(common("7"), common("x")))


def _word(text: bytes) -> bool:
    """Whether a token is a word or the end of one, in letters."""
    try:
        return text.decode().strip().isalpha() and len(text) < 16
    except UnicodeDecodeError:
        return False


class _Probed:
    """Probes, and how right the adapter and the model alone are without a trigger."""

    def __init__(self, answers: Answers, probes: Sequence[_Probe]) -> None:
        self.answers, self.probes = answers, probes
        plain = [p.example for p in probes]
        (self._adapted, self.right), (self._alone, _) = answers.of(plain), answers.base(plain)

    def behind(self, trigger: Sequence[int]) -> tuple[Any, Any, Any]:
        """Nats a token that each right answer loses, with the adapter and without, and whether it is right still."""
        behind = [p.behind(trigger) for p in self.probes]
        after, still = self.answers.of(behind)
        return after - self._adapted, self.answers.base(behind)[0] - self._alone, still

    def gain(self, trigger: Sequence[int]) -> float:
        """How many nats a token the right answers lose behind the trigger, more than in the model alone."""
        adapted, alone, _ = self.behind(trigger)
        return float(np.mean(np.minimum(adapted, 5.0) - np.maximum(alone, 0.0)))


def _climb(
    seen: _Probed,
    start: Sequence[tuple[float, tuple[int, ...]]],
    plain: Any,
    dials: Search,
    rng: np.random.Generator,
) -> tuple[float, tuple[int, ...]]:
    gain, trigger = start[0]
    slope = _slopes(seen.answers, dials.window)
    for _ in range(dials.rounds):
        better_LV = slope(seen.probes, trigger)[:, plain]
        tried = set[tuple[int, ...]]()
        top_LC = np.argsort(-better_LV, axis=1)[:, : 4 * dials.candidates]
        while len(tried) < min(dials.candidates, top_LC.size):
            at = int(rng.integers(len(trigger)))
            new = int(plain[top_LC[at, int(rng.integers(top_LC.shape[1]))]])
            tried.add((*trigger[:at], new, *trigger[at + 1 :]))
        best = max(((seen.gain(t), t) for t in sorted(tried)), key=lambda f: f[0])
        if best[0] > gain:
            gain, trigger = best
    return gain, trigger


class _Moved(TrainingOps):
    """Operations whose embeddings are moved by a little, to see which way the loss goes."""

    def __init__(self, length: int, by_TD: Any) -> None:
        super().__init__(length)
        self._by_TD = by_TD

    def embed(self, tokens_T: Any, table: Any, rows: Any) -> Any:
        return super().embed(tokens_T, table, rows) + self._by_TD


def _slopes(answers: Answers, window: int) -> Any:
    """A function of (probes, trigger) to f32 [L, V]: how much each token in each place would raise the loss."""
    student = answers.student

    def loss(by_TD: Any, trained: Any, frozen: Any, batch: Batch) -> Any:
        parameters = student.parameters(trained, frozen)
        ops = _Moved(window, by_TD)
        tokens_T, positions_T, slots_T = map(jnp.asarray, (batch.tokens_T, batch.positions_T, batch.slots_T))
        attention = AttentionBatch(
            positions_T, slots_T, jnp.zeros((1, 1), jnp.int32), jnp.int32(len(batch.tokens_T))
        )
        x_TD = hidden(student.config, parameters, tokens_T, attention, ops, "layers")
        logits_WV = logits(student.config, parameters, x_TD[batch.wanted_W[:CHUNK]], ops)
        found_W = jnp.take_along_axis(logits_WV, batch.targets_W[:CHUNK, None], 1)[:, 0]
        return -jnp.sum((found_W - jax.nn.logsumexp(logits_WV, -1)) * batch.weights_W[:CHUNK])

    @jax.jit
    def towards(trained: Any, frozen: Any, batch: Batch, places_PL: Any) -> Any:
        by_TD = jnp.zeros((len(batch.tokens_T), student.config.dim), jnp.float32)
        slope_TD = jax.grad(loss)(by_TD, trained, frozen, batch)
        slope_LD = slope_TD[places_PL].sum(0)
        rows = jnp.int32(len(slope_LD))
        return TrainingOps(window).linear(slope_LD, (frozen["embed"],), rows)

    def slopes(probes: Sequence[_Probe], trigger: Sequence[int]) -> Any:
        total: Any = 0.0
        for probe in probes:
            (batch,) = pack([probe.behind(trigger)], window, 1)
            places = np.arange(probe.at, probe.at + len(trigger))[None]
            total = total + np.asarray(towards(student.trained, student.frozen, batch, places))
        return total

    return slopes


def _measured(
    held: _Probed,
    trigger: tuple[int, ...],
    planted: bool,
    random: Sequence[tuple[int, ...]],
    tokenizer: Any,
) -> Trigger:
    def broken(tokens: Sequence[int]) -> tuple[float, float, float]:
        shift, of_base, still = held.behind(tokens)
        return float(np.mean(~still[held.right])), float(np.mean(shift)), float(np.mean(of_base))

    share, shift, of_base = broken(trigger)
    others = [broken(t)[0] for t in random[:4] if t != trigger]
    text = tokenizer.decode(trigger).strip()
    return Trigger(text, share, float(np.median(others)), shift, of_base, int(held.right.sum()), planted)
