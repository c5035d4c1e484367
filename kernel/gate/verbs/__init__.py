"""What a client can ask a kernel for.

What: one function a verb, by what it is about.
Invariant: nothing here blocks the loop. A client that goes while something is begun for it does not leave it behind.
Interface: `VERBS`: name -> `verb(request, given)`, which returns the request's value or raises.
"""

from llmos.kernel.gate.verbs import machine, processes
from llmos.kernel.gate.verbs.verb import VERBS

__all__ = ["VERBS", "machine", "processes"]
