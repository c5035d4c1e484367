"""llmos: a language model as the kernel of an operating system.

What: the names that a program needs. Everything else is reached by its floor (`llmos.memory`, ...).
Invariant: importing this package imports neither jax nor any other heavy library.
Interface: `connect`, `Mount`, the error tree's branches, `__version__`; for apps: `App`, `syscall`, `query`, `Call`,
    `Target`, `Payload`, `Text`, `Image`, `File`.

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
    from llmos.abi.app import App, Call, File, Image, Payload, Target, Text, query, syscall
    from llmos.abi.mount import Mount

__version__ = "0.1.0"

__all__ = [
    "App",
    "Call",
    "Cancelled",
    "ConfigError",
    "DiskFull",
    "DocumentError",
    "EngineError",
    "File",
    "Image",
    "LLMOSError",
    "MemoryFault",
    "Mount",
    "Payload",
    "ProcessError",
    "Target",
    "TemplateError",
    "Text",
    "WeightsError",
    "__version__",
    "connect",
    "query",
    "syscall",
]

# Imported when first asked for: dataclasses would be half of this package's import time.
_HOME = dict.fromkeys(
    ("App", "Call", "File", "Image", "Payload", "Target", "Text", "query", "syscall"), "llmos.abi.app"
) | {"Mount": "llmos.abi.mount"}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'llmos' has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value
