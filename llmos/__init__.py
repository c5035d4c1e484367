"""llmos: a language model as the kernel of an operating system.

What: the names that a program needs. Everything else is reached by its floor (`llmos.memory`, ...).
Invariant: importing this package imports neither jax nor any other heavy library.
Interface: `connect`, `Mount`, the error tree's branches, `__version__`.

    import llmos
    with llmos.connect() as kernel:
        turn = kernel.spawn(mounts=["handbook/"]).ask("How many days of leave do I have?")
        for event in turn: ...
        print(turn.answer, turn.citations)
"""

from llmos.abi.errors import (
    Cancelled,
    ConfigError,
    DiskFull,
    DocumentError,
    EngineError,
    LLMOSError,
    MemoryFault,
    ProcessError,
    TemplateError,
    WeightsError,
)
from llmos.connect import connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from llmos.abi.mount import Mount

__version__ = "0.1.0"

__all__ = [
    "Cancelled",
    "ConfigError",
    "DiskFull",
    "DocumentError",
    "EngineError",
    "LLMOSError",
    "MemoryFault",
    "Mount",
    "ProcessError",
    "TemplateError",
    "WeightsError",
    "__version__",
    "connect",
]


def __getattr__(name: str) -> object:
    if name != "Mount":
        raise AttributeError(f"module 'llmos' has no attribute {name!r}")
    from llmos.abi.mount import Mount  # dataclasses would be half of this package's import time

    globals()["Mount"] = Mount
    return Mount
