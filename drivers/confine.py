"""What this machine lets an ordinary program do to confine itself: tried, not read from version numbers.

What: a program of its own (`python -I -S confine.py`), for it shuts itself in; prints one JSON object, each part
    true where it worked, else the reason.
Invariant: standard library only; every part is judged by what it then forbids. Nothing outlives the process.
Interface: run it; keys `user_namespaces`, `landlock`, `seccomp`.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import struct
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
NEW_USER, NEW_NET, NEW_PID = 0x10000000, 0x40000000, 0x20000000
NO_NEW_PRIVS, SET_SECCOMP, FILTER = 38, 22, 2
LANDLOCK_CREATE, LANDLOCK_RESTRICT = 444, 446
READ_FILE = 1 << 2
GETPPID = {"x86_64": 110, "aarch64": 173}


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def user_namespaces() -> None:
    """A user namespace, and with it a network of one's own, in which this program is root."""
    uid = os.getuid()
    _check(LIBC.unshare(NEW_USER))
    with open("/proc/self/uid_map", "w") as file:
        file.write(f"0 {uid} 1")
    _check(LIBC.unshare(NEW_NET | NEW_PID))
    if os.getuid() != 0:
        raise OSError(0, "the mapping has no effect")


def landlock() -> None:
    """A rule set that forbids reading any file."""
    rules = ctypes.create_string_buffer(struct.pack("Q", READ_FILE))
    made = _check(LIBC.syscall(LANDLOCK_CREATE, rules, ctypes.c_size_t(8), 0))
    _check(LIBC.prctl(NO_NEW_PRIVS, 1, 0, 0, 0))
    _check(LIBC.syscall(LANDLOCK_RESTRICT, made, 0))
    try:
        with open("/proc/self/status"):
            raise OSError(0, "it forbids nothing")
    except PermissionError:
        pass


def seccomp() -> None:
    """A filter that refuses one system call."""
    number = GETPPID.get(platform.machine())
    if number is None:
        raise OSError(0, f"not tried on {platform.machine()}")
    # load the call's number; is it that one? then fail with EPERM, else allow
    program = struct.pack(
        "HBBIHBBIHBBIHBBI",
        *(0x20, 0, 0, 0), *(0x15, 0, 1, number), *(0x06, 0, 0, 0x00050001), *(0x06, 0, 0, 0x7FFF0000),
    )  # fmt: skip
    code = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(code)))
    _check(LIBC.prctl(NO_NEW_PRIVS, 1, 0, 0, 0))
    _check(LIBC.prctl(SET_SECCOMP, FILTER, header, 0, 0))
    if LIBC.syscall(number) != -1:
        raise OSError(0, "it forbids nothing")


def main() -> None:
    """Try all; the later ones are confined by the earlier ones, which none of them minds."""
    found: dict[str, str | bool] = {}
    for part in (user_namespaces, landlock, seccomp):
        try:
            part()
            found[part.__name__] = True
        except OSError as error:
            found[part.__name__] = error.strerror or str(error)
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
