"""The gate: how other processes of this machine reach a running kernel.

What: a Unix socket in the kernel's state folder that speaks `abi.wire`; on the kernel's own loop.
Invariant: only this user and root get in. A client can slow or end its own turns, never another's, and nothing that it
    sends ends the kernel. What a client spawned goes with it, unless it was asked something `detached`; turns that it
    alone reads are cancelled when it goes. When the kernel goes, all stays as it stands and goes on at the next boot.
Interface: `Gate(kernel)`, a context manager: `path`, `stopping` (set when a client asked for it), `drain`.

    server.py   the socket                       client.py  a client and its requests
    reading.py  a turn and who reads it          verbs.py   what can be asked for
"""

from llmos.kernel.gate.server import Gate

__all__ = ["Gate"]
