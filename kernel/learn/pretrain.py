"""Stage 1: a small decoder from scratch, on real text.

What: a byte-level BPE vocabulary trained on the text (by `tokenizers`), a Llama-like decoder whose every size follows
    from one dial, its depth, next-token training, and a Hugging Face folder that the kernel runs like any other.
Invariant: every twentieth document, chosen by its content's hash, is held out and never learnt from, in whatever order
    and however often the files are given. The vocabulary has the words of chat already, so that stage 2 can follow.
Interface: `pretrain(paths, out, ...)` -> `Pretrained`; `shape(depth, vocab, window)`; `bits_per_byte`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save

from llmos.abi.errors import BadExamples, DocumentError
from llmos.drivers.whole import write_whole
from llmos.kernel.learn.course import Course, Report, Watcher, run
from llmos.kernel.learn.data import text_stream
from llmos.kernel.learn.evaluation import measured
from llmos.kernel.learn.objective import Likelihood
from llmos.kernel.learn.packing import Example
from llmos.kernel.learn.student import Tree, fresh
from llmos.kernel.model.config import ModelConfig
from llmos.kernel.model.names import tensor_name

END, SAY, SAID = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
HELD_OUT = 20  # one document in so many


@dataclass(frozen=True, slots=True)
class Pretrained:
    """What came of it. `held_out` is in bits per byte of text never learnt from."""

    folder: Path
    report: Report
    parameters: int
    held_out: float
    bytes: int


def shape(depth: int, vocab: int, window: int) -> ModelConfig:
    """A decoder of `depth` layers: heads of 64, as wide as 64 * depth, the feed-forward 8/3 as wide as that."""
    dim = 64 * depth
    return ModelConfig(
        family="llama", vocab=vocab, layers=depth, dim=dim, heads=depth, kv_heads=depth, head_dim=64,
        ffn=-(-8 * dim // 3 // 64) * 64, norm_eps=1e-5, rope_theta=1e4, context=window,
    )  # fmt: skip


def pretrain(
    paths: Sequence[Path],
    out: Path,
    *,
    depth: int = 6,
    vocab: int = 8192,
    course: Course | None = None,
    watch: Watcher | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Pretrained:
    """Train a model from nothing on the documents under `paths` into the folder `out`.

    Raises:
        BadExamples: no text, or too little of it.
        TrainingDiverged, LearningError, Cancelled, DiskFull.
    """
    course = course or Course(epochs=1.0, rate=3e-3, micro=8, batch=16384)
    learnt_from, held_out = divide(texts(paths))
    size = sum(len(t.encode()) for t in learnt_from)
    if size < 1 << 16 or not held_out:
        raise BadExamples(
            f"{size} bytes of text are too little",
            why="a vocabulary alone wants more",
            do="name more documents",
        )
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = vocabulary(learnt_from, vocab, out)
    end = tokenizer.token_to_id(END)

    def examples(documents: Sequence[str]) -> list[Example]:
        ids = [e.ids for e in tokenizer.encode_batch(list(documents))]
        return list(text_stream(ids, end, course.window))

    config = shape(depth, tokenizer.get_vocab_size(), course.window)
    student = fresh(config, course.seed, course.window)
    learnt, report = run(
        student,
        [(e,) for e in examples(learnt_from)],
        lambda remember: Likelihood(length=course.window, remember=remember),
        out,
        course,
        watch,
        stop,
    )
    save_model(config, learnt.trained, out)
    count = sum(len(t.encode()) for t in held_out)
    found = measured(
        replace(student, trained=learnt.trained), examples(held_out), course.window, course.micro
    )
    bits = found.loss * found.predictions / math.log(2) / count
    return Pretrained(out, report, student.count()[0], bits, size)


def texts(paths: Sequence[Path]) -> Iterator[str]:
    """The text of every document under `paths` that can be read; of a .jsonl file each row's `text`.

    Raises:
        BadExamples: a path that is not there, or a file named itself that cannot be read.
    """
    from llmos.drivers.documents.reading import format_of, read_document
    from llmos.kernel.learn.data import read_rows

    for path in paths:
        if not path.exists():
            raise BadExamples(f"{path} is not there", do="check the path")
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            if file.suffix == ".jsonl":
                for row in read_rows(file):
                    text = row.fields.get("text")
                    if not isinstance(text, str):
                        raise row.bad("it has no field text")
                    yield text
            elif file == path or format_of(file) is not None:
                try:
                    yield "\n\n".join(block.text for block in read_document(file).blocks)
                except DocumentError as error:
                    if file == path:
                        raise BadExamples(f"{file} cannot be learnt from", why=str(error)) from None


def divide(documents: Iterable[str]) -> tuple[list[str], list[str]]:
    """(to learn from, held out); the same text twice is taken once."""
    seen: set[bytes] = set()
    learnt_from, held_out = list[str](), list[str]()
    for text in documents:
        digest = hashlib.sha256(text.encode(errors="replace")).digest()
        if text.strip() and digest not in seen:
            seen.add(digest)
            (held_out if digest[0] % HELD_OUT == 0 else learnt_from).append(text)
    return learnt_from, held_out


def save_model(config: ModelConfig, trained: Tree, out: Path) -> None:
    """Write config.json and model.safetensors, as Hugging Face's Llama has them."""
    host = jax.device_get(trained)
    tensors: dict[str, Any] = {
        tensor_name("hf", "llama", name): np.asarray(host[name], np.float32)
        for name in ("embed", "final_norm")
    }
    for name, stacked in host["layers"].items():
        for i, values in enumerate(stacked):
            tensors[tensor_name("hf", "llama", name, i)] = np.ascontiguousarray(values, np.float32)
    write_whole(out / "model.safetensors", save(tensors, {"format": "pt"}))
    c = config
    said = dict(
        architectures=["LlamaForCausalLM"], model_type="llama", vocab_size=c.vocab, num_hidden_layers=c.layers,
        hidden_size=c.dim, num_attention_heads=c.heads, num_key_value_heads=c.kv_heads, head_dim=c.head_dim,
        intermediate_size=c.ffn, rms_norm_eps=c.norm_eps, rope_theta=c.rope_theta, max_position_embeddings=c.context,
        tie_word_embeddings=True, hidden_act="silu", torch_dtype="float32",
    )  # fmt: skip
    (out / "config.json").write_text(json.dumps(said, indent=1))


def vocabulary(documents: Sequence[str], size: int, out: Path) -> Any:
    """A byte-level BPE vocabulary trained on `documents`, kept in `out`; the one that lies there is taken again."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    path = out / "tokenizer.json"
    if path.is_file():
        return Tokenizer.from_file(str(path))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END, SAY, SAID],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer, length=len(documents))
    said = {
        "eos_token": END,
        "chat_template": TEMPLATE,
        "add_bos_token": False,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (out / "tokenizer_config.json").write_text(json.dumps(said, indent=1))
    ends = [tokenizer.token_to_id(END), tokenizer.token_to_id(SAID)]
    (out / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    write_whole(path, tokenizer.to_str(pretty=True).encode())
    return tokenizer
