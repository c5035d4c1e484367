"""The walls stand or nothing runs; what is started can be ended; files go out and in, and nothing else does."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from llmos.drivers.sandbox import (
    Clip,
    Limits,
    Mirror,
    Sandbox,
    SandboxEnded,
    SandboxFull,
    SandboxMissing,
    clean,
    groups,
    layout,
)
from llmos.drivers.sandbox import filter as seccomp

ROOT = Path(__file__).resolve().parents[3]
SMALL = Limits(memory=256 << 20, disk=8 << 20, processes=40)
LONG_S = 60.0


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    folder = tmp_path / "volume"
    folder.mkdir()
    return folder


@pytest.fixture
def shell(volume: Path) -> Iterator[Callable[[str], str]]:
    """A bash that runs one line after another, with the files of `volume`."""
    with Sandbox(["/bin/bash"], SMALL) as sandbox:
        mirror = Mirror(sandbox, volume)
        sandbox.begin()

        def run(line: str) -> str:
            mirror.push()
            sandbox.send(f"{line}\necho; echo =end=\n".encode(), LONG_S)
            return _until(sandbox, b"=end=\n")

        run.mirror = mirror  # type: ignore[attr-defined]
        yield run
        mirror.close()


def _until(sandbox: Sandbox, end: bytes) -> str:
    heard = b""
    while not heard.endswith(end):
        data = sandbox.receive(LONG_S)
        assert data is not None, sandbox.errors.text
        heard += data
    return heard.removesuffix(end).strip().decode()


def _all(sandbox: Sandbox) -> str:
    heard = b""
    while (data := sandbox.receive(LONG_S)) is not None:
        heard += data
    return heard.decode()


def _gone(pid: int) -> bool:
    end = time.monotonic() + LONG_S
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


# --- what runs, and how it ends ---


def test_nothing_is_inherited_but_the_pipes() -> None:
    with Sandbox(
        ["/bin/bash", "-c", "ls -l /proc/self/fd | grep -c -- '->'; env | cut -d= -f1 | sort"], SMALL
    ) as sandbox:
        sandbox.begin()
        count, *names = _all(sandbox).split()
    assert int(count) == 4, "stdin, stdout, stderr, and the folder that ls reads"
    assert "LLMOS_STATE" in os.environ and "LLMOS_STATE" not in names
    assert set(names) >= {"PATH", "HOME"}


def test_its_program_waits_until_it_may_begin() -> None:
    with Sandbox(["/bin/echo", "hello"], SMALL) as sandbox:
        assert sandbox.receive(0.2) == b""
        sandbox.begin()
        assert _all(sandbox) == "hello\n"
        assert sandbox.wait(LONG_S) == 0


def test_the_end_is_the_end_of_all() -> None:
    sandbox = Sandbox(
        ["/bin/bash", "-c", "trap '' INT TERM; (setsid sleep 1000 &) ; echo up; sleep 1000"], SMALL
    )
    sandbox.begin()
    assert sandbox.receive(LONG_S) == b"up\n"
    inside = [int(p) for file in sandbox._group.files for p in file.read_text().split()]
    assert len(inside) > 3
    sandbox.end()
    sandbox.end()
    assert all(_gone(pid) for pid in inside)
    assert sandbox.ended and not any(file.parent.exists() for file in sandbox._group.files)


def test_it_does_not_die_with_the_thread_that_started_it() -> None:
    made: list[Sandbox] = []
    thread = threading.Thread(target=lambda: made.append(Sandbox(["/bin/cat"], SMALL)))
    thread.start()
    thread.join()
    with made[0] as sandbox:
        sandbox.begin()
        sandbox.send(b"hello", LONG_S)
        assert sandbox.receive(LONG_S) == b"hello"


def test_it_dies_with_the_program_that_started_it() -> None:
    script = (
        "import sys, time; from llmos.drivers.sandbox import *\n"
        "s = Sandbox(['/bin/sleep', '1000'], Limits()); s.begin(); print(s.pid, flush=True); time.sleep(1000)"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    left = [
        f
        for h in groups.hierarchies()
        for f in [*h.top.glob(f"*/llmos-{owner.pid}-*"), *h.own.glob(f"llmos-{owner.pid}-*")]
    ]
    assert left, "it has a group"
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert _gone(pid)
    Sandbox(["/bin/true"], SMALL).end()  # the next one clears up
    assert not any(folder.exists() for folder in left)


def test_an_interrupt_reaches_the_program() -> None:
    with Sandbox(
        ["/bin/bash", "-c", "trap 'echo caught; exit 3' INT; echo up; while :; do sleep 0.01; done"], SMALL
    ) as sandbox:
        sandbox.begin()
        assert sandbox.receive(LONG_S) == b"up\n"
        sandbox.interrupt()
        assert _all(sandbox) == "caught\n"
        assert sandbox.wait(LONG_S) == 3
        sandbox.interrupt()  # of what is gone: nothing happens


HUNGRY = """
import os, time
for _ in range(9):
    if os.fork() == 0:
        held = bytearray(b"x") * (60 << 20)
        time.sleep(1000)
for _ in range(9):
    os.wait()
    os._exit(9)
"""


def test_too_much_memory_is_told_as_that() -> None:
    with Sandbox([str(Path(sys.executable).resolve()), "-I", "-S", "-c", HUNGRY], SMALL) as sandbox:
        sandbox.begin()
        sandbox.wait(LONG_S)
        assert "256 MiB" in sandbox.gone().why


def test_who_does_not_listen_is_told_of() -> None:
    with Sandbox(["/bin/sleep", "1000"], SMALL) as sandbox:
        sandbox.begin()
        with pytest.raises(SandboxEnded, match="does not listen"):
            sandbox.send(bytes(1 << 20), 0.2)
    with Sandbox(["/bin/true"], SMALL) as sandbox:
        sandbox.begin()
        sandbox.wait(LONG_S)
        with pytest.raises(SandboxEnded):
            sandbox.send(bytes(1 << 20), LONG_S)


# --- nothing runs where a layer lacks ---


def test_without_bubblewrap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(layout, "_PATH", str(tmp_path))
    with pytest.raises(SandboxMissing, match=r"bwrap.*apt-get install bubblewrap"):
        Sandbox(["/bin/true"], SMALL)


def test_without_libseccomp(monkeypatch: pytest.MonkeyPatch) -> None:
    seccomp.program.cache_clear()
    monkeypatch.setattr(seccomp, "LIBRARY", "libnothing.so.2")
    with pytest.raises(SandboxMissing, match=r"seccomp.*apt-get install libseccomp2"):
        Sandbox(["/bin/true"], SMALL)


def test_without_user_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """bubblewrap is started where it can make none: inside of a sandbox that has none to give."""
    inner = layout.programs()["bwrap"]
    with Sandbox([inner, "--unshare-user", "--ro-bind", "/", "/", "/bin/echo", "out"], SMALL) as sandbox:
        sandbox.begin()
        assert "out" not in _all(sandbox)
        assert sandbox.errors.size
    real = layout.command

    def without(*arguments: object, **files: int) -> layout.Command:
        made = real(*arguments, **files)  # type: ignore[arg-type]
        at = made.arguments.index("--unshare-user")
        return layout.Command(
            (*made.arguments[:at], "--no-such-thing", *made.arguments[at:]), made.environment
        )

    monkeypatch.setattr(layout, "command", without)
    with pytest.raises(SandboxMissing, match=r"(?s)cannot be made.*no-such-thing.*user namespaces"):
        Sandbox(["/bin/true"], SMALL)


def test_without_a_control_group(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = groups.Hierarchy(Path("/proc"), Path("/proc"), groups.CONTROLLERS, False)
    monkeypatch.setattr(groups, "hierarchies", lambda: [nowhere])
    with pytest.raises(SandboxMissing, match="control group") as caught:
        Sandbox(["/bin/true"], SMALL)
    assert "mkdir" in caught.value.do or "systemd-run" in caught.value.do


def test_every_call_that_is_named_exists_somewhere() -> None:
    library = seccomp._library()
    library.seccomp_syscall_resolve_name.restype = ctypes.c_int
    unknown = [n for n in seccomp.ALLOWED if library.seccomp_syscall_resolve_name(n.encode()) == -1]
    assert len(unknown) <= 2, unknown  # newer than this library
    assert len(seccomp.program()) % 8 == 0


# --- limits ---


@pytest.mark.parametrize(
    "wrong",
    [{"memory": "1KiB"}, {"seconds": 0}, {"seconds": "1"}, {"processes": 1}, {"memroy": 1}, {"disk": True}],
)
def test_limits_from_outside_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Limits).validate_python(wrong)


def test_limits_are_read_as_configuration_has_them() -> None:
    assert TypeAdapter(Limits).validate_python({"memory": "1GiB", "seconds": 5}) == Limits(
        memory=1 << 30, seconds=5
    )


# --- files ---


def test_files_go_in_and_out(volume: Path, shell: Callable[[str], str]) -> None:
    (volume / "in").mkdir()
    (volume / "in" / "a b").write_bytes(b"\0\xff")
    (volume / "run").write_text("#!/bin/sh\necho ran")
    (volume / "run").chmod(0o700)
    assert shell("./run; xxd -p 'in/a b' || od -An -tx1 'in/a b'").split() in (
        ["ran", "00ff"],
        ["ran", "00", "ff"],
    )
    shell("mkdir -p out/deep empty; echo new >out/deep/x; cp run out/; rm in/a*; echo more >>run")
    changes = shell.mirror.pull()  # type: ignore[attr-defined]
    assert sorted(changes.written) == ["out/deep/x", "out/run", "run"] and changes.removed == ["in/a b"]
    assert (volume / "out/deep/x").read_text() == "new\n" and (volume / "empty").is_dir()
    assert os.access(volume / "out/run", os.X_OK) and not os.access(volume / "out/deep/x", os.X_OK)
    assert not (volume / "in" / "a b").exists()
    assert shell.mirror.pull().words() == ""  # type: ignore[attr-defined]


def test_what_others_change_meanwhile_comes_in(volume: Path, shell: Callable[[str], str]) -> None:
    (volume / "x").write_text("1")
    (volume / "y").write_text("1")
    assert shell("cat x y") == "11"
    (volume / "x").write_text("22")
    (volume / "y").unlink()
    assert shell("cat x; ls") == "22x"


def test_a_file_may_become_a_folder(volume: Path, shell: Callable[[str], str]) -> None:
    shell("echo 1 >x; mkdir y")
    shell.mirror.pull()  # type: ignore[attr-defined]
    shell("rm x; mkdir x; echo 2 >x/z; rmdir y; echo 3 >y")
    shell.mirror.pull()  # type: ignore[attr-defined]
    assert (volume / "x/z").read_text() == "2\n" and (volume / "y").read_text() == "3\n"


def test_links_and_pipes_stay_inside_and_are_told(volume: Path, shell: Callable[[str], str]) -> None:
    outside = volume.parent / "outside"
    outside.write_text("mine")
    shell(f"ln -s /etc/passwd link; ln -s {outside} out; ln -s . self; mkdir d; ln -s / d/root")
    changes = shell.mirror.pull()  # type: ignore[attr-defined]
    assert [p.name for p in volume.iterdir()] == ["d"] and not list((volume / "d").iterdir())
    assert "link (a link)" in changes.words()
    (volume / "out").symlink_to(outside)  # and one that was there before is not written through
    shell("rm out; echo changed >out")
    shell.mirror.pull()  # type: ignore[attr-defined]
    assert outside.read_text() == "mine" and (volume / "out").read_text() == "changed\n"


def test_a_folder_that_is_a_link_is_not_entered(volume: Path, shell: Callable[[str], str]) -> None:
    outside = volume.parent / "elsewhere"
    outside.mkdir()
    (outside / "secret").write_text("mine")
    (volume / "d").symlink_to(outside)
    assert shell("ls d") == "", "a link in the volume is not followed on the way in"
    shell("mkdir d; echo x >d/new; echo x >d/secret")
    assert "not carried out" in shell.mirror.pull().words()  # type: ignore[attr-defined]
    assert [p.name for p in outside.iterdir()] == ["secret"] and (outside / "secret").read_text() == "mine"


def test_more_than_the_disk_holds(volume: Path, shell: Callable[[str], str]) -> None:
    shell("for i in 1 2 3; do truncate -s 6M sparse$i; done")
    changes = shell.mirror.pull()  # type: ignore[attr-defined]
    assert sum(f.stat().st_size for f in volume.iterdir()) <= SMALL.disk and len(changes.left) == 2
    (volume / "large").write_bytes(bytes(9 << 20))
    with pytest.raises(SandboxFull, match="disk"):
        shell("true")


# --- what is printed ---


@given(st.lists(st.binary(max_size=40)), st.integers(2, 60))
def test_head_and_tail_are_kept_and_the_rest_is_counted(parts: list[bytes], limit: int) -> None:
    clip, whole = Clip(limit), b"".join(parts)
    for part in parts:
        clip.feed(part)
    half = limit // 2
    assert clip.size == len(whole) and clip.left_out == max(len(whole) - 2 * half, 0)
    if clip.left_out:
        assert f"[{clip.left_out} bytes left out]" in clip.text
    else:
        assert clip.text == clean(whole.decode(errors="replace"))


@given(st.text(st.characters(), max_size=60))
def test_text_cannot_mislead(text: str) -> None:
    shown = clean(text)
    shown.encode()
    assert not any(ord(letter) < 32 and letter not in "\n\t" for letter in shown)


def test_signals_have_names() -> None:
    with Sandbox(["/bin/bash", "-c", "kill -9 $$"], SMALL) as sandbox:
        sandbox.begin()
        assert sandbox.wait(LONG_S) == 128 + signal.SIGKILL
