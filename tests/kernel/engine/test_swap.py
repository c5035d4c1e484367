"""A sequence that was swapped out goes on to the same tokens: at every point, from every level, whatever is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from llmos.abi.labels import UNTRUSTED
from llmos.drivers import cpu
from llmos.drivers.weights import find, open_weights
from llmos.kernel.engine.engine import Counters, Engine
from llmos.kernel.engine.runner import ModelRunner
from llmos.kernel.engine.sampling import Greedy, Randomness, Sample, Strategy
from llmos.kernel.engine.sequence import BlockingStream, Grammar, Request
from llmos.kernel.model.load import load_model
from llmos.kernel.trace import Trace
from llmos.memory.pages import PageStore
from tests.kernel.engine.scripted import ScriptedRunner, continuation
from tests.kernel.tiny import tiny_model, tiny_runner

PROMPT = tuple(b"Swap is a cache of what was computed; the journal is what is true. ") * 2
SEEDED = Sample(temperature=0.9, top_k=50, top_p=0.95)
needs_kernels = pytest.mark.skipif(not cpu.available(), reason="the CPU kernels are not built here")


@dataclass
class Pressure(Trace):
    """After every `every` steps everyone is swapped out, and the pool forgets what it held."""

    every: int
    after: Callable[[], object] = lambda: None
    engine: Engine | None = None
    steps: int = 0
    forgets: bool = True
    seen: list[bool] = field(default_factory=list)

    def step(self, counters: Counters) -> None:
        engine = self.engine
        if engine is None or counters.steps == self.steps:
            return
        self.steps = counters.steps
        if self.steps % self.every == 0:
            for sequence in engine._sequences:
                engine.swap.out(sequence)
                self.seen.append(sequence.stream.swapped)
            if self.forgets:
                engine.pool.release(engine.pool.allocate(engine.pool.free))
            self.after()


def pressed(runner: object, store: PageStore | None, every: int, **more: object) -> tuple[Engine, Pressure]:
    pressure = Pressure(every, **more)  # type: ignore[arg-type]
    engine = Engine(runner, trace=pressure, store=store)  # type: ignore[arg-type]
    pressure.engine = engine
    return engine, pressure


def read(stream: BlockingStream) -> list[int]:
    return [item.id for item in stream]


@pytest.fixture(scope="module", params=["xla", pytest.param("cpu", marks=needs_kernels)])
def runner(request: pytest.FixtureRequest) -> ModelRunner:
    return tiny_runner(model=tiny_model(backend=request.param))


@pytest.fixture(params=["ram", "disk"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PageStore]:
    sizes = {"ram": (1 << 30, 0), "disk": (0, 1 << 30)}[request.param]
    store = PageStore(tmp_path / "pages", ram=sizes[0], disk=sizes[1])
    yield store
    store.close()


def requests(strategy: Strategy) -> list[Request]:
    """A long prompt, one in the middle of a page, one of a single page."""
    return [
        Request(tokens=PROMPT[:n], max_tokens=40, strategy=strategy, randomness=Randomness(n))
        for n in (len(PROMPT), 41, 9)
    ]


def alone(runner: ModelRunner, strategy: Strategy) -> list[list[int]]:
    """What each of `requests` comes to without neighbours and without swap."""
    said = []
    for request in requests(strategy):
        engine = Engine(runner)
        said.append(read(engine.submit(request)))
        engine.close()
    return said


@pytest.mark.parametrize("strategy", [Greedy(), SEEDED], ids=["greedy", "seeded"])
@pytest.mark.parametrize("every", [1, 2, 3, 7])
def test_swapped_after_every_step_and_nothing_differs(
    runner: ModelRunner, store: PageStore, strategy: Strategy, every: int
) -> None:
    """Among them the steps that compute a chunk of a prompt: it has three times a step's budget."""
    expected = alone(runner, strategy)
    engine, pressure = pressed(runner, store, every)
    streams = [engine.submit(request) for request in requests(strategy)]
    assert [read(s) for s in streams] == expected
    engine.close()
    assert pressure.seen and all(pressure.seen)
    finished = [s.finished for s in streams]
    assert all(f is not None and f.faults > 0 and f.lost == 0 for f in finished)


def test_what_was_computed_is_not_computed_again(runner: ModelRunner, tmp_path: Path) -> None:
    """But for the tokens of a chunk that ended inside of a page; without a store it is, and still the same."""
    (request, *_) = requests(Greedy())
    said, computed = [], []
    for store in (None, PageStore(None, ram=1 << 30, disk=0)):
        engine, _ = pressed(runner, store, 10)
        said.append(read(engine.submit(request)))
        computed.append(engine.counters.tokens)
        engine.close()
    assert said[0] == said[1]
    assert computed[0] > computed[1] + 3 * len(PROMPT)
    assert computed[1] < len(PROMPT) + 40 + 40, "drafts take a few tokens more"


def test_a_sequence_that_cannot_be_swapped_in_at_once_waits_for_room() -> None:
    model_pages = 2 * -(-(len(PROMPT) + 40) // 16) - 2  # two of three do not fit
    cramped = ModelRunner(tiny_model(backend="xla"), pages=model_pages, page=16, window=256, budget=64)
    store = PageStore(None, ram=1 << 30, disk=0)
    expected = [continued(cramped, request) for request in many()]
    engine = Engine(cramped, store=store)
    streams = [engine.submit(request) for request in many()]
    assert [read(s) for s in streams] == expected
    assert engine.counters.preemptions > 0 and engine.swap.faults > 0
    engine.close()


def many() -> list[Request]:
    return [
        Request(tokens=PROMPT[i:], max_tokens=40, strategy=SEEDED, randomness=Randomness(i)) for i in range(4)
    ]


def continued(runner: ModelRunner, request: Request) -> list[int]:
    engine = Engine(runner)
    said = read(engine.submit(request))
    engine.close()
    return said


class Threes:
    """A grammar: tokens that 3 divides, and behind each 30 comes 33."""

    finished = False

    def masks(self, draft: list[int], out: np.ndarray) -> None:
        bits = np.arange(256) % 3 == 0
        out[:] = np.packbits(bits, bitorder="little").view(np.uint32)

    def instead(self, token: int) -> list[int] | None:
        return None

    def accept(self, token: int) -> list[int]:
        return [33] if token == 30 else []


@pytest.mark.parametrize("every", [1, 4])
def test_a_grammar_goes_on_where_it_was(runner: ModelRunner, store: PageStore, every: int) -> None:
    def request() -> Request:
        grammar: Grammar = Threes()
        return Request(tokens=PROMPT, max_tokens=60, grammar=grammar, strategy=SEEDED)

    expected = continued(runner, request())
    assert {token % 3 for token in expected} == {0}
    engine, _ = pressed(runner, store, every)
    assert read(engine.submit(request())) == expected
    engine.close()


@pytest.mark.parametrize("harm", ["cut", "flip", "remove", "swap two"])
def test_damaged_pages_are_computed_again_and_said(runner: ModelRunner, tmp_path: Path, harm: str) -> None:
    folder = tmp_path / "pages"
    store = PageStore(folder, ram=0, disk=1 << 30)

    def damage() -> None:
        store.flush(10)
        files = sorted(p for p in folder.glob("??/*"))
        if harm == "swap two" and len(files) > 1:
            one, other = files[0].read_bytes(), files[1].read_bytes()
            files[0].write_bytes(other)
            files[1].write_bytes(one)
        for path in files[::2] if harm != "swap two" else ():
            blob = bytearray(path.read_bytes())
            if harm == "cut":
                path.write_bytes(blob[: len(blob) // 2])
            elif harm == "remove":
                path.unlink()
            else:
                blob[len(blob) // 2] ^= 1
                path.write_bytes(blob)

    expected = [continued(runner, request) for request in requests(Greedy())]
    engine, _ = pressed(runner, store, 3, after=damage)
    streams = [engine.submit(request) for request in requests(Greedy())]
    assert [read(s) for s in streams] == expected
    lost = sum(s.finished.lost for s in streams if s.finished)
    assert lost == engine.swap.lost == store.counters.damaged
    assert (lost > 0) == (harm != "remove")
    engine.close()
    store.close()


@needs_kernels
def test_a_real_model_goes_on_to_the_same_tokens(weights_path: Callable[[str], Path], tmp_path: Path) -> None:
    """SmolLM2 on the CPU kernels, seeded and greedy beside each other, between disk and pool every few steps."""
    weights = open_weights(find(str(weights_path("smollm2-135m"))))
    real = ModelRunner(load_model(weights, window=512), pages=64, window=512)
    text = tuple(weights.tokenizer().encode(Path(__file__).read_text()))[:200]
    asked = [
        Request(tokens=text, max_tokens=24, strategy=SEEDED, randomness=Randomness(4)),
        Request(tokens=text[:83], max_tokens=24),
    ]
    expected = [continued(real, request) for request in asked]
    store = PageStore(tmp_path / "pages", ram=0, disk=1 << 30)
    engine, pressure = pressed(real, store, 4)
    streams = [engine.submit(request) for request in asked]
    assert [read(s) for s in streams] == expected
    assert pressure.seen and engine.swap.faults > 0 and engine.swap.lost == 0
    engine.close()
    store.close()


def test_a_prefix_is_found_after_a_restart(tmp_path: Path) -> None:
    """By another engine on another pool, once the first has gone down; and not by a model of other weights."""
    (request, *_) = requests(SEEDED)
    expected, cached = [], []
    for name in ("first", "second", "other weights"):
        store = PageStore(tmp_path / "pages", ram=0, disk=1 << 30)
        fresh = ModelRunner(
            tiny_model(backend="xla", seed=name == "other weights"), pages=64, page=16, window=256, budget=64
        )
        engine = Engine(fresh, store=store)
        stream = engine.submit(request)
        expected.append(read(stream))
        assert stream.finished is not None
        cached.append(stream.finished.cached_tokens)
        engine.close(keep=True)
        store.flush(10)
        store.close()
    assert expected[0] == expected[1] != expected[2]
    assert cached == [0, (len(PROMPT) - 1) // 16 * 16, 0]


def test_labels_go_with_pages(tmp_path: Path) -> None:
    """What is stored under one label is not found under another."""
    store = PageStore(None, ram=1 << 20, disk=0)
    prompt, cached = list(range(30)), []
    untrusted = ((30, UNTRUSTED),)
    for labels in ((), (), untrusted, untrusted, ()):
        engine = Engine(ScriptedRunner(), store=store)
        stream = engine.submit(Request(tokens=tuple(prompt), max_tokens=5, labels=labels))
        assert read(stream) == continuation(prompt, 5)
        assert stream.finished is not None
        cached.append(stream.finished.cached_tokens)
        engine.close(keep=True)
    assert cached == [0, 28, 0, 28, 28]


def test_a_cancelled_sequence_forgets_what_is_being_fetched(tmp_path: Path) -> None:
    store = PageStore(tmp_path / "pages", ram=0, disk=1 << 20)
    runner = ScriptedRunner()
    engine, _ = pressed(runner, store, 1)
    streams = [engine.submit(Request(tokens=(i, i + 1) * 10, max_tokens=40)) for i in range(6)]
    for stream in streams[::2]:
        stream.cancel()
    for i, stream in enumerate(streams):
        said = read(stream)
        assert said == continuation([i, i + 1] * 10, 40)[: len(said)]
        assert i % 2 == 0 or len(said) == 40
    engine.close()
    store.close()


def test_a_paused_sequence_is_swapped_out(runner: ModelRunner, tmp_path: Path) -> None:
    store = PageStore(None, ram=1 << 30, disk=0)
    engine = Engine(runner, store=store)
    (request, *_) = requests(Greedy())
    expected = continued(runner, request)
    stream = engine.submit(request)
    said = [item.id for item in islice(stream, 5)]
    stream.pause()
    while not stream.swapped and stream.finished is None:
        pass
    assert engine.pool.leaked == 0
    stream.pause(False)
    assert said + read(stream) == expected
    engine.close()
