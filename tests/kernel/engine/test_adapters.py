"""Adapters in a step: the merged weights' words, one bit pattern whoever computes beside, no KV shared between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

from llmos.abi.errors import AdapterMismatch
from llmos.drivers import cpu
from llmos.drivers.weights.adapter import Adapter
from llmos.kernel.engine import bank as module
from llmos.kernel.engine.batch import Batch, empty_tables
from llmos.kernel.engine.blend import Blender
from llmos.kernel.engine.engine import Engine
from llmos.kernel.engine.runner import ModelRunner
from llmos.kernel.engine.sampling import Randomness, Sample
from llmos.kernel.engine.sequence import BlockingStream, Request
from llmos.kernel.model.load import Backend, Mode, default_backend
from llmos.memory.pages import PageStore
from tests.kernel.tiny import CONFIG, tiny_adapter, tiny_model, tiny_runner

PROMPT = tuple(np.random.default_rng(3).integers(0, 256, 90).tolist())
MODEL = tiny_model()
needs_kernels = pytest.mark.skipif(not cpu.available(), reason="the row contract is the CPU kernels'")


def read(stream: BlockingStream) -> list[tuple[int, float | None]]:
    return [(item.id, item.logprob) for item in stream]


def said(
    engine: Engine, adapter: Adapter | None, tokens: Sequence[int] = PROMPT, most: int = 12, **more: Any
) -> Any:
    return read(engine.submit(Request(tokens=tuple(tokens), max_tokens=most, adapter=adapter, **more)))


def logits(runner: ModelRunner, adapter: Adapter | None, tokens: Sequence[int] = PROMPT[:60]) -> np.ndarray:
    """Of every token, computed in one step."""
    n, tables = len(tokens), empty_tables(runner)
    used = -(-n // runner.page)
    tables[0, :used] = np.arange(1, used + 1)
    ids, at = np.asarray(tokens, np.int32), np.arange(n, dtype=np.int32)
    return np.asarray(runner.forward(Batch(ids, at, np.zeros(n, np.int32), tables, at, (adapter,))))[:n]


@pytest.mark.parametrize(
    ("backend", "names"),
    [
        ("xla", "q k v o gate up down"),
        *(
            pytest.param("cpu", n, marks=needs_kernels)
            for n in ("q k v o gate up down", "q v", "up", "o down")
        ),
    ],
)
def test_words_are_those_of_merged_weights(backend: Backend, names: str) -> None:
    adapter = tiny_adapter(names=tuple(names.split()), rank=5, rslora=True)
    served = tiny_runner(model=tiny_model(mode="f32", backend=backend))
    merged = tiny_runner(model=tiny_model(mode="f32", backend=backend, merged=adapter))
    want = logits(merged, None)
    np.testing.assert_allclose(logits(served, adapter), want, atol=2e-4 * float(np.abs(want).max()))
    plain = logits(served, None)
    assert np.abs(plain - want).max() > 0.05 * np.abs(want).max()  # it does change something
    engines = Engine(served), Engine(merged)
    given = [(engine, adapter if engine is engines[0] else None) for engine in engines]
    first, second = ([token for token, _ in said(engine, who, most=40)] for engine, who in given)
    for engine in engines:
        engine.close()
    assert first == second


@pytest.mark.parametrize(
    ("backend", "mode"),
    [("xla", "native"), *(pytest.param("cpu", mode, marks=needs_kernels) for mode in ("native", "bf16"))],
)
def test_every_mode_computes_what_the_reference_computes(backend: Backend, mode: Mode) -> None:
    """The model is rounded in these, so what changes is compared, loosely."""
    adapter = tiny_adapter(rank=3)
    runner = tiny_runner(model=tiny_model(mode=mode, backend=backend))
    exact = tiny_runner(model=tiny_model(mode="f32", backend="xla"))
    change, want = (logits(r, adapter) - logits(r, None) for r in (runner, exact))
    assert np.linalg.norm(change - want) < 0.2 * np.linalg.norm(want)


@needs_kernels
def test_row_contract() -> None:
    """A token's KV and logits are the same bits in every bucket and chunking, beside anybody, in any slot."""
    runner = tiny_runner(budget=64)
    adapters = [None, tiny_adapter(1), tiny_adapter(2, rank=7), tiny_adapter(3, names=("q", "v"))]
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 256, 40).astype(np.int32) for _ in adapters]

    def run(
        runner: ModelRunner, who: list[int], chunks: list[list[int]]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Sequences `who` side by side; `chunks[step][i]` tokens of the i-th in each step."""
        tables, at = empty_tables(runner), [0] * len(who)
        for slot in range(len(who)):
            tables[slot, :3] = 1 + 3 * slot + np.arange(3)
        last: list[np.ndarray] = [np.empty(0)] * len(who)
        for step in chunks:
            parts = [(slot, n) for slot, n in enumerate(step) if n]
            ends = np.cumsum([n for _, n in parts]) - 1
            batch = Batch(
                np.concatenate([texts[who[s]][at[s] : at[s] + n] for s, n in parts]),
                np.concatenate([np.arange(at[s], at[s] + n, dtype=np.int32) for s, n in parts]),
                np.concatenate([np.full(n, s, np.int32) for s, n in parts]),
                tables, ends.astype(np.int32), [adapters[i] for i in who],
            )  # fmt: skip
            rows = np.asarray(runner.forward(batch))
            for row, (s, n) in enumerate(parts):
                last[s], at[s] = rows[row], at[s] + n
        made = []
        for slot in range(len(who)):
            pages = runner.read_pages([1 + 3 * slot, 2 + 3 * slot, 3 + 3 * slot]).swapaxes(
                1, 2
            )  # [P, S, L, ...]
            made.append((last[slot], pages.reshape(-1, *pages.shape[2:])[:40]))
        return made

    alone = [run(tiny_runner(budget=64), [i], [[40]])[0] for i in range(len(adapters))]
    ways = [
        ([0, 1, 2, 3], [[16, 16, 16, 16], [16, 16, 16, 16], [8, 8, 8, 8]]),
        ([3, 2, 1, 0], [[1, 40, 3, 20], [39, 0, 25, 0], [0, 0, 12, 20]]),
        ([1, 1, 0], [[20, 4, 40], [20, 36, 0]]),
        ([2, 0], [[n, n] for n in (5, 1, 1, 1, 17, 15)]),
        ([1], [[1]] * 40),
        ([0], [[3]] * 13 + [[1]]),
    ]
    for who, chunks in ways:
        for i, (end, kv) in zip(who, run(runner, who, chunks), strict=True):
            np.testing.assert_array_equal(end, alone[i][0], err_msg=f"logits of {i} in {who}")
            np.testing.assert_array_equal(kv, alone[i][1], err_msg=f"KV of {i} in {who}")


def test_who_has_no_adapter_pays_for_none_and_forms_are_compiled_once() -> None:
    runner = tiny_runner(model=MODEL)
    runner.warm_up()
    plain = runner.compilations
    assert plain == len(runner.buckets) and runner.bank.form is None and runner.bank.nbytes == 0
    runner.adapt(tiny_adapter(1, names=("q", "v")))
    assert runner.compilations == 2 * plain
    engine = Engine(runner)
    others = [tiny_adapter(n, rank=2 * n, names=("q", "v") if n % 2 else ("k",)) for n in range(1, 5)]
    for n, adapter in enumerate(others, 1):  # other ranks and matrices, which the form has room for
        assert said(engine, adapter, PROMPT[: 14 * n], 3)
    streams = [
        engine.submit(Request(tokens=PROMPT[i:], max_tokens=5, adapter=adapter))
        for i, adapter in enumerate([None, *others, None])
    ]
    for stream in streams:
        read(stream)
    assert runner.compilations == 2 * plain
    engine.run(lambda: runner.adapt(tiny_adapter(1, names=("down",))))  # another product: another form
    assert runner.compilations == 3 * plain
    engine.close()


def test_kv_is_shared_between_equal_versions_only() -> None:
    engine = Engine(tiny_runner(model=MODEL))
    one, two = tiny_adapter(1), tiny_adapter(2)
    streams = []
    for adapter in (None, one, two, one, None, tiny_adapter(2), tiny_adapter(1, alpha=8.0)):
        streams.append(engine.submit(Request(tokens=PROMPT, max_tokens=4, adapter=adapter)))
        streams[-1].said = read(streams[-1])  # type: ignore[attr-defined]
    cached = [stream.finished.cached_tokens for stream in streams if stream.finished is not None]
    whole = (len(PROMPT) - 1) // 16 * 16
    assert cached == [0, 0, 0, whole, whole, whole, 0]
    words = [stream.said for stream in streams]  # type: ignore[attr-defined]
    assert words[0] == words[4] and words[1] == words[3] and words[2] == words[5]
    assert len({tuple(w) for w in words}) == 4
    engine.close()


def test_words_survive_preemption_and_swap() -> None:
    requests = [
        Request(
            tokens=PROMPT[i : i + 30], max_tokens=40, strategy=Sample(temperature=0.9), randomness=Randomness(i),
            adapter=None if i == 2 else tiny_adapter(i % 3),
        )
        for i in range(8)
    ]  # fmt: skip
    roomy = Engine(tiny_runner(model=MODEL))
    expected = [read(roomy.submit(request)) for request in requests]
    roomy.close()
    store = PageStore(None, ram=1 << 22, disk=0)
    cramped = Engine(tiny_runner(model=MODEL, pages=14), store=store)
    streams = [cramped.submit(request) for request in requests]
    got = [read(stream) for stream in streams]
    if default_backend() == "cpu":
        assert got == expected
    else:
        assert [[t for t, _ in one] for one in got] == [[t for t, _ in one] for one in expected]
    assert cramped.counters.preemptions > 0 and cramped.swap.faults > 0
    cramped.close()
    store.close()


@needs_kernels
def test_pieces_are_each_adapters_own() -> None:
    front, first, second, rest = PROMPT[:20], PROMPT[20:50], PROMPT[50:75], PROMPT[75:]
    store = PageStore(None, ram=16 << 20, disk=0)
    runner = tiny_runner(model=MODEL)
    blender = Blender(MODEL, runner, store)
    engine = Engine(runner, blender=blender)

    def ask(adapter: Adapter | None, *order: Sequence[int]) -> tuple[Any, int]:
        pieces = [front, *order]
        ends = tuple(int(n) for n in np.cumsum([len(piece) for piece in pieces]))
        before = blender.computed
        tokens = [t for piece in (*pieces, rest) for t in piece]
        return said(engine, adapter, tokens, 6, pieces=ends), blender.computed - before

    one, two = tiny_adapter(1), tiny_adapter(2)
    whole = {id(who): ask(who, first, second) for who in (None, one, two)}
    assert all(computed > 0 for _, computed in whole.values())
    turned = {id(who): ask(who, second, first) for who in (None, one, two)}
    assert [computed for _, computed in turned.values()] == [0, 0, 0]
    engine.close()
    for who in (None, one, two):
        fresh_runner = tiny_runner(model=MODEL)
        fresh_store = PageStore(None, ram=16 << 20, disk=0)
        engine = Engine(fresh_runner, blender=Blender(MODEL, fresh_runner, fresh_store))
        blender = engine._blender  # type: ignore[assignment]
        assert ask(who, second, first)[0] == turned[id(who)][0]
        engine.close()
        fresh_store.close()
    assert len({str(words) for words, _ in turned.values()}) == 3
    store.close()


def test_the_bank_grows_rests_and_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLOTS", (2, 4))
    monkeypatch.setattr(module, "RESTING", 3)
    bank = module.AdapterBank(MODEL)
    adapters = [tiny_adapter(n, names=("q",), rank=2) for n in range(7)]
    assert bank.slots([None, adapters[0], adapters[1], adapters[0]]) == [0, 1, 2, 1]
    small = bank.form
    assert small is not None and small.slots == 2
    assert bank.slots([adapters[2]]) == [3] and bank.form is not None and bank.form.slots == 4
    assert bank.slots([adapters[0]]) == [1]
    assert sorted(bank.slots([adapters[3], adapters[2]])) == [3, 4]
    taken = bank.slots(
        [adapters[4], adapters[3], adapters[2], adapters[0]]
    )  # full: the one that rested longest goes
    assert taken == [2, 4, 3, 1] and adapters[1].version not in bank.held
    for slot, adapter in zip(taken, (adapters[4], adapters[3], adapters[2], adapters[0]), strict=True):
        for layer, factors in enumerate(bank.factors):
            ranks, a, b = module.part(adapter, layer, "qkv", 8, CONFIG, MODEL.pool_type)
            np.testing.assert_array_equal(factors["qkv"].a_SMRK[slot], a)
            np.testing.assert_array_equal(factors["qkv"].b_SRN[0][slot], b[0])
            np.testing.assert_array_equal(factors["qkv"].ranks_SM[slot], ranks)
    bank.slots([tiny_adapter(9, rank=20)])  # wider, and of every product: what was there is there still
    assert bank.form is not None and bank.form.rank == 32 and len(bank.form.groups) == 4
    assert len(jax.tree.leaves(bank.factors)) == CONFIG.layers * (4 * 2 + 7)


def test_an_adapter_of_another_model_is_refused_and_others_go_on() -> None:
    engine = Engine(tiny_runner(model=MODEL))
    wide = tiny_adapter(1, config=replace(CONFIG, ffn=256))
    with pytest.raises(AdapterMismatch, match="another model"):
        engine.submit(Request(tokens=PROMPT, max_tokens=4, adapter=wide))
    with pytest.raises(AdapterMismatch, match="other weights"):
        engine.submit(
            Request(tokens=PROMPT, max_tokens=4, adapter=tiny_adapter(1, weights="those of another"))
        )
    own = tiny_adapter(1, weights=module.lora.fingerprint(MODEL))
    assert said(engine, own) and said(engine, None)
    engine.close()


def test_a_fingerprint_is_of_the_weights_whatever_their_form() -> None:
    forms = [tiny_model(seed=1, mode=mode) for mode in ("native", "bf16", "f32")] + [
        tiny_model(seed=1, backend="xla")
    ]
    assert len({module.lora.fingerprint(model) for model in forms}) == 1
    assert module.lora.fingerprint(tiny_model(seed=2)) != module.lora.fingerprint(forms[0])
