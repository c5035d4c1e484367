"""A line that is being typed reaches the process that will answer it, and nobody else."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from llmos.abi.config import Config
from llmos.apps.shell.jobs import Job
from llmos.apps.shell.shell import Shell, Start
from llmos.testing import scripted_kernel

__all__ = ["scripted_kernel"]


def test_what_is_typed_is_expected_of_the_foreground(scripted_kernel: Any) -> None:
    kernel = scripted_kernel(lambda window: "Yes.")
    link: Any = SimpleNamespace(kernel=kernel, ready=True, attached=False)
    shell = Shell(link, face=SimpleNamespace(), start=Start(config=Config()))  # type: ignore[arg-type]
    shell.expect("Is anybody there?")  # nobody is: nothing is spawned for it
    assert kernel.ps() == []
    process = kernel.spawn(instructions="You know every boat in the harbour. " * 4)
    shell.job = Job(process, lambda *_: None)
    for text in ("/history", "!ls", ""):
        shell.expect(text)
    assert len(shell.jobs) == 0 and process.ahead._stream is not None  # "" is what any question needs
    stream = process.ahead._stream
    shell.expect("Which boat is the oldest?")
    assert process.ahead._stream is not stream
    end = time.monotonic() + 60
    while process.ahead._stream.finished is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert process.ask("Which boat is the oldest?").usage.cached_tokens > 64
    process.close()
    shell.expect("Still there?")  # nor does it complain
