"""A kernel that runs elsewhere, as if it ran here: clients of `kernel.gate`.

What: proxies of kernel, process and turn over the kernel's Unix socket.
Invariant: same methods, events and errors as the real ones (`abi.machine`). No jax, no engine, no model is imported.
Interface: `attach(state) -> RemoteKernel | None`, `RemoteKernel`, `RemoteProcess`, `RemoteTurn`.

    connection.py   frames, requests, answers    machine.py   the kernel
    process.py      its processes                turn.py      their turns
"""

from llmos.attach.machine import RemoteKernel, attach
from llmos.attach.process import RemoteProcess
from llmos.attach.turn import RemoteTurn

__all__ = ["RemoteKernel", "RemoteProcess", "RemoteTurn", "attach"]
