"""Boot: from a configuration to a kernel that answers.

What: prepares JAX, maps the weights, starts the engine; `Kernel` owns them until it is closed.
Invariant: a failed boot leaves nothing running. One kernel, one model, one engine thread.
Interface: `boot(config, progress) -> Kernel`; `Kernel.spawn`, `next_distribution`, `volume`, `close`.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import threading
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING

from llmos.abi.errors import EngineError
from llmos.abi.limits import PAGE_TOKENS
from llmos.abi.mount import Mount, as_mount
from llmos.abi.progress import Progress, silent

if TYPE_CHECKING:
    from llmos.abi.config import Config
    from llmos.drivers.weights import Weights
    from llmos.kernel.model.load import Model
    from llmos.kernel.process import Process
    from llmos.memory.embedding import Encoder
    from llmos.memory.volume import Volume


def boot(config: Config, progress: Progress = silent) -> Kernel:
    """Start a kernel.

    Raises:
        WeightsError: the model cannot be found, fetched or read.
        EngineError: this machine cannot hold the pool.
    """
    started = perf_counter()
    prepare_jax(config)
    from llmos.drivers.weights import find, open_weights
    from llmos.kernel.model.load import load_model

    weights = open_weights(find(config.kernel.model, progress=progress, cache=config.machine.cache))
    model = load_model(
        weights,
        mode=config.kernel.numerics,
        window=config.kernel.window,
        progress=lambda done, total: progress("loading weights", done, total, "bytes"),
    )
    return Kernel(config, weights, model, started, progress)


def prepare_jax(config: Config) -> None:
    """Settings that must stand before JAX computes anything: device, compilation cache, allocator, threads."""
    import jax

    from llmos.drivers import cpu

    if config.machine.device != "auto":
        jax.config.update(
            "jax_platforms", {"gpu": "cuda,cpu", "tpu": "tpu,cpu", "cpu": "cpu"}[config.machine.device]
        )
    cache = config.machine.cache / "jax"
    cache.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    if cpu.available():
        cpu.tune_allocator()
        if config.machine.threads != "auto":
            cpu.set_threads(config.machine.threads)


class Kernel:
    """A running machine: one model, one engine, its processes. A context manager."""

    def __init__(
        self, config: Config, weights: Weights, model: Model, started: float, progress: Progress
    ) -> None:
        from llmos.kernel.engine.engine import Engine
        from llmos.kernel.engine.runner import ModelRunner
        from llmos.kernel.prompt import ChatPrompt

        self.config, self.model = config, model
        self.window = min(config.kernel.window, model.config.context) // PAGE_TOKENS * PAGE_TOKENS
        pages = config.kernel.pool // ModelRunner.page_bytes(model)
        if pages <= self.window // PAGE_TOKENS:
            raise EngineError(
                f"the pool holds {pages * PAGE_TOKENS} tokens, less than one window of {self.window}",
                do="raise `kernel.pool` or lower `kernel.window` in llmos.yaml",
            )
        self.tokenizer = weights.tokenizer()
        self.prompt = ChatPrompt(self.tokenizer, weights.template())
        self.runner = ModelRunner(model, pages=pages, window=self.window)
        self.engine = Engine(self.runner)
        self._progress = progress
        self._pids = itertools.count(1)
        self._volumes: dict[Path, Volume] = {}
        self._lock = threading.Lock()
        self.boot_s = perf_counter() - started

    def __enter__(self) -> Kernel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the engine and let go of the volumes. Idempotent."""
        self.engine.close()
        for volume in self._volumes.values():
            volume.close()
        self._volumes.clear()

    @cached_property
    def encoder(self) -> Encoder:
        """The sentence encoder of the volumes; loaded on first use."""
        from llmos.drivers.weights import find
        from llmos.memory.embedding import Encoder

        files = find(self.config.memory.encoder, progress=self._progress, cache=self.config.machine.cache)
        return Encoder.load(files.path, files.folder / "tokenizer.json")

    def spawn(
        self, mounts: Iterable[Mount | str | Path] = (), *, progress: Progress | None = None
    ) -> Process:
        """A new process that can read `mounts`."""
        from llmos.kernel.process import Process

        process = Process(self, next(self._pids))
        for mount in mounts:
            process.mount(as_mount(mount), progress or self._progress)
        return process

    def volume(self, mount: Mount, progress: Progress = silent) -> Volume:
        """The volume of `mount`, brought up to date with its files."""
        from llmos.memory.volume import Volume

        path = mount.path.resolve()
        with self._lock:
            volume = self._volumes.get(path)
            if volume is None:
                volume = Volume.open(self.config.machine.state / "volumes" / volume_name(path), self.encoder)
                self._volumes[path] = volume
        volume.mount(path, label=mount.label, progress=progress)
        return volume

    def next_distribution(self, text: str, k: int = 10) -> list[tuple[str, float]]:
        """The `k` likeliest next tokens after `text`, read as a base model would, with their probabilities."""
        from math import exp

        from llmos.kernel.engine.sequence import Request

        (item,) = self.engine.submit(Request(tokens=tuple(self.raw_tokens(text)), max_tokens=1, top=k))
        name = self.tokenizer.token_bytes
        return [(name(i).decode("utf-8", "replace"), exp(logprob)) for i, logprob in item.top]

    def raw_tokens(self, text: str) -> list[int]:
        """`text` as a base model reads it: no template, begun as the model was taught to begin."""
        t = self.tokenizer
        ids = t.encode(text)
        if t.bos_id is not None and (t.add_bos or not ids):
            ids.insert(0, t.bos_id)
        return ids


def volume_name(path: Path) -> str:
    """The folder of a volume: readable, and one for each path."""
    slug = re.sub(r"[^a-z0-9]+", "-", path.name.lower()).strip("-")[:40] or "root"
    return f"{slug}-{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
