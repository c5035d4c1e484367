"""Code that a model wrote, run where it can do no harm.

What: starts a program behind four layers, none of which is optional: an unprivileged user id with an environment of its
    own; bubblewrap (new namespaces, no capabilities, read-only system, small file systems in memory); a seccomp filter
    that allows about two hundred system calls and refuses all others; a cgroup and rlimits.
Invariant: where a layer cannot be had nothing is run: `SandboxMissing` says which one and how to get it. Who holds a
    `Sandbox` can always end it, whatever runs in it; its end is the end of every process in it. No file of the host can
    be written from inside: the working folder is in memory, and `Mirror` carries regular files out and in.
Interface: `Sandbox(program, limits)`, `Limits`, `Mirror(sandbox, volume)`, `Clip`, `clean(text)`.
    Errors: SandboxMissing, SandboxEnded, SandboxFull.
"""

from llmos.drivers.sandbox.errors import SandboxEnded, SandboxFull, SandboxMissing
from llmos.drivers.sandbox.limits import Limits
from llmos.drivers.sandbox.mirror import Mirror
from llmos.drivers.sandbox.output import Clip, clean
from llmos.drivers.sandbox.sandbox import Sandbox

__all__ = ["Clip", "Limits", "Mirror", "Sandbox", "SandboxEnded", "SandboxFull", "SandboxMissing", "clean"]
