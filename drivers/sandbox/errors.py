"""What can go wrong with a sandbox.

What: three errors of the branch `AppError`.
Invariant: each says what happened, why, and what to do.
Interface: `SandboxMissing`, `SandboxEnded`, `SandboxFull`.
"""

from __future__ import annotations

from llmos.abi.errors import AppError, AppUnavailable


class SandboxMissing(AppUnavailable):
    """A layer of the sandbox cannot be had on this machine, so nothing was run."""


class SandboxEnded(AppError):
    """What ran in a sandbox is gone, with all it held: it went over a limit, or ended, or broke the protocol."""


class SandboxFull(AppError):
    """Files that do not fit the sandbox's disk, or are too many to be carried."""
