"""The kernels under AddressSanitizer and UBSan, and the portable path under the whole suite beside this file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmos.drivers.cpu import build

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler"),
]
HERE = Path(__file__).resolve().parent
SANITIZE = ("-std=c++17", "-O1", "-g", "-ffp-contract=off", "-fno-math-errno")
WATCH = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def test_no_sanitizer_speaks(tmp_path: Path) -> None:
    cxx = build.compiler()
    assert cxx is not None
    jobs = [
        (out, [part for part in command if part not in ("-O2", "-ftree-vectorize")])
        for out, command in build.commands(cxx, tmp_path, (*SANITIZE, *WATCH))
        if out.name != "ffi.cc.o"  # its checks are tested from Python; XLA's headers are not ours to watch
    ]
    for _, command in jobs:
        subprocess.run(command, check=True)
    defines = [part for part in jobs[0][1] if part.startswith("-DLLMOS_HAVE_")]
    program = tmp_path / "sanitize"
    subprocess.run(
        [cxx, *SANITIZE, *WATCH, *defines, f"-I{build.HERE}", str(HERE / "sanitize.cc"),
         *(str(out) for out, _ in jobs), "-pthread", "-o", str(program)],
        check=True,
    )  # fmt: skip
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "portable, 3 threads: clean" in done.stdout


def test_the_portable_path_passes_the_same_tests() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(HERE), "-q", "-x", "-p", "no:cacheprovider"],
        env={**os.environ, "LLMOS_CPU_ISA": "portable"},
        cwd=HERE.parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
