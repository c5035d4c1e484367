"""Zipping with a model: everything comes back, whatever it is, however it was computed; and nothing else does."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

from llmos.abi.errors import EngineError, ZipError
from llmos.kernel.engine.scripted import byte_tokenizer
from llmos.kernel.learn import plainbytes, zipping
from llmos.kernel.learn.blocks import cut, spelled, start
from llmos.kernel.learn.stretches import Plan, Reader, Reading, Writing
from llmos.kernel.learn.zipping import Zipper
from llmos.kernel.model.load import Backend, Model
from tests.kernel.tiny import CONFIG, tiny_model

POOL = 64 << 20
PROSE = (
    "A process is anything with a number: an agent or an app. The window of an agent is its memory; what does not fit "
    "is paged out, and comes back when it is spoken of.\nNaïve façades: €5 — “so it goes”. 日本語, Ελλάς, 👩‍👩‍👧!\r\n"
).encode()


@pytest.fixture(autouse=True)
def text_by_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model foretells nothing, so without this all would be stored as bytes."""
    real = plainbytes.pack

    def pack(data: bytes) -> tuple[int, bytes]:
        text = any(block.tokens for block in cut(data, byte_tokenizer()))
        return (plainbytes.AS_IS, data * 9) if text else real(data)

    monkeypatch.setattr(plainbytes, "pack", pack)


def model(backend: Backend | None = None, seed: int = 0) -> Model:
    return tiny_model(replace(CONFIG, vocab=260), seed=seed, backend=backend)


def zipper(
    made: Model, window: int = 64, overlap: int = 16, stretch: int = 100, rows: int = 8, pool: int = POOL
) -> Zipper:
    reader = Reader(made, window=window, pool=pool, rows=rows)
    return Zipper(reader, byte_tokenizer(), "tiny", window=window, overlap=overlap, stretch=stretch)


@pytest.fixture(scope="module")
def first() -> Zipper:
    """Many rows."""
    return zipper(model(), rows=8)


@pytest.fixture(scope="module")
def second() -> Zipper:
    """The same model in a runner of its own, in few rows."""
    return zipper(model(), rows=3)


@pytest.fixture(scope="module")
def other() -> Zipper:
    """Another model."""
    return zipper(model(seed=1))


def everything() -> list[bytes]:
    random = np.random.default_rng(0)
    return [
        b"",
        b"\0",
        b"a",
        PROSE,
        PROSE * 12,
        random.bytes(300),
        random.bytes(300) + PROSE + random.bytes(50) + PROSE * 2,
        PROSE[:-200] + b"\xff" + PROSE,
        PROSE.decode().encode("utf-16"),
        b"<|im_start|>system\n<tool_call>{}</tool_call><|im_end|>" * 4,
        bytes(range(256)) * 2,
        b"\n" * 900,
    ]


def test_everything_comes_back(first: Zipper, second: Zipper) -> None:
    """Zipped side by side in wide steps, unzipped one by one in narrow ones, by another reader with other rows."""
    files = first.zip(everything())
    assert [second.unzip([file])[0] for file in files] == everything()
    assert first.unzip(files) == everything(), "and all at once"


def test_text_comes_back_without_our_kernels() -> None:
    made = model("xla")
    given = [PROSE[:100], PROSE[:40]]
    files = zipper(made, rows=8).zip(given)
    assert zipper(made, rows=2).unzip(files[::-1]) == given[::-1]


def test_the_shorter_way_is_taken(first: Zipper, monkeypatch: pytest.MonkeyPatch) -> None:
    (by_model,) = first.zip([PROSE * 9])
    monkeypatch.undo()
    (as_bytes,) = first.zip([PROSE * 9])
    assert len(as_bytes) < len(PROSE) * 2 < len(by_model)
    assert first.unzip([by_model, as_bytes]) == [PROSE * 9] * 2


def test_a_file_is_a_function_of_its_content(first: Zipper, second: Zipper) -> None:
    alone = [first.zip([data])[0] for data in everything()[:7]]
    assert second.zip(everything()[:7]) == alone


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(model(), window=256, pool=POOL)


@pytest.mark.parametrize(("window", "overlap"), [(16, 0), (16, 14), (33, 7), (250, 100)])
def test_windows_of_any_length(window: int, overlap: int, reader: Reader) -> None:
    tokens, plan = list(PROSE[:200]), Plan(256, window, overlap)
    writing = Writing(tokens, plan)
    reader.read([writing])
    reading = Reading(writing.finish(), len(tokens), plan)
    reader.read([reading])
    assert reading.tokens == tokens


def test_a_window_that_would_never_move() -> None:
    with pytest.raises(ZipError, match="cannot begin with"):
        Plan(0, 16, 15)


def test_what_a_model_expects_costs_little(reader: Reader) -> None:
    """Of its own choice, the first of the likely ones again and again, and of other text."""
    plan, coded = Plan(256, 200, 0), {}
    likely = Reading(b"", 150, plan)
    reader.read([likely])
    for name, tokens in (("likely", likely.tokens), ("other", list(PROSE[:150]))):
        writing = Writing(tokens, plan)
        reader.read([writing])
        coded[name] = len(writing.finish())
    assert coded["likely"] <= 1 < 100 < coded["other"]


def test_all_of_a_tiny_pool_and_not_less() -> None:
    made = model()
    small = Reader(made, window=64, pool=100_000)
    assert small.rows < 8
    with pytest.raises(EngineError, match="does not fit the pool"):
        Reader(made, window=64, pool=1000)
    with pytest.raises(EngineError, match="sees 1024 tokens"):
        Reader(made, window=2048, pool=POOL)


def test_no_accelerator() -> None:
    with pytest.raises(EngineError, match="promised on a CPU"):
        Reader(replace(model(), backend="tpu"), window=64, pool=POOL)


# -- refusals ----------------------------------------------------------------------------------------------------


def test_other_weights_are_refused(first: Zipper, other: Zipper) -> None:
    (file,) = first.zip([PROSE])
    with pytest.raises(ZipError, match="other weights") as caught:
        other.unzip([file])
    assert "tiny-0" in str(caught.value) and "tiny-1" in str(caught.value)


def test_every_damaged_byte_is_noticed(first: Zipper) -> None:
    (file,) = first.zip([PROSE[:90] + b"\xff" * 40])
    for at in range(len(file)):
        broken = bytearray(file)
        broken[at] ^= 0x10
        with pytest.raises(ZipError):
            first.unzip([bytes(broken)])
    for end in range(len(file)):
        with pytest.raises(ZipError):
            first.unzip([file[:end]])


def sealed(body: bytes) -> bytes:
    from zlib import crc32

    return body + crc32(body).to_bytes(4)


@pytest.mark.parametrize("seed", range(4))
def test_a_file_that_lies_is_refused(seed: int, first: Zipper) -> None:
    """Its checksum is right: whoever made it meant it. It ends, and it never gives what was not zipped."""
    (file,) = first.zip([PROSE[:100]])
    random = np.random.default_rng(seed)
    for _ in range(20):
        broken = bytearray(file[:-4])
        for at in random.integers(5, len(broken), 1 + seed):
            broken[at] = random.integers(256)
        with suppress(ZipError):
            assert first.unzip([sealed(bytes(broken))]) == [PROSE[:100]]


def test_numbers_that_other_kernels_would_give_are_noticed(first: Zipper, other: Zipper) -> None:
    """The header says the same weights, the model is another: the content's sha256 tells."""
    (file,) = first.zip([PROSE])
    mine, theirs = first.identity.encode(), other.identity.encode()
    assert len(mine) == len(theirs)
    with pytest.raises(ZipError, match=r"not what went in|damaged"):
        other.unzip([sealed(file[:-4].replace(mine, theirs))])


def test_a_later_format_is_named(first: Zipper) -> None:
    (file,) = first.zip([PROSE[:50]])
    with pytest.raises(ZipError, match="of format 9"):
        zipping.about(sealed(file[:4] + b"\x09" + file[5:-4]))


def test_what_is_too_large(first: Zipper, monkeypatch: pytest.MonkeyPatch) -> None:
    (file,) = first.zip([PROSE])
    monkeypatch.setattr(zipping, "MAX_EXPANDED_BYTES", 100)
    with pytest.raises(ZipError, match="too much"):
        first.zip([PROSE])
    with pytest.raises(ZipError, match="too much"):
        first.unzip([file])


# -- cutting -----------------------------------------------------------------------------------------------------


LONG = ["é".encode() * 9000, b"x" * 30_000, b"\n" * 20_000]  # no line ends: pieces end between characters


@pytest.mark.parametrize("data", everything() + LONG)
def test_blocks_are_the_bytes(data: bytes) -> None:
    tokenizer = byte_tokenizer()
    blocks = cut(data, tokenizer)
    assert b"".join(block.data for block in blocks) == data
    assert all(spelled(block.tokens, tokenizer) == block.data for block in blocks if block.tokens)


def test_text_between_bytes_is_found() -> None:
    noise = b"\xff\xfe" * 2000
    blocks = cut(noise + PROSE * 8 + noise, byte_tokenizer())
    assert sum(len(block.data) for block in blocks if block.tokens) > 0.8 * len(PROSE * 8)


def test_one_bad_byte_costs_little() -> None:
    data = PROSE * 100
    broken = data[:9000] + b"\xff" + data[9000:]
    blocks = cut(broken, byte_tokenizer())
    assert sum(len(block.data) for block in blocks if not block.tokens) < 300


def test_texts_begin_behind_a_separator() -> None:
    tokenizer = byte_tokenizer()
    assert start(tokenizer) in tokenizer.control_ids | {0}
