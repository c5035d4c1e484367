"""The shell: a conversation with one process, on a terminal or through a pipe.

What: reads a line, asks it, streams the answer; lines that start with `/` are commands to the shell itself.
Invariant: Ctrl-C ends the running turn, never the shell; an error ends the turn with its message, never the
    shell; nothing that the model writes can act on the terminal.
Interface: `Shell(kernel, mounts=...).run() -> exit code`.
"""

from llmos.apps.shell.conversation import Shell

__all__ = ["Shell"]
