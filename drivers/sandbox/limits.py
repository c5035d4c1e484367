"""How much code in a sandbox may use.

What: one frozen value, with bounds that are checked where it is made from configuration.
Invariant: every limit is enforced from outside of what is limited, by the kernel or by who started it.
Interface: `Limits`; all fields are keys that an app's section of `llmos.yaml` may have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from llmos.abi.config import Bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one sandbox may use.

    Attributes:
        seconds: wall time of one cell or command.
        cpu_seconds: processor time of one process in all its life.
        cpus: processors that all processes keep busy together.
        memory: bytes of all processes together, their files in memory included.
        disk: bytes of the working folder, and again of the temporary folder; both lie in memory.
        processes: processes and threads at once.
        files: open files of one process.
        output: characters that are kept of what a cell or command prints; the middle is left out, and told.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    seconds: Annotated[float, Field(strict=True, gt=0, le=600)] = 60.0
    cpu_seconds: Annotated[int, Field(strict=True, ge=1, le=1 << 30)] = 3600
    cpus: Annotated[float, Field(strict=True, ge=0.05, le=1024)] = 1.0
    memory: Annotated[Bytes, Field(strict=True, ge=64 << 20)] = 2 << 30
    disk: Annotated[Bytes, Field(strict=True, ge=1 << 20)] = 512 << 20
    processes: Annotated[int, Field(strict=True, ge=4, le=4096)] = 128
    files: Annotated[int, Field(strict=True, ge=32, le=65536)] = 256
    output: Annotated[int, Field(strict=True, ge=200, le=1 << 20)] = 16_000
