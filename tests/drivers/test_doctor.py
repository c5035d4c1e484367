"""The probes tell what is there, and what is not is told with how to get it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llmos.drivers import confine, cpu, doctor


def test_the_processor_and_what_computes() -> None:
    found = doctor.processor()
    assert found.ok == cpu.available()
    assert (cpu.isa() if found.ok else "plain XLA") in found.says
    assert f"{len(os.sched_getaffinity(0))} threads" in found.says


def test_a_machine_without_compiler_or_kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert doctor.compiler().do == "apt-get install g++" and not doctor.compiler().ok
    monkeypatch.setattr("llmos.drivers.cpu.build.HERE", tmp_path)
    found = doctor.processor()
    assert not found.ok and "plain XLA" in found.says and found.do.startswith("apt-get install g++, then ")


def test_memory_is_the_machines() -> None:
    total, free, _ = doctor.memory()
    assert 0 < free <= total <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_room_on_a_disk(tmp_path: Path) -> None:
    assert doctor.disk("state", tmp_path / "not" / "yet", 1 << 10).ok
    full = doctor.disk("state", tmp_path, 1 << 60)
    assert not full.ok and full.needed and "wanted" in full.says


def test_what_cannot_be_reached_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.delenv("HTTPS_PROXY", raising=False)
        monkeypatch.delenv("https_proxy", raising=False)
        monkeypatch.setenv("HF_ENDPOINT", "https://192.0.2.1")  # nobody has this address, by RFC 5737
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.getsockname()[1]}/simple")
        began = time.monotonic()
        hub, index = doctor.network(wanted=True)
        assert time.monotonic() - began < 3
    assert not hub.ok and not hub.needed, "one source is enough"
    assert index.ok
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    assert all(f.needed and not f.ok and f.do for f in doctor.network(wanted=True))
    assert not any(f.needed for f in doctor.network(wanted=False))


def test_the_sandbox_is_tried() -> None:
    found = {f.part: f for f in doctor.sandbox()}
    parts = {"bubblewrap", "libseccomp", "user namespaces", "landlock", "seccomp", "control groups"}
    assert found.keys() == parts
    assert all(f.ok or f.do for f in found.values()), "what lacks says how to get it"


@pytest.mark.parametrize("part", ["landlock", "seccomp"])
def test_a_part_that_forbids_nothing_is_not_taken_for_one(part: str) -> None:
    """A system that says yes to everything and does nothing: the probe sees through it."""
    script = (
        f"import sys; sys.path.insert(0, {str(Path(confine.__file__).parent)!r}); import confine\n"
        "class Yes:\n"
        "    def __getattr__(self, name): return lambda *a: 0\n"
        "confine.LIBC = Yes()\n"
        "confine.main()"
    )
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, check=True)
    assert json.loads(done.stdout)[part] == "it forbids nothing"


def test_sizes() -> None:
    assert [doctor.size(n) for n in (1 << 20, 3 << 30, 200 << 20)] == ["1.0 MiB", "3.0 GiB", "0.2 GiB"]
