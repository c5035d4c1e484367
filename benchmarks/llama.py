"""llama.cpp, driven through its own low-level API as its own benchmarks drive it.

What: loads a GGUF with `llama-cpp-python`'s C bindings and measures decoding, prefill, batched streams and the
    first token; also gives logits for the parity reference. Importing this module does not import llama_cpp.
Invariant: llama.cpp gets its best case: its batch API, no Python sampler (greedy by one numpy argmax), the best
    of threads {1, 2}, flash attention on and off, micro-batches of 128 and 512, each after a warm-up.
Interface: `Llama(path, Settings(...), context=, streams=)` as a context manager; `.evaluate`, `.decode`,
    `.prefill`, `.streams`; `best(llama, probe, choices)` finds the best settings; `installed()` says whether
    it can run.

`python -m benchmarks.llama MODEL.gguf` prints llama.cpp's own table.
"""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]
F32, F16 = 0, 1  # ggml's numbers of the two types, for the K and V caches


@dataclass(frozen=True, slots=True)
class Settings:
    """llama.cpp's own knobs that change speed or arithmetic on a CPU."""

    threads: int = 2
    flash: bool = True
    ubatch: int = 512
    kv_type: int = F16

    def __str__(self) -> str:
        kv = "f32" if self.kv_type == F32 else "f16"
        return f"threads={self.threads} flash={'on' if self.flash else 'off'} ubatch={self.ubatch} kv={kv}"


def grid(ubatches: Sequence[int] = (128, 512)) -> list[Settings]:
    """All settings worth trying; the micro-batch matters only where a step has more tokens than the smallest."""
    return [Settings(t, f, u) for u, t, f in itertools.product(ubatches, (2, 1), (True, False))]


def installed() -> bool:
    """Whether `llama-cpp-python` is there (it is an extra: it compiles for some minutes)."""
    return importlib.util.find_spec("llama_cpp") is not None


def bindings() -> Any:
    """The C bindings, with llama.cpp's chatter turned off."""
    import llama_cpp

    if not hasattr(bindings, "silent"):

        @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
        def silent(level: int, text: bytes, data: object) -> None:
            if level == 4:  # errors only; 5 continues a line of any level
                sys.stderr.write(text.decode("utf-8", "replace"))

        llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        bindings.silent = silent  # type: ignore[attr-defined]  # C keeps a pointer to it
    return llama_cpp


def flags() -> str:
    """Version and the processor features that llama.cpp was built with."""
    api = bindings()
    return f"llama-cpp-python {api.__version__}; {api.llama_print_system_info().decode().strip(' |')}"


class Llama:
    """One GGUF file and one context of llama.cpp.

    Args:
        path: the file.
        settings: threads, flash attention, micro-batch, cache type.
        context: token slots of a stream.
        streams: sequences that may be decoded side by side.
    """

    def __init__(self, path: Path, settings: Settings, *, context: int, streams: int = 1) -> None:
        self.api = api = bindings()
        self.settings, self.context, self.width = settings, context, streams
        self._model = api.llama_model_load_from_file(str(path).encode(), api.llama_model_default_params())
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot load {path}")
        self.vocab = api.llama_model_get_vocab(self._model)
        self.vocab_size = int(api.llama_vocab_n_tokens(self.vocab))
        self._context = self._batch = None
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """A fresh context with other settings over the same weights."""
        api = self.api
        self._free_context()
        self.settings = settings
        params = api.llama_context_default_params()
        params.n_ctx = self.context * self.width
        params.n_seq_max = self.width
        params.n_batch = max(2048, self.width)
        params.n_ubatch = settings.ubatch
        params.n_threads = params.n_threads_batch = settings.threads
        params.flash_attn_type = 1 if settings.flash else 0
        params.type_k = params.type_v = settings.kv_type
        self._capacity = params.n_batch
        self._context = api.llama_init_from_model(self._model, params)
        if not self._context:
            raise RuntimeError(f"llama.cpp refuses the context: {settings}")
        self._batch = api.llama_batch_init(self._capacity, 0, 1)
        self.clear()

    def clear(self) -> None:
        """Forget every sequence."""
        self.api.llama_memory_clear(self.api.llama_get_memory(self._context), True)
        self.filled = [0] * self.width

    def feed(self, rows: Sequence[tuple[int, Sequence[int]]], *, every: bool = False) -> list[int]:
        """Queue and compute tokens: `rows` are (stream, tokens), at most 2,048 tokens together.

        Returns the batch indices that have logits: each row's last, or all of them with `every`.
        """
        batch, n, wanted = self._batch, 0, []
        for stream, tokens in rows:
            for i, token in enumerate(tokens):
                batch.token[n] = token
                batch.pos[n] = self.filled[stream] + i
                batch.n_seq_id[n] = 1
                batch.seq_id[n][0] = stream
                last = every or i + 1 == len(tokens)
                batch.logits[n] = last
                if last:
                    wanted.append(n)
                n += 1
            self.filled[stream] += len(tokens)
        batch.n_tokens = n
        if (rc := self.api.llama_decode(self._context, batch)) != 0:
            raise RuntimeError(f"llama_decode returned {rc}")
        return wanted

    def logits(self, index: int) -> Logits:
        """Logits [V] of a batch index, without a copy: valid until the next `feed`."""
        pointer = self.api.llama_get_logits_ith(self._context, index)
        return np.ctypeslib.as_array(pointer, shape=(self.vocab_size,))

    def evaluate(self, tokens: Sequence[int], *, keep: int | None = None) -> Logits:
        """Logits [T, V] of the last `keep` positions (default all) of one sequence from position 0."""
        self.clear()
        first = 0 if keep is None else len(tokens) - keep
        if first:
            self.feed([(0, tokens[:first])])
        wanted = self.feed([(0, tokens[first:])], every=True)
        return np.stack([self.logits(i).copy() for i in wanted])

    def tokenize(self, text: str, *, control: bool = False) -> list[int]:
        """Token ids without BOS; `control` recognises control tokens."""
        data = text.encode()
        out = (self.api.llama_token * (len(data) + 8))()
        n = self.api.llama_tokenize(self.vocab, data, len(data), out, len(out), False, control)
        return list(out[:n])

    # measurements

    def decode(self, context: int, tokens: int = 48) -> float:
        """Tokens a second of one stream, greedy, with `context` tokens before the first."""
        self.clear()
        for start in range(0, context, 512):
            index = self.feed([(0, filler(min(512, context - start)))])[-1]
        token = int(self.logits(index).argmax())
        for _ in range(3):  # the first steps allocate
            token = int(self.logits(self.feed([(0, [token])])[0]).argmax())
        start_s = time.perf_counter()
        for _ in range(tokens):
            token = int(self.logits(self.feed([(0, [token])])[0]).argmax())
        return tokens / (time.perf_counter() - start_s)

    def prefill(self, tokens: int) -> float:
        """Prompt tokens a second, up to the argmax of the last one's logits."""
        self.clear()
        prompt = filler(tokens)
        start_s = time.perf_counter()
        int(self.logits(self.feed([(0, prompt)])[0]).argmax())
        return tokens / (time.perf_counter() - start_s)

    def streams(self, n: int, context: int = 64, tokens: int = 24) -> float:
        """Tokens a second of `n` streams together, greedy, each with its own `context` tokens."""
        self.clear()
        current = []
        for stream in range(n):
            index = self.feed([(stream, filler(context, seed=stream))])[0]
            current.append(int(self.logits(index).argmax()))
        steps = [self._step(current) for _ in range(2)]
        start_s = time.perf_counter()
        steps += [self._step(current) for _ in range(tokens)]
        return n * tokens / (time.perf_counter() - start_s)

    def _step(self, current: list[int]) -> None:
        wanted = self.feed([(stream, [token]) for stream, token in enumerate(current)])
        current[:] = [int(self.logits(i).argmax()) for i in wanted]

    def _free_context(self) -> None:
        if self._batch is not None:
            self.api.llama_batch_free(self._batch)
        if self._context is not None:
            self.api.llama_free(self._context)
        self._context = self._batch = None

    def close(self) -> None:
        """Give the memory back."""
        self._free_context()
        if self._model is not None:
            self.api.llama_model_free(self._model)
            self._model = None

    def __enter__(self) -> Llama:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def filler(n: int, seed: int = 0) -> list[int]:
    """Ordinary token ids, the same for both sides of a comparison (every model here has more than 20,000)."""
    return [int(t) for t in np.random.default_rng(seed).integers(1_000, 20_000, n)]


Measure = Callable[[Llama], float]


def best(llama: Llama, probe: Measure, choices: Sequence[Settings]) -> Settings:
    """Configure `llama` with the setting in which `probe` (higher is better) does best, and return it."""
    scores = {}
    for settings in choices:
        llama.configure(settings)
        probe(llama)  # the first run touches fresh memory
        scores[settings] = probe(llama)
    winner = max(scores, key=lambda s: scores[s])
    llama.configure(winner)
    return winner


def main() -> None:
    """Print llama.cpp's own figures for the files named on the command line."""
    print(flags(), flush=True)
    for name in sys.argv[1:]:
        path = Path(name)
        # title, probe that chooses the settings, measurement, micro-batches, context, streams
        jobs: list[tuple[str, Measure, Measure, Sequence[int], int, int]] = [
            ("decode 128", lambda x: x.decode(128, 16), lambda x: x.decode(128), (512,), 512, 1),
            ("decode 2048", lambda x: x.decode(512, 16), lambda x: x.decode(2048, 24), (512,), 2304, 1),
            ("prefill 128", lambda x: x.prefill(128), lambda x: x.prefill(128), (512,), 256, 1),
            ("prefill 512", lambda x: x.prefill(512), lambda x: x.prefill(512), (128, 512), 768, 1),
            ("prefill 2048", lambda x: x.prefill(512), lambda x: x.prefill(2048), (128, 512), 2304, 1),
        ]
        for n in (1, 4, 16, 32):
            jobs.append(
                (
                    f"streams {n}",
                    lambda x, n=n: x.streams(n, 16, 8),
                    lambda x, n=n: x.streams(n),
                    (512,),
                    256,
                    n,
                )
            )
        for title, probe, measure, ubatches, context, streams in jobs:
            choices = grid(ubatches)
            with Llama(path, choices[0], context=context, streams=streams) as llama:
                best(llama, probe, choices)
                figures = [measure(llama) for _ in range(3)]
                print(
                    f"{path.stem:10} {title:13} best {max(figures):8.1f}  median {np.median(figures):8.1f} tok/s"
                    f"   {llama.settings}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
