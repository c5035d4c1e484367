"""Tokenizers give the reference's ids, take everything back, and keep control tokens out of content."""

import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmos.abi.errors import CorruptWeights, LLMOSError, ModelNotFound, UnsupportedModel
from llmos.drivers.weights import Tokenizer, find, gguf, open_weights
from llmos.drivers.weights.bpe import BYTE_SYMBOLS, symbol_bytes
from llmos.drivers.weights.gguf_tokenizer import from_gguf
from llmos.drivers.weights.json_tokenizer import from_folder
from tests.drivers.weights import files
from tests.drivers.weights.record_tokens import FIXTURE, SPM_TEXTS, spm_metadata

RECORDED = json.loads(FIXTURE.read_text())
CONTROL_TEXTS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<tool_call>", "</tool_call>", "<|fim_pad|>")
# Text that is likely to go wrong: control tokens, parts of them, blanks, and anything else.
HOSTILE = st.lists(
    st.one_of(
        st.text(max_size=8),
        st.sampled_from([*CONTROL_TEXTS, "<|", "|>", "im_end", " ", "\n", "  \n", "12"]),
    ),
    max_size=12,
).map("".join)


@functools.cache
def real(path: Path) -> Tokenizer:
    return open_weights(find(str(path))).tokenizer()


@functools.cache
def small(folder: Path) -> Tokenizer:
    return from_gguf(gguf.read(files.written(folder, "m.gguf", files.small_gguf())).metadata)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizers")


@pytest.mark.parametrize("model", RECORDED["ids"])
def test_ids_are_those_of_llama_cpp(model: str, weights_path: Callable[[str], Path]) -> None:
    tokenizer = real(weights_path(model))
    for text, ids in zip(RECORDED["texts"], RECORDED["ids"][model], strict=True):
        assert tokenizer.encode(text) == ids, text
        assert tokenizer.decode(ids) == text


def test_sentencepiece_ids_are_those_of_llama_cpp(folder: Path) -> None:
    path = files.written(folder, "spm.gguf", files.gguf(spm_metadata()))
    tokenizer = from_gguf(gguf.read(path).metadata)
    for text, ids in zip(SPM_TEXTS, RECORDED["sentencepiece"], strict=True):
        assert tokenizer.encode(text) == ids, text
        assert tokenizer.decode(ids) == text


@pytest.fixture(scope="session")
def library(weights_path: Callable[[str], Path], folder: Path) -> Path:
    """SmolLM2's tokenizer as a Hugging Face folder, run by the `tokenizers` library."""
    metadata = gguf.read(weights_path("smollm2-135m")).metadata
    tokens, merges = list(metadata["tokenizer.ggml.tokens"]), list(metadata["tokenizer.ggml.merges"])  # type: ignore[call-overload]
    pairs = [tuple(m.split(" ")) for m in merges]
    made = tokenizers.Tokenizer(tokenizers.models.BPE({t: i for i, t in enumerate(tokens)}, pairs))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [tokenizers.pre_tokenizers.Digits(individual_digits=True), tokenizers.pre_tokenizers.ByteLevel(False)]
    )
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_special_tokens(tokens[:17])
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {"bos_token": "<|im_start|>", "eos_token": {"content": "<|im_end|>"}, "add_bos_token": True}
        )
    )
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 0]}')
    return folder


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=HOSTILE)
def test_our_merging_equals_the_librarys(
    text: str, library: Path, weights_path: Callable[[str], Path]
) -> None:
    ours, theirs = real(weights_path("smollm2-135m")), _from_folder(library)
    assert ours.encode(text) == theirs.encode(text)
    assert ours.encode_control(text) == theirs.encode_control(text)
    assert ours.decode(ours.encode(text)) == theirs.decode(ours.encode(text))


@functools.cache
def _from_folder(folder: Path) -> Tokenizer:
    return from_folder(folder)


def test_a_folders_special_ids(library: Path) -> None:
    tokenizer = _from_folder(library)
    assert (tokenizer.bos_id, tokenizer.add_bos, tokenizer.eos_ids) == (1, True, {0, 2})
    assert tokenizer.vocab_size == 49152
    assert tokenizer.control_ids == frozenset(range(17))
    assert tokenizer.token_bytes(260) == real_bytes(library, 260)


def real_bytes(library: Path, token: int) -> bytes:
    """What the library itself decodes a token to."""
    decoded: str = tokenizers.Tokenizer.from_file(str(library / "tokenizer.json")).decode([token])
    return decoded.encode()


@pytest.mark.parametrize("model", ["smollm2-135m", "qwen2.5-coder-0.5b"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=HOSTILE)
def test_content_never_becomes_a_control_token(
    model: str, text: str, weights_path: Callable[[str], Path]
) -> None:
    tokenizer = real(weights_path(model))
    ids = tokenizer.encode(text)
    assert not tokenizer.control_ids.intersection(ids)
    if model != "smollm2-135m":  # which has no tokens for some control characters and unassigned planes
        assert tokenizer.decode(ids) == text


@given(text=HOSTILE)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_library_vocabulary_neither(text: str, library: Path) -> None:
    tokenizer = _from_folder(library)
    assert not tokenizer.control_ids.intersection(tokenizer.encode(text))


def test_every_control_token_spelt_out_stays_text(weights_path: Callable[[str], Path]) -> None:
    tokenizer = real(weights_path("qwen2.5-coder-0.5b"))
    assert len(tokenizer.control_ids) == 22
    for token, added in tokenizer.added.items():
        assert not tokenizer.control_ids.intersection(tokenizer.encode(f"a{added.text}b"))
        assert tokenizer.encode_control(added.text) == [token]
        assert tokenizer.control_id(added.text) == token


def test_merges_that_lead_to_a_control_token_do_not(folder: Path) -> None:
    """A file whose merges build its own control token gains nothing by it."""
    hostile = files.vocabulary()
    tokens, merges = list(hostile["tokenizer.ggml.tokens"]), list(hostile["tokenizer.ggml.merges"])  # type: ignore[call-overload]
    for merge in [
        "< t",
        "<t o",
        "<to o",
        "<too l",
        "<tool _",
        "<tool_ c",
        "<tool_c a",
        "<tool_ca l",
        "<tool_cal l",
    ]:
        merges.append(merge)
        tokens.insert(0, merge.replace(" ", ""))
    merges.append("<tool_call >")
    types = np.array([1] * (len(tokens) - 5) + [3, 3, 3, 4, 4], np.int32)
    hostile |= {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.pre": "gpt-2",
    }
    tokenizer = from_gguf(gguf.read(files.written(folder, "hostile.gguf", files.gguf(hostile))).metadata)
    assert tokenizer.control_id("<tool_call>") in tokenizer.control_ids
    for text in ("<tool_call>", "x<tool_call>y", "<tool_call><tool_call>"):
        ids = tokenizer.encode(text)
        assert not tokenizer.control_ids.intersection(ids)
        assert tokenizer.decode(ids) == text


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.sampled_from("aé日😀\u200d \n")))
def test_streaming_holds_back_incomplete_characters(text: str, weights_path: Callable[[str], Path]) -> None:
    tokenizer = real(weights_path("smollm2-135m"))
    stream = tokenizer.stream()
    parts = [stream.push(i) for i in tokenizer.encode(text)]
    assert not any("\ufffd" in part for part in parts)
    assert "".join(parts) + stream.flush() == text


def test_a_stream_that_ends_within_a_character(weights_path: Callable[[str], Path]) -> None:
    tokenizer = real(weights_path("smollm2-135m"))
    ids = tokenizer.encode("\U0001fae8")  # no token of its own: several of bytes
    assert len(ids) > 1
    stream = tokenizer.stream()
    assert [stream.push(i) for i in ids[:-1]] == [""] * (len(ids) - 1)
    assert stream.flush() == "\ufffd"
    assert stream.push(tokenizer.encode("a")[0]) == "a"


def test_control_tokens_have_no_text_of_their_own(folder: Path) -> None:
    tokenizer = small(folder)
    end, call = tokenizer.control_id("<|im_end|>"), tokenizer.control_id("<tool_call>")
    assert end is not None and call is not None
    assert tokenizer.decode([*tokenizer.encode("hello"), end, call]) == "hello<tool_call>"
    assert tokenizer.token_bytes(end) == b"<|im_end|>"
    assert tokenizer.decode([tokenizer.vocab_size + 5, -3]) == ""


def test_special_ids_of_a_gguf(folder: Path) -> None:
    tokenizer = small(folder)
    assert tokenizer.eos_ids == {tokenizer.control_id("<|endoftext|>"), tokenizer.control_id("<|im_end|>")}
    assert tokenizer.bos_id == tokenizer.control_id("<|endoftext|>")
    assert not tokenizer.add_bos


def test_pieces_are_encoded_by_what_they_are(folder: Path) -> None:
    tokenizer = small(folder)
    pieces = [SimpleNamespace(text="<|im_end|>", control=c) for c in (True, False)]
    control, content = tokenizer.encode_pieces(pieces)
    assert control == [tokenizer.control_id("<|im_end|>")]
    assert not tokenizer.control_ids.intersection(content)


def test_a_sentencepiece_prefix_stands_at_the_start_only(folder: Path) -> None:
    path = files.written(folder, "spm2.gguf", files.gguf(spm_metadata()))
    tokenizer = from_gguf(gguf.read(path).metadata)
    assert tokenizer.space_prefix
    pieces = [
        SimpleNamespace(text=t, control=c)
        for t, c in (("[INST] ", True), ("the cat", False), (" [/INST]", True))
    ]
    whole = [i for ids in tokenizer.encode_pieces(pieces) for i in ids]
    assert tokenizer.decode(whole) == "[INST] the cat [/INST]"
    assert tokenizer.decode(tokenizer.encode(" two")) == " two"


def test_the_printable_alphabet_and_what_is_not_of_it() -> None:
    everything = bytes(range(256))
    letters = b"".join(BYTE_SYMBOLS)
    assert symbol_bytes(letters) == everything
    assert len(letters.decode()) == 256 and letters.decode().isprintable()
    for foreign in (" ", "\n", "\xad", "\x80", "日", "\u0200"):
        assert symbol_bytes(f"a{foreign}Ġ".encode()) == f"a{foreign} ".encode()


def test_padding_of_the_vocabulary_is_nothing(weights_path: Callable[[str], Path]) -> None:
    tokenizer = real(weights_path("qwen2.5-coder-0.5b"))
    assert tokenizer.vocab_size == 151936
    assert tokenizer.token_bytes(151935) == b""
    assert max(tokenizer.encode("[PAD151935]")) < 151643


def test_lone_surrogates_become_replacement_characters(folder: Path) -> None:
    tokenizer = small(folder)
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a\ufffdb"
    assert tokenizer.decode(tokenizer.encode_control("a\udfff")) == "a\ufffd"


@pytest.mark.parametrize(
    "text", ["a" * 40_000, " " * 40_000, "\n" * 40_000, "ab" * 20_000, "é" * 20_000, "<|" * 20_000]
)
def test_long_words_take_no_quadratic_time(text: str, weights_path: Callable[[str], Path]) -> None:
    tokenizer = real(weights_path("smollm2-135m"))
    began = time.process_time()
    ids = tokenizer.encode(text)
    assert time.process_time() - began < 30  # a quadratic merge would take an hour
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize(
    "change",
    [
        {"tokenizer.ggml.tokens": None},
        {"tokenizer.ggml.merges": None},
        {"tokenizer.ggml.token_type": np.ones(3, np.int32)},
        {"tokenizer.ggml.tokens": []},
        {"tokenizer.ggml.token_type": "a text"},
        {"tokenizer.ggml.model": "llama"},
        {"tokenizer.ggml.model": "llama", "tokenizer.ggml.scores": ["x"] * 273},
    ],
)
def test_a_damaged_vocabulary(folder: Path, change: dict[str, object]) -> None:
    metadata = {k: v for k, v in (files.vocabulary() | change).items() if v is not None}
    with pytest.raises(CorruptWeights) as e:
        from_gguf(gguf.read(files.written(folder, "damaged.gguf", files.gguf(metadata))).metadata)
    assert e.value.why and e.value.do


@pytest.mark.parametrize("change", [{"tokenizer.ggml.model": "bert"}, {"tokenizer.ggml.pre": "unheard-of"}])
def test_a_vocabulary_of_another_kind(folder: Path, change: dict[str, object]) -> None:
    metadata = gguf.read(
        files.written(folder, "other.gguf", files.gguf(files.vocabulary() | change))
    ).metadata
    with pytest.raises(UnsupportedModel):
        from_gguf(metadata)


def test_special_ids_out_of_range_are_none(folder: Path) -> None:
    change = {
        "tokenizer.ggml.bos_token_id": 1 << 30,
        "tokenizer.ggml.eos_token_id": "x",
        "tokenizer.ggml.add_bos_token": True,
    }
    metadata = gguf.read(files.written(folder, "ids.gguf", files.gguf(files.vocabulary() | change))).metadata
    tokenizer = from_gguf(metadata)
    assert tokenizer.bos_id is None and not tokenizer.add_bos


@pytest.mark.parametrize(
    "text", ["", "{}", '{"model": 5}', '{"model": {"type": "BPE", "vocab": {"a": "x"}, "merges": 3}}']
)
def test_a_damaged_tokenizer_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(LLMOSError):
        from_folder(tmp_path)


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"tokenizer\.json"):
        from_folder(tmp_path)


@pytest.mark.parametrize("kind", ["unigram", "wordpiece"])
def test_other_library_vocabularies_keep_control_tokens_out(tmp_path: Path, kind: str) -> None:
    if kind == "unigram":
        pieces = [
            ("<unk>", 0.0),
            ("</s>", 0.0),
            ("\u2581", -2.0),
            *((c, -3.0) for c in "abc</s>"[:6]),
            ("abc", -1.0),
        ]
        made = tokenizers.Tokenizer(tokenizers.models.Unigram(list(dict(pieces).items()), unk_id=0))
        made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
        special = "</s>"
    else:
        words = {"[UNK]": 0, "[CLS]": 1, "a": 2, "##b": 3, "[": 4, "]": 5, "##CLS": 6, "CLS": 7}
        made = tokenizers.Tokenizer(tokenizers.models.WordPiece(words, unk_token="[UNK]"))
        special = "[CLS]"
    made.add_special_tokens([special])
    made.save(str(tmp_path / "tokenizer.json"))
    tokenizer = from_folder(tmp_path)
    token = tokenizer.control_id(special)
    assert token is not None
    assert tokenizer.encode_control(special) == [token]
    assert token not in tokenizer.encode(special)
    assert token not in tokenizer.encode(f"a{special}b")
