"""How an error is told on the command line.

What: the three parts of an error on stderr, one a line, and the exit code of its class.
Invariant: no traceback; nothing that an error quotes from outside can act on the terminal.
Interface: `complain(error) -> exit code`.
"""

from __future__ import annotations

import errno
import sys

from llmos.abi.errors import DiskFull, LLMOSError
from llmos.drivers.terminal import neutralise

INTERNAL = 70  # EX_SOFTWARE: our mistake, not the user's


def complain(error: BaseException) -> int:
    """Writes what happened, why, and what to do; returns the exit code."""
    known = error if isinstance(error, LLMOSError) else _translate(error)
    lines = [f"llmos: {known.what}"]
    lines += [f"  why: {known.why}"] if known.why else []
    lines += [f"  do:  {known.do}"] if known.do else []
    sys.stdout.flush()
    sys.stderr.write(neutralise("\n".join(lines)) + "\n")
    return known.exit_code if isinstance(error, LLMOSError) or not isinstance(known, _Internal) else INTERNAL


class _Internal(LLMOSError):
    """A mistake of ours; never raised, only drawn."""


def _translate(error: BaseException) -> LLMOSError:
    """The nearest leaf of the tree for what the operating system raised."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(
            f"no room on the disk{_at(error)}",
            why=error.strerror or "",
            do="free some space and run it again",
        )
    if isinstance(error, OSError) and error.strerror:
        return LLMOSError(f"{error.strerror.lower()}{_at(error)}", do="check the path and its permissions")
    if isinstance(error, MemoryError):
        return LLMOSError(
            "out of memory", do="make `pool` or `window` in llmos.yaml smaller, or choose a smaller model"
        )
    return _Internal(
        "internal error",
        why=f"{type(error).__name__}: {error}"[:500],
        do="run it again with LLMOS_DEBUG=1 and report the traceback",
    )


def _at(error: OSError) -> str:
    return f": {error.filename}" if error.filename else ""
