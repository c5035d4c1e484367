"""Chromium's launcher: it gives up rights and the network, and becomes Chromium.

What: a program of its own (`python -I -S jail.py SOCKET UID PROGRAM [ARGUMENT...]`). It moves into a network namespace
    in which nothing is but a loopback, opens one listening socket there, passes it to whoever listens at the
    Unix socket SOCKET, becomes the user UID (as root; else it stays who it is), and executes PROGRAM.
Invariant: from there on the only thing that PROGRAM can connect to is that listening socket, whose other side
    decides where each connection leads: HTTP, DNS, WebRTC and QUIC alike. Where one step fails, PROGRAM is not
    started, and the reason is told through SOCKET. PROGRAM dies with whoever started this. Standard library only.
Interface: run it. SOCKET receives b"ok" with the descriptor, or a reason.
"""

from __future__ import annotations

import array
import ctypes
import fcntl
import os
import resource
import signal
import socket
import struct
import sys

PORT = 1080  # on the loopback of the new namespace
DATA_BYTES = 2 << 30  # private memory of each of Chromium's processes: a page that eats more dies alone
FILE_BYTES = 256 << 20  # of any file that it writes
_NEW_USER, _NEW_NET = 0x10000000, 0x40000000
_SET_PDEATHSIG = 1
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 0x1

LIBC = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def _leave_network() -> None:
    """Into a network namespace of one's own; an ordinary user needs a user namespace around it."""
    uid, gid = os.getuid(), os.getgid()
    if uid == 0:
        _check(LIBC.unshare(_NEW_NET), "a network namespace")
        return
    _check(LIBC.unshare(_NEW_USER | _NEW_NET), "a user namespace")
    for name, words in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(words)


def _listen() -> socket.socket:
    """The only way out: a socket on the new loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(control, _GET_FLAGS, request))[1]
        fcntl.ioctl(control, _SET_FLAGS, struct.pack("16sH14x", b"lo", flags | _UP))
    door = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    door.bind(("127.0.0.1", PORT))
    door.listen(256)
    return door


def _become(uid: int, folders: list[str]) -> None:
    """An unprivileged user who owns the folders that Chromium writes to."""
    if os.getuid() == 0:
        for folder in folders:
            os.chown(folder, uid, uid)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    for what, most in (
        (resource.RLIMIT_DATA, DATA_BYTES), (resource.RLIMIT_FSIZE, FILE_BYTES), (resource.RLIMIT_CORE, 0),
    ):  # fmt: skip
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))
    parent = os.getppid()
    _check(
        LIBC.prctl(_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl"
    )  # after the change of user, which clears it
    if parent == 1 or os.getppid() != parent:
        raise OSError(0, "whoever started it has ended")


def main() -> None:
    path, uid, program = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as teller:
        teller.connect(path)
        try:
            _leave_network()
            door = _listen()
            _become(uid, [a.partition("=")[2] for a in program if a.startswith("--user-data-dir=")])
            descriptors = array.array("i", [door.fileno()])
            teller.sendmsg([b"ok"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
            door.close()
        except OSError as error:
            teller.sendall((error.strerror or str(error)).encode())
            raise SystemExit(1) from None
    os.execv(program[0], program)


if __name__ == "__main__":
    main()
