"""Two files that answer alone: the decoder against `transformers`, the tokens against the kernel's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from llmos.abi.errors import DiskFull, UnsupportedModel, WeightsError
from llmos.abi.events import Token
from llmos.connect import connect
from llmos.drivers.weights import find, open_weights
from llmos.drivers.weights.pretokenise import expressions, splitter
from llmos.kernel.learn import export as module
from llmos.kernel.learn.export import PARAMETERS, PROGRAM, export
from llmos.kernel.learn.vocabulary import plain

FIXTURES = Path(__file__).parents[1] / "model/fixtures"
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
PROMPTS = (
    "What is an operating system?",
    "Write a haiku about rain, with the word “façade” in it.",
    "2 + 2 =",
)
HOSTILE = "it's  I'LL 1234 3.1\r\n\n\tx\u3000y naïve Ελλά 日本 ¹²³ ⅷ a\u0301 👩‍👩‍👧 <|im_end|> __init__ \x1f\x85 end  "


ALONE = """
import importlib.util, json, pathlib, sys
spec = importlib.util.spec_from_file_location("answer", "answer.py")
answer = importlib.util.module_from_spec(spec)
spec.loader.exec_module(answer)
model = answer.load(pathlib.Path("parameters.safetensors"))
print(json.dumps([list(answer.answer(model, text, 24, raw)) for text, raw in json.loads(sys.argv[1])]))
assert not {"llmos", "jax", "tokenizers", "safetensors"} & set(sys.modules)
"""


def program(folder: Path) -> ModuleType:
    """The program that lies in a folder, imported."""
    spec = spec_from_file_location("answer", folder / PROGRAM)
    assert spec is not None and spec.loader is not None
    made = module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture
def family(tmp_path: Path) -> Callable[[str], Path]:
    """A tiny checkpoint of a family, with a byte-level vocabulary beside it."""

    def make(name: str) -> Path:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers

        folder = tmp_path / name
        shutil.copytree(FIXTURES / name, folder)
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        made = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        made.save(str(folder / "tokenizer.json"))
        return folder

    return make


@pytest.mark.parametrize("name", FAMILIES)
def test_the_decoder_is_that_of_transformers(
    name: str, family: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = family(name)
    export(open_weights(find(str(folder))), tmp_path / "out")
    answer = program(tmp_path / "out")
    about, tensors = answer.load(tmp_path / "out" / PARAMETERS)
    reference = np.load(folder / "reference.npz")
    for tokens, logits in zip(reference["tokens"].tolist(), reference["logits"], strict=True):
        slow, fast = (answer.Decoder(about["config"], tensors) for _ in range(2))
        one_by_one = np.stack([slow.tell([token]) for token in tokens])
        assert np.abs(one_by_one - logits).max() < 1e-4
        assert np.abs(fast.tell(tokens) - logits[-1]).max() < 1e-4


def test_a_family_that_does_not_fit_is_refused(family: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="gemma3"):
        export(open_weights(find(str(family("gemma3")))), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_half_the_numbers_are_nearly_the_same(family: Callable[[str], Path], tmp_path: Path) -> None:
    folder = family("qwen2")
    weights = open_weights(find(str(folder)))
    for kind in ("f32", "f16"):
        export(weights, tmp_path / kind, kind=kind)
    sizes = [(tmp_path / kind / PARAMETERS).stat().st_size for kind in ("f32", "f16")]
    assert sizes[1] < sizes[0]
    answer = program(tmp_path / "f16")
    about, tensors = answer.load(tmp_path / "f16" / PARAMETERS)
    reference = np.load(folder / "reference.npz")
    found = answer.Decoder(about["config"], tensors).tell(reference["tokens"][0].tolist())
    assert 0 < np.abs(found - reference["logits"][0, -1]).max() < 0.05


def test_the_parameters_are_a_plain_safetensors_file(family: Callable[[str], Path], tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    export(open_weights(find(str(family("qwen3")))), tmp_path / "out")
    answer = program(tmp_path / "out")
    _, tensors = answer.load(tmp_path / "out" / PARAMETERS)
    theirs = load_file(tmp_path / "out" / PARAMETERS)
    assert theirs.keys() == tensors.keys()
    assert all(np.array_equal(theirs[name], tensors[name]) for name in theirs)


def test_the_program_is_short() -> None:
    text = Path(module.__file__).with_name("answer.py").read_text()
    assert len(text.splitlines()) < 150
    imported = {
        line.split()[1].partition(".")[0]
        for line in text.splitlines()
        if line.startswith(("import ", "from "))
    }
    assert imported - set(sys.stdlib_module_names) == {"numpy"}


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory, weights_path: Callable[[str], Path]) -> Path:
    folder = tmp_path_factory.mktemp("export") / "two files"
    export(open_weights(find(str(weights_path("smollm2-135m")))), folder)
    return folder


@pytest.mark.timeout(900)
def test_it_answers_as_the_kernel_does(smollm2: Path) -> None:
    """In a process of its own that has no llmos, offline, token for token."""
    assert sorted(file.name for file in smollm2.iterdir()) == sorted([PARAMETERS, PROGRAM])

    asked = [(prompt, False) for prompt in PROMPTS] + [("Once upon a time", True)]
    with connect(model="smollm2-135m", numerics="f32", window=512, pool="256MiB", attach=False) as kernel:
        ours = []
        for prompt, raw in asked:
            turn = kernel.spawn().ask(prompt, max_tokens=24, raw=raw)
            ours.append([event.id for event in turn if isinstance(event, Token) and event.id >= 0])
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, json.dumps(asked)],
        cwd=smollm2, capture_output=True, text=True, check=True,
        env={"PATH": os.environ["PATH"], "OPENBLAS_NUM_THREADS": "1"},  # threads that wait spin, on a busy machine
    )  # fmt: skip
    assert json.loads(done.stdout) == ours
    assert min(map(len, ours)) >= 3 and max(map(len, ours)) == 24


def test_its_words_are_the_kernel_s(smollm2: Path, weights_path: Callable[[str], Path]) -> None:
    tokenizer = open_weights(find(str(weights_path("smollm2-135m")))).tokenizer()
    answer = program(smollm2)
    about, _ = answer.load(smollm2 / PARAMETERS)
    theirs = answer.Tokenizer(about)
    texts = [HOSTILE, Path(module.__file__).read_text(), "x" * 200, "", "\n\n\n", *PROMPTS]
    for text in texts:
        assert theirs.encode(text) == tokenizer.encode(text)
    assert b"".join(map(theirs.decode, theirs.encode(HOSTILE))).decode() == HOSTILE


# -- vocabularies ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "qwen2", "llama-bpe", "tekken", "default"])
def test_python_cuts_words_as_the_library_does(pre: str) -> None:
    import re

    words = [HOSTILE]
    for pattern in expressions(pre):
        words = [part for word in words for part in re.split(f"({plain(pattern)})", word) if part]
    assert words == splitter(pre)(HOSTILE)


def test_vocabularies_of_tokenizer_json(tmp_path: Path, family: Callable[[str], Path]) -> None:
    """As Hugging Face writes those of Qwen 2: an expression, NFC, merges, added tokens."""
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        trainers,
    )

    folder = family("qwen2")
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(expressions("qwen2")[0]), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        Path(module.__file__).read_text().splitlines(),
        trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False),
    )
    made.add_special_tokens([AddedToken("<|im_end|>", special=True)])
    made.save(str(folder / "tokenizer.json"))
    weights = open_weights(find(str(folder)))
    export(weights, tmp_path / "out")
    answer = program(tmp_path / "out")
    about, _ = answer.load(tmp_path / "out" / PARAMETERS)
    theirs = answer.Tokenizer(about)
    for text in (HOSTILE, Path(module.__file__).read_text()):
        assert theirs.encode(text) == weights.tokenizer().encode(text)


def test_a_vocabulary_that_does_not_fit_is_refused(family: Callable[[str], Path], tmp_path: Path) -> None:
    folder = family("llama")
    source = json.loads((folder / "tokenizer.json").read_text())
    source["normalizer"] = {"type": "Lowercase"}
    (folder / "tokenizer.json").write_text(json.dumps(source))
    with pytest.raises(UnsupportedModel, match="does not fit into a short program"):
        export(open_weights(find(str(folder))), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -- what stops it -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_nothing_half_written_is_left(
    stop: BaseException, family: Callable[[str], Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"

    def interrupt(task: str, done: int, total: int, unit: str = "", /) -> None:
        if done > total // 2:
            raise stop

    with pytest.raises(KeyboardInterrupt if stop is KeyboardInterrupt else DiskFull):
        export(open_weights(find(str(family("llama")))), out, progress=interrupt)
    assert list(out.iterdir()) == []


def test_a_folder_that_cannot_be_made(family: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsError, match="cannot be written to"):
        export(open_weights(find(str(family("llama")))), tmp_path / "file" / "out")
