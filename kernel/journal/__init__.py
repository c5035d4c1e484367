"""The journal: a durable, hash-chained log of everything that happens to processes.

What: records (`records`), what they amount to (`state`), the file (`store`), its chain (`chain`), the thread that
    writes (`writer`), what a start makes of what it finds (`recovery`), what may be forgotten (`snapshot`).
Invariant: nothing here imports jax, the engine or the model.
Interface: `Journal`, `Retention`, `Loss`, `Record`, `MachineState`, `fold`, `read`; the kinds in `records`.
"""

from llmos.kernel.journal.journal import Journal, read
from llmos.kernel.journal.records import Record
from llmos.kernel.journal.recovery import Loss
from llmos.kernel.journal.snapshot import Retention
from llmos.kernel.journal.state import MachineState, fold

__all__ = ["Journal", "Loss", "MachineState", "Record", "Retention", "fold", "read"]
