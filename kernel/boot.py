"""Boot: from a configuration to a kernel that answers.

What: prepares JAX, maps the weights, makes the kernel.
Invariant: a failed boot leaves nothing running. One kernel, one model, one engine thread.
Interface: `boot(config, progress) -> Kernel`.
"""

from __future__ import annotations

from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

from llmos.abi.errors import EngineError
from llmos.abi.limits import PAGE_TOKENS
from llmos.abi.progress import Progress, silent
from llmos.kernel.trace import OFF, Trace

if TYPE_CHECKING:
    from pathlib import Path

    from llmos.abi.config import Config
    from llmos.kernel.kernel import Asker, Kernel


def boot(
    config: Config,
    progress: Progress = silent,
    *,
    state: Path | None = None,
    asker: Asker | None = None,
    trace: Trace = OFF,
) -> Kernel:
    """Start a kernel.

    Args:
        state: folder of its journal; None for a private one that goes when the kernel does.
        asker: approves what the monitor asks about; without one everything asked about is refused.
        trace: what happens is written there; closed with the kernel.

    Raises:
        ConfigError: what the configuration says to an app does not fit it.
        JournalInUse: another kernel runs on that state.
        WeightsError: the model cannot be found, fetched or read.
        EngineError: this machine cannot hold the pool.
    """
    started = perf_counter()
    _check_settings(config)
    from llmos.drivers.weights import find, open_weights
    from llmos.kernel.model.parameters import begin_packing

    def loading(done: int, total: int) -> None:
        progress("loading weights", done, total, "bytes")

    weights = open_weights(find(config.kernel.model, progress=progress, cache=config.machine.cache))
    mode, window = config.kernel.numerics, config.kernel.window
    packing = begin_packing(weights, mode, window, loading) if _embedded(config) else None
    prepare_jax(config)  # a second and more of imports, while C++ packs
    from llmos.kernel.model.load import load_model

    model = load_model(weights, mode=mode, window=window, progress=loading, packing=packing)
    from llmos.kernel.engine.blend import Blender
    from llmos.kernel.engine.runner import ModelRunner
    from llmos.kernel.kernel import Kernel

    window = min(window, model.config.context) // PAGE_TOKENS * PAGE_TOKENS
    pages = config.kernel.pool // ModelRunner.page_bytes(model)
    if pages <= window // PAGE_TOKENS:
        raise EngineError(
            f"the pool holds {pages * PAGE_TOKENS} tokens, less than one window of {window}",
            do="raise `kernel.pool` or lower `kernel.window` in llmos.yaml",
        )
    runner = ModelRunner(model, pages=pages, window=window)
    return Kernel(
        config, runner, weights.tokenizer(), weights.template(),
        started=started, progress=progress, state=state, asker=asker, trace=trace,
        blending=partial(Blender, model, runner) if Blender.fits(model) else None,
    )  # fmt: skip


def _check_settings(config: Config) -> None:
    if any(app and app.settings for app in config.apps.values()):  # else nothing is imported for it
        from llmos.kernel.apphost.fit import misfits

        for misfit in misfits(config.apps, config.machine.state / "apps"):
            raise misfit


def _embedded(config: Config) -> bool:
    """Whether the model will run on the CPU kernels, as far as that can be said before JAX is imported."""
    from importlib.util import find_spec

    from llmos.drivers import cpu

    plugins = any(find_spec(name) for name in ("jax_plugins", "libtpu"))
    embedded = config.machine.device == "cpu" or (config.machine.device == "auto" and not plugins)
    return embedded and cpu.available()


def prepare_jax(config: Config) -> None:
    """Settings that must stand before JAX computes anything: device, compilation cache, allocator, threads."""
    from llmos.kernel.quick_jax import import_jax

    import_jax()
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
