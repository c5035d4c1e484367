"""Kernels for benchmarks of processes: one with a scripted model, one with a real one, on a state folder.

What: the same kernel, journal included; with a script nothing is measured but the kernel itself.
Invariant: the state lies in the folder that is given, so that another boot can take it up.
Interface: `scripted(folder, script)`, `real(folder, model)`; `SMALL`, the model that is quick to load.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmos.abi.config import Config, MachineConfig
from llmos.connect import load_config
from llmos.kernel.engine.scripted import Script, ScriptedRunner, byte_tokenizer, chat_template
from llmos.kernel.kernel import Kernel

SMALL = "smollm2-135m"


def scripted(folder: Path, script: Script, **runner: Any) -> Kernel:
    """A kernel whose model says what `script` makes of its window."""
    config = Config(machine=MachineConfig(state=folder / "machine"))
    model = ScriptedRunner(script, **runner)
    return Kernel(config, model, byte_tokenizer(), chat_template(), state=folder / "kernel")


def real(folder: Path, model: str = SMALL, **settings: object) -> Kernel:
    """A kernel with a model of the catalogue."""
    from llmos.kernel.boot import boot

    config = load_config(model=model, **{"window": 2048, "pool": "512MiB"} | settings)
    return boot(config, state=folder / "kernel")
