"""A real model gives the same tokens, with the same log-probabilities, alone and beside 31 others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmos.drivers import cpu
from llmos.drivers.weights import Tokenizer, find, open_weights
from llmos.kernel.engine.engine import Engine
from llmos.kernel.engine.runner import ModelRunner
from llmos.kernel.engine.sampling import Greedy, Randomness, Sample, Strategy
from llmos.kernel.engine.sequence import Emitted, Request
from llmos.kernel.model.load import load_model

pytestmark = pytest.mark.skipif(
    not cpu.available(), reason="promised on our CPU kernels, which are not built here"
)

QUESTION = "A kernel is the part of an operating system that"
TEXT = Path(__file__).read_text() * 2
STRATEGIES = {
    "greedy": Greedy(),
    "sampled": Sample(temperature=0.8, top_k=40, top_p=0.95),
    "penalised": Sample(temperature=1.1, min_p=0.02, repetition_penalty=1.1),
}


@pytest.fixture(scope="module")
def loaded(weights_path: Callable[[str], Path]) -> tuple[ModelRunner, Tokenizer]:
    weights = open_weights(find(str(weights_path("smollm2-135m"))))
    return ModelRunner(load_model(weights, window=512), pages=512, window=512), weights.tokenizer()


@pytest.fixture
def engine(loaded: tuple[ModelRunner, Tokenizer]) -> Iterator[Engine]:
    engine = Engine(loaded[0])  # a pool without a past: nothing is found in it
    yield engine
    engine.close()


def request(tokens: list[int], strategy: Strategy, count: int, seed: int) -> Request:
    return Request(
        tokens=tuple(tokens), max_tokens=count, strategy=strategy, randomness=Randomness(seed), top=3
    )


def answers(engine: Engine, tokenizer: Tokenizer) -> dict[str, list[Emitted]]:
    tokens = tokenizer.encode(QUESTION)
    return {
        name: list(engine.submit(request(tokens, strategy, 24, seed=7)))
        for name, strategy in STRATEGIES.items()
    }


@pytest.fixture(scope="module")
def alone(loaded: tuple[ModelRunner, Tokenizer]) -> dict[str, list[Emitted]]:
    engine = Engine(loaded[0])
    found = answers(engine, loaded[1])
    engine.close()
    return found


def test_sampling_is_not_greedy(alone: dict[str, list[Emitted]]) -> None:
    """Else the tests below would show less than they seem to."""
    ids = {name: [item.id for item in answer] for name, answer in alone.items()}
    assert ids["greedy"] != ids["sampled"] != ids["penalised"]


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_same_alone_and_beside_31_others(
    name: str, engine: Engine, loaded: tuple[ModelRunner, Tokenizer], alone: dict[str, list[Emitted]]
) -> None:
    tokenizer = loaded[1]
    text = tokenizer.encode(TEXT)
    kinds = list(STRATEGIES.values())
    # Neighbours of all lengths and ways of sampling; some end while ours runs, and prompts fill several steps.
    others = [
        engine.submit(request(text[i * 11 : i * 11 + 3 + 5 * i], kinds[i % 3], 6 + i, seed=i))
        for i in range(31)
    ]
    mine = list(engine.submit(request(tokenizer.encode(QUESTION), STRATEGIES[name], 24, seed=7)))
    assert all(len(list(other)) == 6 + i for i, other in enumerate(others)), "a neighbour was cut short"
    assert mine == alone[name]


def test_another_seed_gives_other_tokens(
    engine: Engine, loaded: tuple[ModelRunner, Tokenizer], alone: dict[str, list[Emitted]]
) -> None:
    tokens = loaded[1].encode(QUESTION)
    again = list(engine.submit(request(tokens, STRATEGIES["sampled"], 24, seed=8)))
    assert [item.id for item in again] != [item.id for item in alone["sampled"]]
