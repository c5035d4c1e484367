"""The reference of the GGUF models: llama.cpp in f32, recorded once.

What: writes each file again with every tensor dequantised to F32, lets llama.cpp compute the logits of 64 forced
    tokens after each prompt (f32 K and V, no flash attention), keeps the 64 likeliest tokens a position, and
    measures llama.cpp's own quantised arithmetic on the original file by the same yardstick.
Invariant: the reference shares no arithmetic with ours: llama.cpp's tokenizer and matrix products, the `gguf`
    package's dequantisation.
Interface: `python -m benchmarks.reference.llama_fixture NAME=FILE[:PROMPTS] ...` writes
    benchmarks/reference/NAME.npz and updates llama_quantised.json.

In the npz, for prompts p = 0..: `tokens` int32 (all sequences one after the other), `lengths` int32 [P] (tokens
of each, the forced ones included), and for the 64 forced tokens of each `ids` int32 [P, 64, 64], `logprobs` f32
[P, 64, 64], `rest` f32 [P, 64] (see kl.py). Position t predicts forced token t.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np

from benchmarks import llama
from benchmarks.reference.kl import Head, divergence, head, log_softmax
from benchmarks.reference.prompts import PROMPTS, Prompt

FOLDER = Path(__file__).parent
FORCED = 64
# One thread: llama.cpp's threads spin, which is slow beside any other work.
REFERENCE = llama.Settings(threads=1, flash=False, kv_type=llama.F32)
QUANTISED = llama.Settings(threads=1, flash=True, kv_type=llama.F16)  # its own defaults otherwise


def widen(source: Path, target: Path) -> None:
    """Copy a GGUF with every tensor as F32."""
    reader = gguf.GGUFReader(source)
    architecture = str(reader.fields["general.architecture"].contents())
    writer = gguf.GGUFWriter(target, architecture)
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        if field.name == "general.file_type":
            writer.add_file_type(gguf.LlamaFileType.ALL_F32)
            continue
        inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], inner)
    for tensor in reader.tensors:
        shape = [int(n) for n in reversed(tensor.shape)]
        writer.add_tensor_info(tensor.name, shape, np.dtype(np.float32), int(np.prod(shape)) * 4)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in reader.tensors:
        dense = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        writer.write_tensor_data(dense)
    writer.close()


def sequence(model: llama.Llama, prompt: Prompt) -> list[int]:
    """The prompt's tokens with the forced ones at the end."""
    if prompt.kind == "text":
        tokens = model.tokenize(prompt.text)
        if len(tokens) < FORCED + 8:
            raise ValueError(f"prompt {prompt.name} is too short: {len(tokens)} tokens")
        return tokens
    chat = f"<|im_start|>user\n{prompt.text}<|im_end|>\n<|im_start|>assistant\n"
    tokens = model.tokenize(chat, control=True)
    model.clear()
    index = model.feed([(0, tokens)])[0]
    for _ in range(FORCED):
        tokens = [*tokens, int(model.logits(index).argmax())]
        index = model.feed([(0, tokens[-1:])])[0]
    return tokens


def record(name: str, file: Path, prompts: tuple[Prompt, ...]) -> dict[str, float]:
    """Write one model's fixture; returns what llama.cpp's quantised arithmetic loses."""
    sequences, references = [], []
    with tempfile.TemporaryDirectory() as folder:
        wide = Path(folder) / "f32.gguf"
        widen(file, wide)
        with llama.Llama(wide, REFERENCE, context=2048) as model:
            for prompt in prompts:
                tokens = sequence(model, prompt)
                sequences.append(tokens)
                references.append(model.evaluate(tokens[:-1], keep=FORCED))
                print(f"{name}: {prompt.name}, {len(tokens)} tokens", file=sys.stderr, flush=True)
    heads = [head(logits) for logits in references]
    np.savez_compressed(
        FOLDER / f"{name}.npz",
        tokens=np.concatenate([np.asarray(s, np.int32) for s in sequences]),
        lengths=np.asarray([len(s) for s in sequences], np.int32),
        ids=np.stack([h.ids for h in heads]),
        logprobs=np.stack([h.logprobs for h in heads]),
        rest=np.stack([h.rest for h in heads]),
    )
    with llama.Llama(file, QUANTISED, context=2048) as model:
        return compare(model, sequences, references, heads)


def compare(
    model: llama.Llama, sequences: list[list[int]], references: list[llama.Logits], heads: list[Head]
) -> dict[str, float]:
    """Mean KL (over 64 and the rest, and over everything) and top-1 agreement with the reference."""
    kls, full, same = [], [], []
    for tokens, reference, kept in zip(sequences, references, heads, strict=True):
        logits = model.evaluate(tokens[:-1], keep=FORCED)
        p, q = log_softmax(reference), log_softmax(logits)
        kls.append(divergence(kept, logits))
        full.append((np.exp(p) * (p - q)).sum(-1))
        same.append(logits.argmax(-1) == reference.argmax(-1))
    return {
        "mean_kl": float(np.mean(kls)),
        "mean_kl_full": float(np.mean(full)),
        "top1_agreement": float(np.mean(same)),
    }


def main() -> None:
    """Record the models named on the command line."""
    results = FOLDER / "llama_quantised.json"
    known = json.loads(results.read_text()) if results.exists() else {}
    for argument in sys.argv[1:]:
        name, _, rest = argument.partition("=")
        file, _, count = rest.partition(":")
        every = len(PROMPTS) // int(count) if count else 1
        known[name] = record(name, Path(file), PROMPTS[::every])
        known[name]["prompts"] = len(PROMPTS[::every])
        known["llama.cpp"] = llama.flags()
        results.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")
        print(name, known[name])


if __name__ == "__main__":
    main()
