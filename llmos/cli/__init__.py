"""The command line.

What: `main`, the entry point of the command `llmos`; one module beside it for each verb.
Invariant: whatever happens, the user sees a three-part message and an exit code, never a traceback (unless
    LLMOS_DEBUG=1 asks for one), and Ctrl-C at any moment exits with 130.
Interface: `main(argv) -> exit code`. A verb's module has `add(verbs)` and `run(arguments) -> exit code`; it
    imports nothing heavy at its top, so that `--help` is quick.
"""

# Only what the interpreter has loaded anyway: until `main` runs, Ctrl-C would show a traceback.
import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: "Sequence[str] | None" = None) -> int:
    """Runs one command; returns its exit code."""
    from llmos.cli.interrupts import Interrupts

    interrupts = Interrupts()
    interrupts.install()
    try:
        from llmos.cli.parser import parser

        arguments = parser().parse_args(argv)
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        interrupts.end()
    except BrokenPipeError:
        # The reader of our output left: not an error, but nothing more can be written, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Exception as error:  # the last door: see the invariant
        if interrupts.caused(error):
            interrupts.end()
        if os.environ.get("LLMOS_DEBUG"):
            raise
        from llmos.cli.complain import complain

        return complain(error)
    return code
