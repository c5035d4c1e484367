"""The command line.

What: `main`, the entry point of the command `llmos`; one module beside it for each verb.
Invariant: whatever happens, the user sees a three-part message and an exit code, never a traceback (unless
    LLMOS_DEBUG=1 asks for one), and Ctrl-C at any moment exits with 130.
Interface: `main(argv) -> exit code`. A verb's module has `add(verbs)` and `run(arguments) -> exit code`; it
    imports nothing heavy at its top, so that `--help` is quick.
"""

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

INTERRUPTED = 130


class _Interrupts:
    """Turns the first Ctrl-C into KeyboardInterrupt and remembers it; an impatient third one ends at once."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        self.seen += 1
        if self.seen > 2:
            os._exit(INTERRUPTED)
        raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    interrupts = _Interrupts()
    try:
        signal.signal(signal.SIGINT, interrupts)
        from llmos.cli.parser import parser

        arguments = parser().parse_args(argv)
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:
        # The reader of our output left: not an error, but nothing more can be written, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Exception as error:  # the last door: see the invariant
        if interrupts.seen:  # a library may wrap the KeyboardInterrupt that it was hit by
            return _interrupted()
        if os.environ.get("LLMOS_DEBUG"):
            raise
        from llmos.cli.complain import complain

        return complain(error)
    return code


def _interrupted() -> int:
    sys.stderr.write("\nllmos: interrupted\n")
    return INTERRUPTED
