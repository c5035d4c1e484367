"""The terminal: the usual tools on the working volume, bounded in time and in what they print, and nothing runs on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmos.abi.errors import ConfigError
from llmos.abi.events import Result
from llmos.abi.manifest import Manifest
from llmos.abi.settings import VARIABLE
from llmos.apps.terminal import Terminal
from llmos.apps.terminal import run as carried_out
from llmos.drivers.sandbox import Limits, SandboxEnded, SandboxFull
from llmos.testing import call

LIMITS = Limits(seconds=20, output=400, disk=16 << 20)


def run(*given: Any) -> str:
    """What a command told."""
    return carried_out(*given).text


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    folder = tmp_path / "volume"
    folder.mkdir()
    return folder


def test_its_declaration() -> None:
    manifest = Manifest.of(Terminal)
    assert not manifest.stateful
    assert [(s.name, s.effect, s.returns) for s in manifest.syscalls] == [
        ("terminal.run", "execute", "untrusted")
    ]


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("echo hello | tr a-z A-Z", "HELLO"),
        ("true", "Done; nothing was printed."),
        ("echo out; echo err >&2; exit 3", "out\nstderr: err\n[exit status 3]"),
        (
            "nothing-like-this",
            "stderr: /bin/bash: line 1: nothing-like-this: command not found\n[exit status 127]",
        ),
        ("kill -TERM $$", "[exit status 143 (SIGTERM)]"),
        ("pwd; echo $HOME; cd /tmp; cd; pwd", "/home/nobody\n/home/nobody\n/home/nobody"),
        ("for i in 1 2; do echo $i; done", "1\n2"),
        ("cat <<END\na 'b' \"c\"\nEND", "a 'b' \"c\""),
        ("ls /proc/sys/net/ipv4/conf", "all"),
        ("cat", "Done; nothing was printed."),
        ("python3 -c 'print(6 * 7)'", "42"),
    ],
)
def test_what_a_command_tells(volume: Path, command: str, told: str) -> None:
    assert run(command, volume, LIMITS).startswith(told)


@pytest.mark.parametrize(
    ("command", "failed"),
    [
        ("true", False),
        ("grep nothing log", False),  # that it found nothing is its answer
        ("diff log other", False),
        ("grep x nowhere", True),
        ("false; echo but >&2; exit 1", True),
        ("exit 3", True),
        ("kill -9 $$", True),
        ("nothing-like-this", True),
    ],
)
def test_what_failed_is_told_apart(volume: Path, command: str, failed: bool) -> None:
    (volume / "log").write_text("a\n")
    (volume / "other").write_text("b\n")
    assert carried_out(command, volume, LIMITS).failed is failed


def test_who_does_not_find_a_file_is_told_which_there_are(volume: Path) -> None:
    (volume / "sub").mkdir()
    (volume / "sub" / "app.log").write_text("x")
    assert run("cat app.log", volume, LIMITS).endswith("[exit status 1]\n[the files are: sub, sub/app.log]")
    (volume / "sub" / "app.log").unlink()
    (volume / "sub").rmdir()
    assert run("cat app.log", volume, LIMITS).endswith("[there are no files]")


def test_files_stay_for_the_next_command(volume: Path) -> None:
    (volume / "log").write_text("ok\nerror: a\nok\nerror: b\n")
    assert run("grep -c error log", volume, LIMITS) == "2"
    assert run("mkdir -p d && grep error log >d/errors", volume, LIMITS) == "[saved: d/errors]"
    assert run("rm log; cat d/errors", volume, LIMITS) == "error: a\nerror: b\n[removed: log]"
    assert [p.name for p in volume.rglob("*")] == ["d", "errors"]


def test_git_works_over_several_commands(volume: Path) -> None:
    run("git init -q . && echo one >a && git add a && git commit -qm first", volume, LIMITS)
    run("echo two >>a && git commit -qam second", volume, LIMITS)
    assert run("git log --format=%s; git status --short", volume, LIMITS) == "second\nfirst"
    assert "+two" in run("git diff HEAD~1", volume, LIMITS)


def test_head_and_tail_are_kept(volume: Path) -> None:
    told = run("seq 1 100000; seq 5 >&2", volume, LIMITS)
    assert told.startswith("1\n2\n") and "99999\n100000\nstderr: 1\n" in told and "bytes left out]" in told
    assert len(told) < 600


def test_a_command_that_takes_too_long_is_ended(volume: Path) -> None:
    quick = Limits(seconds=0.5)
    assert run("echo begun; echo x >kept; sleep 1000; echo no", volume, quick) == (
        "begun\n[ended after 0.5 s]\n[saved: kept]"
    )
    assert "[ended after 0.5 s]" in run("exec >&- 2>&-; sleep 1000", volume, quick)


def test_a_command_that_prints_without_end_is_ended(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmos.apps.terminal.MAX_PRINTED", 8 << 20)
    told = run("yes", volume, LIMITS)
    assert "[ended after it had printed 8 MiB]" in told and "bytes left out]" in told and len(told) < 600
    assert "[ended after it had printed 8 MiB]" in run("yes >&2", volume, LIMITS)


def test_a_command_without_memory_says_so(volume: Path) -> None:
    small = Limits(seconds=20, memory=128 << 20)
    told = run("head -c 100M /dev/zero >/tmp/a; head -c 100M /dev/zero >/dev/shm/b; exit 1", volume, small)
    assert "[its processes and files used more than 128 MiB of memory]" in told


def test_who_gives_up_ends_the_command(volume: Path) -> None:
    with pytest.raises(SandboxEnded, match="given up"):
        run("sleep 1000", volume, LIMITS, lambda: True)


def test_a_folder_that_is_too_large_is_refused(volume: Path) -> None:
    (volume / "large").write_bytes(bytes(17 << 20))
    with pytest.raises(SandboxFull, match=r"17825792 bytes.*`disk`"):
        run("true", volume, LIMITS)


def test_by_a_kernel_with_settings(
    scripted_kernel: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(window: str) -> str:
        return "Done." if '"command"' in window else call("terminal.run", command="echo hi; sleep 1000")

    process = scripted_kernel(script, apps={"terminal": {"seconds": 1}}).spawn(grants=["terminal"])
    (result,) = [event for event in process.ask("Say hi.") if isinstance(event, Result)]
    assert not result.ok and "hi\\n[ended after 1 s]" in result.text
    monkeypatch.setenv(VARIABLE, '{"terminal": {"second": 1}}')
    with pytest.raises(ConfigError, match=r"apps.terminal.second: an unknown key. did you mean 'seconds'"):
        Terminal()
