"""The system calls that code in a sandbox may make.

What: an allow-list, compiled to a BPF program by libseccomp for this machine's processor.
Invariant: what is not named here fails with EPERM; another processor's table (32-bit, x32) ends the process. `clone`
    makes no namespaces; `clone3`, whose flags no filter can see, does not exist, so libraries fall back to `clone`.
    No sockets but pairs of local ones, no ioctl but questions about a terminal and about what can be read.
Interface: `program()`: the bytes that `bwrap --seccomp` takes. SandboxMissing without libseccomp.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
from collections.abc import Iterable

from llmos.drivers.sandbox.errors import SandboxMissing

ALLOWED = """
read write open openat openat2 close close_range stat fstat lstat newfstatat statx poll ppoll select pselect6 lseek
pread64 pwrite64 readv writev preadv pwritev preadv2 pwritev2 access faccessat faccessat2 sendfile copy_file_range
fcntl flock fsync fdatasync truncate ftruncate fallocate fadvise64 getdents getdents64 getcwd chdir fchdir
rename renameat renameat2 mkdir mkdirat rmdir creat link linkat unlink unlinkat symlink symlinkat readlink readlinkat
chmod fchmod fchmodat chown fchown lchown fchownat umask utime utimes utimensat futimesat statfs fstatfs
getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr dup dup2 dup3 pipe pipe2 eventfd eventfd2
mmap mprotect munmap brk mremap msync mincore madvise
rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack signalfd signalfd4
kill tkill tgkill pause alarm getitimer setitimer nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time
timer_create timer_settime timer_gettime timer_getoverrun timer_delete timerfd_create timerfd_settime timerfd_gettime
fork vfork execve exit exit_group wait4 waitid restart_syscall
getpid gettid getppid getpgrp getpgid setpgid getsid setsid getuid geteuid getgid getegid getresuid getresgid getgroups
capget uname sysinfo times getrusage getrlimit setrlimit prlimit64 getpriority setpriority getrandom getcpu
sched_yield sched_getaffinity sched_setaffinity sched_getparam sched_getscheduler
sched_get_priority_max sched_get_priority_min
arch_prctl futex set_tid_address set_robust_list get_robust_list rseq membarrier
epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2
sendto recvfrom sendmsg recvmsg shutdown getsockname getpeername getsockopt
""".split()

LIBRARY = "libseccomp.so.2"
_NAMESPACES = 0x7E020080  # CLONE_NEW*: user, mount, pid, net, ipc, uts, cgroup, time
_TERMINAL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5451)  # TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIOCLEX
_PRCTL = (15, 16, 38)  # PR_SET_NAME, PR_GET_NAME, PR_SET_NO_NEW_PRIVS
_AF_UNIX = 1

_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_BAD_ARCHITECTURE, _OPTIMISE = 2, 8  # attributes of a filter
_EQUAL, _MASKED_EQUAL = 4, 7


class _Compare(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("how", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


@functools.cache
def program() -> bytes:
    """The filter as BPF instructions."""
    library = _library()
    filter = library.seccomp_init(_ERRNO | errno.EPERM)
    if not filter:
        raise SandboxMissing("libseccomp makes no filter", do="install another version of libseccomp2")
    try:
        _done(library.seccomp_attr_set(filter, _BAD_ARCHITECTURE, _KILL_PROCESS), "an architecture")
        library.seccomp_attr_set(
            filter, _OPTIMISE, 2
        )  # a tree: fewer steps a call; older libraries have it not
        for name in ALLOWED:
            _rule(library, filter, _ALLOW, name)
        _rule(library, filter, _ERRNO | errno.ENOSYS, "clone3")
        _rule(library, filter, _ALLOW, "clone", _Compare(0, _MASKED_EQUAL, _NAMESPACES, 0))
        _rule(library, filter, _ALLOW, "socketpair", _Compare(0, _EQUAL, _AF_UNIX, 0))
        for name, place, values in (("ioctl", 1, _TERMINAL), ("prctl", 0, _PRCTL)):
            for value in values:
                _rule(library, filter, _ALLOW, name, _Compare(place, _EQUAL, value, 0))
        return _exported(library, filter)
    finally:
        library.seccomp_release(filter)


def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(LIBRARY, use_errno=True)
    except OSError as error:
        raise SandboxMissing(
            "the sandbox has no seccomp filter", why=f"libseccomp cannot be loaded: {error}",
            do="apt-get install libseccomp2",
        ) from None  # fmt: skip
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Compare),
    ]  # fmt: skip
    return library


def _rule(library: ctypes.CDLL, filter: int, action: int, name: str, *compared: _Compare) -> None:
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number < 0:  # this processor has no such call (or this library does not know it): it stays forbidden
        return
    array = (_Compare * len(compared))(*compared)
    _done(library.seccomp_rule_add_array(filter, action, number, len(compared), array), name)


def _exported(library: ctypes.CDLL, filter: int) -> bytes:
    fd = memory_file(())
    with os.fdopen(fd, "rb") as file:
        _done(library.seccomp_export_bpf(filter, fd), "the program")
        file.seek(0)
        return file.read()


def _done(result: int, what: str) -> None:
    if result < 0:
        raise SandboxMissing(
            f"libseccomp refuses {what}",
            why=os.strerror(-result),
            do="install another version of libseccomp2",
        )


def memory_file(parts: Iterable[bytes]) -> int:
    """A file in memory that holds `parts`, at its beginning; the caller closes it."""
    fd = os.memfd_create("llmos", os.MFD_CLOEXEC)
    for part in parts:
        os.write(fd, part)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
