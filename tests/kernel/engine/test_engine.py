"""The engine's logic on a scripted device: the one rule, preemption, cancelling, errors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from llmos.abi.errors import EngineError, GrammarError, PoolExhausted
from llmos.abi.labels import UNTRUSTED, USER, Label
from llmos.abi.limits import MAX_UNREAD
from llmos.kernel.engine.draft import ROW
from llmos.kernel.engine.engine import Engine, deliver
from llmos.kernel.engine.sequence import BlockingStream, Emitted, Item, Request, Stream
from llmos.kernel.scheduler import Priority
from tests.kernel.engine.scripted import ScriptedRunner, continuation


@pytest.fixture
def runner() -> ScriptedRunner:
    return ScriptedRunner()


@pytest.fixture
def engine(runner: ScriptedRunner) -> Iterator[Engine]:
    engine = Engine(runner)
    yield engine
    engine.close()
    assert engine.pool.leaked == 0


def read(stream: BlockingStream) -> list[int]:
    return [item.id for item in stream]


def ask(engine: Engine, tokens: list[int], count: int, **more: object) -> BlockingStream:
    return engine.submit(Request(tokens=tuple(tokens), max_tokens=count, **more))  # type: ignore[arg-type]


def test_continues_a_prompt(engine: Engine) -> None:
    stream = ask(engine, [1, 2, 3], 10)
    assert read(stream) == continuation([1, 2, 3], 10)
    assert stream.finished is not None and stream.finished.reason == "length"


def test_stop_token_ends_without_being_emitted(engine: Engine) -> None:
    expected = continuation([5], 10)
    stream = ask(engine, [5], 10, stop=frozenset({expected[4]}))
    assert read(stream) == expected[:4]
    assert stream.finished is not None and stream.finished.reason == "stop"


def test_a_long_prompt_is_chunked_by_the_budget(engine: Engine, runner: ScriptedRunner) -> None:
    prompt = [i % 97 for i in range(50)]
    assert read(ask(engine, prompt, 3)) == continuation(prompt, 3)
    assert [len(b.tokens_T) for b in runner.batches[:2]] == [32, 18]


def test_many_at_once_get_what_they_get_alone(runner: ScriptedRunner) -> None:
    runner.pages = 1024
    engine = Engine(runner)
    runner.budget = 256
    prompts = [[i, i + 1, i + 2] * (1 + i % 4) for i in range(40)]  # more than the engine's rows
    runner.gate.clear()
    streams = [ask(engine, p, 20) for p in prompts]
    runner.gate.set()
    assert [read(s) for s in streams] == [continuation(p, 20) for p in prompts]
    engine.close()
    assert max(len(set(b.slots_T.tolist())) for b in runner.batches) == runner.processes


def test_a_prefix_is_computed_once(engine: Engine, runner: ScriptedRunner) -> None:
    prompt = list(range(30))
    read(ask(engine, prompt, 2))
    before = sum(len(b.tokens_T) for b in runner.batches)
    stream = ask(engine, [*prompt, 40], 2)
    read(stream)
    assert stream.finished is not None and stream.finished.cached_tokens == 28  # 7 full pages of 4
    assert sum(len(b.tokens_T) for b in runner.batches) - before == 3 + 1


def test_an_equal_prompt_still_computes_its_last_token(engine: Engine) -> None:
    prompt = list(range(8))
    assert read(ask(engine, prompt, 4)) == read(ask(engine, prompt, 4)) == continuation(prompt, 4)


def test_pressure_preempts_the_youngest_and_loses_nothing() -> None:
    runner = ScriptedRunner(pages=20, window=64)
    engine = Engine(runner)
    prompts = [[i] * 9 for i in range(6)]
    streams = [ask(engine, p, 40) for p in prompts]
    assert [read(s) for s in streams] == [continuation(p, 40) for p in prompts]
    assert engine.counters.preemptions > 0
    engine.close()
    assert engine.pool.leaked == 0


def test_cancel_ends_one_and_not_its_neighbour(engine: Engine, runner: ScriptedRunner) -> None:
    runner.gate.clear()
    first, second = ask(engine, [1], 40), ask(engine, [2], 40)
    first.cancel()
    runner.gate.set()
    assert len(read(first)) < 40
    assert first.finished is not None and first.finished.reason == "cancelled"
    assert read(second) == continuation([2], 40)


def test_a_slow_reader_pauses_itself_only() -> None:
    runner = ScriptedRunner(pages=1024, page=4, window=1024)
    engine = Engine(runner)
    slow, quick = ask(engine, [1], 600), ask(engine, [2], 900)
    assert read(quick) == continuation([2], 900)
    assert slow._queue.qsize() == MAX_UNREAD
    assert read(slow) == continuation([1], 600)
    engine.close()


@pytest.mark.parametrize(
    ("tokens", "count", "message"),
    [([], 1, "without tokens"), ([1], 0, "max_tokens"), ([1] * 60, 5, "do not fit"), ([97], 1, "vocabulary")],
)
def test_refuses_what_it_cannot_hold(engine: Engine, tokens: list[int], count: int, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        ask(engine, tokens, count)


class OnlyEven:
    """A grammar: even tokens, each 10 forces 12; 14 ends it; 16 is a trap that fails; where `swaps`, 20 is
    taken as 2, 4."""

    def __init__(self, *, swaps: bool = False) -> None:
        self.swaps = swaps

    finished = False

    def masks(self, draft: list[int], out: np.ndarray) -> None:
        out[:] = 0x55555555

    def instead(self, token: int) -> list[int] | None:
        return [2, 4] if self.swaps and token == 20 else None

    def accept(self, token: int) -> list[int]:
        if token == 16:
            raise GrammarError("trap")
        self.finished = token == 14
        return [12] if token == 10 else []


def test_a_grammar_masks_forces_and_ends(engine: Engine) -> None:
    ids = read(ask(engine, [4], 50, grammar=OnlyEven()))
    assert all(i % 2 == 0 for i in ids)
    assert all(ids[i + 1] == 12 for i in range(len(ids) - 1) if ids[i] == 10)


def test_a_grammar_says_what_is_taken_instead(engine: Engine) -> None:
    plain = read(ask(engine, [4], 50, grammar=OnlyEven()))
    swapped = read(ask(engine, [4], 50, grammar=OnlyEven(swaps=True)))
    at = plain.index(20)
    assert swapped[: at + 2] == [*plain[:at], 2, 4]
    assert 20 not in swapped


def test_a_failing_grammar_fails_its_own_process(engine: Engine) -> None:
    class Broken(OnlyEven):
        def masks(self, draft: list[int], out: np.ndarray) -> None:
            raise GrammarError("broken")

    bad, good = ask(engine, [1], 40, grammar=Broken()), ask(engine, [2], 40)
    with pytest.raises(GrammarError):
        read(bad)
    assert read(good) == continuation([2], 40)


def test_a_failing_step_is_an_error_and_the_engine_lives(engine: Engine, runner: ScriptedRunner) -> None:
    whole = runner.forward

    def broken(batch: object) -> object:
        runner.forward = whole  # type: ignore[method-assign]
        raise RuntimeError("device lost")

    runner.forward = broken  # type: ignore[method-assign, assignment]
    with pytest.raises(EngineError, match="device lost"):
        read(ask(engine, [1], 5))
    assert read(ask(engine, [1], 5)) == continuation([1], 5)


class Repeating(ScriptedRunner):
    """Says 1..9 over and over, but every 40th position something else."""

    @staticmethod
    def following(token: int, position: int) -> int:
        return 50 if position % 40 == 39 else (token % 9) + 1


@pytest.mark.parametrize("grammar", [None, "even"])
def test_drafts_save_steps_and_change_nothing(grammar: str | None) -> None:
    def run(draft: int) -> tuple[list[int], int]:
        runner = Repeating(pages=200, page=4, window=400)
        engine = Engine(runner)
        stream = ask(engine, [1, 2, 3], 300, draft=draft, grammar=None if grammar is None else OnlyEven())
        ids = read(stream)
        engine.close()
        assert engine.pool.leaked == 0
        return ids, len(runner.batches)

    plain, many = run(0)
    drafted, few = run(8)
    assert plain == drafted and len(plain) == 300
    assert few < many * 0.7


def test_a_draft_ends_with_a_token_that_ends_the_answer() -> None:
    runner = Repeating(pages=200, page=4, window=400)
    engine = Engine(runner)
    prompt = [*range(1, 10), *range(1, 10), 1, 2, 3]
    assert read(ask(engine, prompt, 30, draft=8, stop=frozenset({7}))) == [4, 5, 6]
    engine.close()
    computed = [int(token) for b in runner.batches for token in b.tokens_T]
    assert computed == [*prompt, 4, 5, 6, 7]


def test_hopeless_drafts_are_given_up() -> None:
    """A text whose n-grams come again and never go on as before costs at most 2 % more than plain decoding."""

    class Fickle(ScriptedRunner):
        @staticmethod
        def following(token: int, position: int) -> int:
            return [1, 2, 3, 10 + position // 4 % 80][position % 4]

    runner = Fickle(pages=200, page=4, window=700)
    engine = Engine(runner)
    read(ask(engine, [3], 300))
    engine.close()
    rows = sum(len(b.tokens_T) for b in runner.batches)
    assert len(runner.batches) + ROW * (rows - len(runner.batches)) < 300 * 1.02


def test_close_cancels_what_runs(runner: ScriptedRunner) -> None:
    engine = Engine(runner)
    runner.gate.clear()
    stream = ask(engine, [1], 60)
    runner.gate.set()
    engine.close()
    read(stream)
    assert stream.finished is not None
    with pytest.raises(EngineError, match="closed"):
        ask(engine, [1], 1)


def test_a_pool_of_nothing_is_refused() -> None:
    with pytest.raises(PoolExhausted):
        Engine(ScriptedRunner(pages=1))


def test_a_paused_sequence_gives_way_and_goes_on_to_the_same_tokens() -> None:
    runner = ScriptedRunner(pages=20, window=64)
    engine = Engine(runner)
    runner.gate.clear()
    held = ask(engine, [1] * 9, 40)
    held.pause()
    runner.gate.set()
    assert read(ask(engine, [2] * 20, 40)) == continuation([2] * 20, 40)
    held.pause(False)
    assert read(held) == continuation([1] * 9, 40)
    engine.close()
    assert engine.pool.leaked == 0


def test_pages_are_taken_from_the_lower_class() -> None:
    runner = ScriptedRunner(pages=20, window=64)
    engine = Engine(runner)
    runner.gate.clear()
    batch = [ask(engine, [i] * 9, 40, priority=Priority.BATCH) for i in range(3)]
    shell = ask(engine, [50] * 20, 40)
    runner.gate.set()
    shown = read(shell)
    assert shown == continuation([50] * 20, 40)
    assert shell.finished is not None and shell.finished.cached_tokens == 0, "it was never preempted itself"
    assert [read(s) for s in batch] == [continuation([i] * 9, 40) for i in range(3)]
    assert engine.counters.preemptions > 0
    engine.close()


@pytest.mark.parametrize(
    ("first", "second", "cached"),
    [
        ((), (), 28),
        (((30, UNTRUSTED),), ((30, UNTRUSTED),), 28),
        (((30, UNTRUSTED),), (), 0),
        (((16, USER), (30, UNTRUSTED)), (), 16),
        (((16, USER), (30, UNTRUSTED)), ((18, USER), (30, UNTRUSTED)), 28),  # page 4 is the lesser of both
        (((16, USER), (30, UNTRUSTED)), ((20, USER), (30, UNTRUSTED)), 16),
    ],
)
def test_pages_are_shared_between_equal_labels_only(
    engine: Engine, first: tuple[tuple[int, Label], ...], second: tuple[tuple[int, Label], ...], cached: int
) -> None:
    prompt = list(range(30))
    read(ask(engine, prompt, 2, labels=first))
    stream = ask(engine, prompt, 2, labels=second)
    read(stream)
    assert stream.finished is not None and stream.finished.cached_tokens == cached


def test_what_a_step_made_is_delivered_by_whoever_commits_it(runner: ScriptedRunner) -> None:
    held: list[tuple[Stream, Item]] = []
    engine = Engine(runner, held.extend)
    stream = ask(engine, [1, 2, 3], 10)
    while not held or isinstance(held[-1][1], Emitted):
        pass
    assert stream._queue.empty()
    deliver(held)
    assert read(stream) == continuation([1, 2, 3], 10)
    engine.close()
