"""Where apps run: processes of their own, started on first use, ended with all they started.

What: calls apps for the kernel. Stateless apps of ours share one process, stateful ones get one per agent,
    foreign servers run as they are configured, trusted pure ones may run inside of the kernel.
Invariant: nothing that an app does raises here: every call ends in an `Outcome`. A call past its deadline is
    cancelled; if its code runs on regardless, its process is killed, and no other. A foreign server whose
    syscalls are not those that were confirmed is not called.
Interface: `AppHost(loop, entries, folder)`: `manifests`, `call`, `took_effect`, `confirm`, `release`, `ps`, `close`;
    the values `Entry`, `Ours`, `CallContext`, `Outcome`, `AppProcess`.
"""

from llmos.drivers.mcp.source import Http, Stdio
from llmos.kernel.apphost.host import AppHost
from llmos.kernel.apphost.values import AppProcess, CallContext, Entry, Ours, Outcome

__all__ = ["AppHost", "AppProcess", "CallContext", "Entry", "Http", "Ours", "Outcome", "Stdio"]
