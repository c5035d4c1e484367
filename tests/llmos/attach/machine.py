"""A machine with a scripted model, driven as a program: `python -m tests.llmos.attach.machine STATE up|down|down-now`.

What: what `llmos up` and `llmos down` do, with a kernel that boots in no time; prints one JSON object.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from llmos.abi.config import Config, MachineConfig
from llmos.abi.errors import EngineError, LLMOSError
from llmos.abi.progress import Progress
from llmos.attach import daemon
from llmos.kernel.engine.scripted import ScriptedRunner, byte_tokenizer, chat_template
from llmos.kernel.kernel import Kernel

LONG = "word " * 1500
STEP_S = 0.005


class Slow(ScriptedRunner):
    """Takes its time, as a model does."""

    def forward(self, batch: Any) -> list[int]:
        time.sleep(STEP_S)
        return super().forward(batch)


def script(window: str) -> str:
    question = window.rpartition("<|im_start|>user\n")[2].partition("<|im_end|>")[0]
    return LONG if question == "long" else f"You said {question}."


def boot(config: Config, progress: Progress, state: Path) -> Kernel:
    progress("booting", 1, 2)
    if (state.parent / "broken").exists():
        raise EngineError("this machine is broken", why="a test wants it so", do="mend it")
    time.sleep(0.3)
    progress("booting", 2, 2)
    return Kernel(config, Slow(script), byte_tokenizer(), chat_template(), state=state)


def main(state: str, verb: str) -> None:
    config = Config(machine=MachineConfig(state=Path(state)))
    told: list[str] = []
    try:
        if verb == "up":
            started = daemon.up(config, lambda task, *_: told.append(task), boot=boot)
            value: Any = {"pid": started.pid, "already": started.already, "told": told}
        else:
            value = {"pid": daemon.down(config, now=verb == "down-now")}
    except LLMOSError as error:
        value = {"error": [type(error).__name__, error.what, error.why, error.do]}
    print(json.dumps(value))


if __name__ == "__main__":
    main(*sys.argv[1:])
