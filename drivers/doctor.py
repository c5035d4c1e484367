"""What this machine has and lacks below the kernel: processor, compiler, memory, disk, sandbox, devices, network.

What: one probe a part; each looks at the real thing, and tries what can be tried.
Invariant: imports no jax, changes nothing, fetches nothing, and takes well under a second in all.
Interface: `Finding`; `processor`, `compiler`, `memory`, `disk`, `sandbox`, `devices`, `network`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

PATIENCE_S = 0.8  # for a connection, with the look-up of its name
GIB = 1 << 30
_USED = {"avx2": "avx2", "fma": "fma", "f16c": "f16c", "avx512f": "avx512", "avx512_vnni": "avx512-vnni"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: a part of the machine, whether it is there, what there is, and how to get what lacks.

    `needed`: without it questions are not answered.
    """

    part: str
    ok: bool
    says: str
    do: str = ""
    needed: bool = False


def processor() -> Finding:
    """Features of the processor, and which kernels will compute."""
    from llmos.drivers.cpu import build, library
    from llmos.drivers.processor import flags

    has = " ".join(name for flag, name in _USED.items() if flag in flags()) or platform.machine()
    threads = f"{len(os.sched_getaffinity(0))} threads; {has}"
    if build.library_path().exists() and library.available():
        return Finding("processor", True, f"{threads}; kernels: {library.isa()}")
    do = "python -m llmos.drivers.cpu.build"
    if build.compiler() is None:
        do = f"apt-get install g++, then {do}"
    return Finding("processor", False, f"{threads}; kernels: none, so plain XLA, which is slower", do)


def compiler() -> Finding:
    """What the kernels are compiled with; they may be compiled already."""
    from llmos.drivers.cpu.build import compiler

    found = compiler()
    if found is None:
        return Finding("compiler", False, "no g++ and no clang++", "apt-get install g++")
    return Finding("compiler", True, found)


def memory() -> tuple[int, int, int]:
    """Bytes of memory that programs here may use, of those that are free now, and of the machine's swap."""
    values = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        values[name] = int(rest.split()[0]) << 10
    total, free = values["MemTotal"], values["MemAvailable"]
    try:  # a container's own limit
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        total, free = min(total, limit), min(free, limit - used)
    except (OSError, ValueError):
        pass
    return total, free, values.get("SwapTotal", 0)


def disk(part: str, folder: Path, wanted: int) -> Finding:
    """Room for `wanted` bytes where `folder` is or will be."""
    here = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(here).free
    says = f"{folder}: {size(free)} free"
    if not os.access(here, os.W_OK):
        return Finding(part, False, f"{folder} cannot be written", f"chown {os.getuid()} {here}", needed=True)
    if free < wanted:
        return Finding(
            part, False, f"{says}, {size(wanted)} wanted", "free some, or move it in llmos.yaml", True
        )
    return Finding(part, True, says, needed=True)


def sandbox() -> list[Finding]:
    """What confines code that a model wrote, each tried."""
    try:
        script = Path(__file__).with_name("confine.py")
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(script)], capture_output=True, timeout=5, check=True
        )
        tried: dict[str, str | bool] = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        tried = dict.fromkeys(("user_namespaces", "landlock", "seccomp"), f"it ended early: {error}")
    how = {
        "user_namespaces": "sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000 "
        "kernel.apparmor_restrict_unprivileged_userns=0",
        "landlock": "a Linux kernel from 5.13 on, booted with lsm=landlock,...",
        "seccomp": "a Linux kernel with CONFIG_SECCOMP_FILTER",
    }
    found = [
        Finding(part.replace("_", " "), result is True, "works" if result is True else f"{result}", how[part])
        for part, result in tried.items()
    ]
    return [_bubblewrap(), _seccomp_library(), *found, _groups()]


def _bubblewrap() -> Finding:
    program, do = shutil.which("bwrap"), "apt-get install bubblewrap"
    if program is None:
        return Finding("bubblewrap", False, "not installed", do)
    command = [
        program,
        "--ro-bind",
        "/",
        "/",
        "--proc",
        "/proc",
        "--unshare-all",
        "--die-with-parent",
        "true",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return Finding("bubblewrap", False, str(error), do)
    if done.returncode:
        return Finding("bubblewrap", False, done.stderr.strip()[:200], "allow user namespaces (see there)")
    return Finding("bubblewrap", True, program)


def _seccomp_library() -> Finding:
    """What the sandbox's filter is compiled by."""
    from llmos.abi.errors import AppError
    from llmos.drivers.sandbox import filter

    try:
        instructions = len(filter.program()) // 8
    except AppError as error:
        return Finding("libseccomp", False, error.why or error.what, error.do)
    return Finding("libseccomp", True, f"works; a filter of {instructions} instructions")


def _groups() -> Finding:
    """A control group of one's own, with limits on memory, processes and processors."""
    from llmos.abi.errors import AppError
    from llmos.drivers.sandbox.groups import Group
    from llmos.drivers.sandbox.limits import Limits

    try:
        Group(Limits()).remove()
    except AppError as error:
        return Finding("control groups", False, error.why or error.what, error.do)
    return Finding("control groups", True, "works")


def devices() -> Finding:
    """GPU and TPU, and whether JAX can use them. None is fine: the processor computes."""
    found = []
    if Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidia0").exists():
        plugins = ("jax_cuda12_plugin", "jax_cuda13_plugin")
        if not any(map(importlib.util.find_spec, plugins)):
            return Finding(
                "accelerator", False, "an NVIDIA GPU that JAX cannot use", "pip install 'jax[cuda12]'"
            )
        found.append("NVIDIA GPU")
    if any(Path("/dev").glob("accel[0-9]*")) or os.environ.get("TPU_NAME"):
        if importlib.util.find_spec("libtpu") is None:
            return Finding("accelerator", False, "a TPU that JAX cannot use", "pip install 'jax[tpu]'")
        found.append("TPU")
    return Finding("accelerator", True, " and ".join(found) or "none; the processor computes")


def network(wanted: bool) -> list[Finding]:
    """Where models come from. Needed only where one has to be fetched (`wanted`), and one of them is enough."""
    urls = {
        "Hugging Face hub": os.environ.get("HF_ENDPOINT", "https://huggingface.co"),
        "package index": os.environ.get("PIP_INDEX_URL", "https://pypi.org"),
    }
    proxy = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    answers = _reached([proxy or url for url in urls.values()])
    found = []
    for (part, url), failed in zip(urls.items(), answers, strict=True):
        way = f"{url}{f' by {urlsplit(proxy).hostname}' if proxy else ''}"
        says = f"{way} cannot be reached: {failed}" if failed else way
        do = "check the network, or put the model's file into a folder named in $LLMOS_MODELS"
        found.append(Finding(part, not failed, says, do, needed=wanted and all(answers)))
    return found


def _reached(urls: Sequence[str]) -> list[str]:
    """Why each was not; empty where it was. Side by side, on threads that nobody waits for longer: a look-up of a
    name cannot be broken off."""
    answers = ["no answer"] * len(urls)

    def reach(i: int) -> None:
        parts = urlsplit(urls[i])
        try:
            socket.create_connection((parts.hostname or "", parts.port or 443), PATIENCE_S).close()
            answers[i] = ""
        except (OSError, ValueError) as error:
            answers[i] = getattr(error, "strerror", None) or str(error) or type(error).__name__

    threads = [threading.Thread(target=reach, args=(i,), daemon=True) for i in range(len(urls))]
    for thread in threads:
        thread.start()
    end = time.monotonic() + PATIENCE_S
    for thread in threads:
        thread.join(max(end - time.monotonic(), 0))
    return answers


def modules(names: Sequence[str]) -> Iterator[str]:
    """Those of these modules that are not installed."""
    for name in names:
        try:
            if importlib.util.find_spec(name) is None:
                yield name
        except ModuleNotFoundError:
            yield name


def size(count: int) -> str:
    """Bytes for people."""
    return f"{count / GIB:.1f} GiB" if count >= GIB // 10 else f"{count / (1 << 20):.1f} MiB"
