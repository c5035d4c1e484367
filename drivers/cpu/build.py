"""Compiles the CPU kernels.

What: one shared library from the C++ beside this file, with each kernel source compiled once per instruction set.
Invariant: standard library only (setup.py imports it before anything is installed); objects compiled for a newer
    instruction set are reached only after the processor was asked for it. The library is replaced atomically.
Interface: `compile(out_dir)` gives the library's path or raises BuildError; `python -m llmos.drivers.cpu.build` builds
    in place; `library_path()` is where the loader looks.
"""

from __future__ import annotations

import concurrent.futures
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIBRARY = "libllmos_cpu.so"
COMMON = ("ffi.cc", "dispatch.cc", "pack.cc", "threads.cc", "scratch.cc")
KERNELS = ("linear.cc", "lowrank.cc", "norm.cc", "embed.cc", "attention.cc", "sample.cc", "table.cc")
ISAS: dict[str, tuple[str, ...]] = {
    "portable": ("-O2", "-ftree-vectorize"),  # -O3 triples its compile time for nothing
    "avx2": ("-mavx2", "-mfma", "-mf16c"),
    "avx512vnni": (
        "-mavx2", "-mfma", "-mf16c", "-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mavx512vnni",
        "-mprefer-vector-width=256",
    ),
}  # fmt: skip
FLAGS = (
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-fvisibility=hidden",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-Wall",
    "-Wextra",
)


class BuildError(RuntimeError):
    """No compiler, or it refused; the text says which and why."""


def library_path() -> Path:
    """Where the loader expects the compiled library."""
    return HERE / "_build" / LIBRARY


def compiler() -> str | None:
    """The C++ compiler: $CXX, else the first of g++, clang++, c++ on the path."""
    named = os.environ.get("CXX")
    if named:
        return named
    return next((found for name in ("g++", "clang++", "c++") if (found := shutil.which(name))), None)


def xla_include() -> Path:
    """The folder of XLA's FFI headers inside jaxlib, found without importing it."""
    spec = importlib.util.find_spec("jaxlib")
    if spec is None or not spec.submodule_search_locations:
        raise BuildError("jaxlib is not installed, so XLA's FFI headers are missing")
    include = Path(next(iter(spec.submodule_search_locations))) / "include"
    if not (include / "xla" / "ffi" / "api" / "ffi.h").exists():
        raise BuildError(f"{include} does not hold XLA's FFI headers")
    return include


def isas() -> dict[str, tuple[str, ...]]:
    """Instruction sets to compile for on this machine, with their flags."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return ISAS if x86 else {"portable": ISAS["portable"]}


def commands(cxx: str, objects: Path, flags: tuple[str, ...] = FLAGS) -> list[tuple[Path, list[str]]]:
    """(object file, command) for every translation unit."""
    sets = isas()
    have = [f"-DLLMOS_HAVE_{isa.upper()}" for isa in sets]
    base = [*shlex.split(cxx), *flags]
    xla = ["-isystem", str(xla_include())]
    jobs = [
        (
            objects / f"{source}.o",
            [*base, *have, *(xla if source == "ffi.cc" else ()), "-c", str(HERE / source)],
        )
        for source in COMMON
    ]
    jobs += [
        (objects / f"{isa}.{source}.o", [*base, *extra, f"-DLLMOS_ISA={isa}", "-c", str(HERE / source)])
        for isa, extra in sets.items()
        for source in KERNELS
    ]
    return [(out, [*command, "-o", str(out)]) for out, command in jobs]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{shlex.join(command)}\n{done.stderr.strip()}")
    if done.stderr.strip():
        print(done.stderr.strip(), file=sys.stderr)


def compile(out_dir: str | Path | None = None) -> Path:
    """Builds the library into `out_dir` (default: beside this file) and returns its path.

    Raises:
        BuildError: no compiler, no headers, or a source that does not compile.
    """
    cxx = compiler()
    if cxx is None:
        raise BuildError("no C++ compiler was found (g++, clang++ or $CXX)")
    folder = Path(out_dir) if out_dir is not None else library_path().parent
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        jobs = commands(cxx, Path(scratch))
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as workers:
            list(workers.map(_run, [command for _, command in jobs]))
        fresh = folder / f".{LIBRARY}.{os.getpid()}"
        try:
            _run([*shlex.split(cxx), "-shared", "-pthread", *(str(o) for o, _ in jobs), "-o", str(fresh)])
            fresh.replace(folder / LIBRARY)
        finally:
            fresh.unlink(missing_ok=True)
    return folder / LIBRARY


if __name__ == "__main__":
    try:
        print(compile(sys.argv[1] if len(sys.argv) > 1 else None))
    except BuildError as error:
        sys.exit(str(error))
