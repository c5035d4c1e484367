"""The kernel's side: whatever apps do, calls end in outcomes, and only the guilty process dies."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import pytest

from llmos.abi.app import File, Image, Text
from llmos.abi.errors import (
    AppFailed,
    AppUnavailable,
    AskRefused,
    BadArguments,
    BadResult,
    DeadlineExceeded,
    ManifestChanged,
    ManifestError,
    SecretMissing,
)
from llmos.abi.labels import STORE, UNTRUSTED, USER, Integrity, Label
from llmos.abi.manifest import Manifest
from llmos.kernel.apphost import AppHost, CallContext, Entry, Http, Ours, Outcome, Stdio

ROOT = Path(__file__).resolve().parents[3]
ROGUE = ROOT / "tests" / "drivers" / "mcp" / "rogue.py"
NAUGHTY = "tests.apps.serve.naughty"
INSIDE = "tests.kernel.apphost.pure"

Make = Callable[..., AppHost]


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifests that earlier tests have read, so that each does not start a reader of its own."""
    return tmp_path_factory.mktemp("known") / "manifests.json"


@pytest.fixture
def make(
    loop: asyncio.AbstractEventLoop, tmp_path: Path, known: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Make]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    hosts: list[AppHost] = []
    manifests = tmp_path / "state" / "manifests.json"
    manifests.parent.mkdir()
    if known.exists():
        shutil.copy(known, manifests)

    def host(*entries: Entry) -> AppHost:
        hosts.append(AppHost(loop, entries, tmp_path / "state"))
        return hosts[-1]

    yield host
    for one in hosts:
        one.close().result(30)
    if manifests.exists():
        shutil.copy(manifests, known)


def ours(name: str, **options: Any) -> Entry:
    return Entry(name=name, source=Ours(f"{NAUGHTY}:{name.capitalize()}"), **options)


def rogue(how: str, *more: str, **options: Any) -> Entry:
    return Entry(name="rogue", source=Stdio((sys.executable, "-S", str(ROGUE), how, *more)), **options)


def context(pid: int = 1, key: str = "k", **options: Any) -> CallContext:
    return CallContext(pid=pid, key=key, **options)


def call(
    host: AppHost, name: str, pid: int = 1, options: Mapping[str, Any] = {}, **arguments: Any
) -> Outcome:
    return host.call(name, arguments, context(pid, **options)).result(60)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def gone(*pids: int, seconds: float = 5.0) -> bool:
    ends = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < ends:
        time.sleep(0.02)
    return not any(map(alive, pids))


def test_an_app_that_eats_memory_hurts_itself_alone(make: Make) -> None:
    host = make(ours("hungry"), ours("naughty"))
    pid = call(host, "hungry.eat", mebibytes=1).value
    assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "500", "it goes before the kernel does"
    full = call(host, "hungry.eat", mebibytes=4096)
    assert isinstance(full.error, AppFailed)
    assert full.error.type == "MemoryError"
    assert "512 MiB (`max_memory`" in str(full.error), "what it may hold, and whose word that is"
    assert call(host, "hungry.eat", mebibytes=1).value == pid, "it let go of what it had, and goes on"
    assert call(host, "hungry.child", mebibytes=4096).value == "MemoryError", "what it starts is held as well"
    kept = call(host, "hungry.eat", mebibytes=4096, keep=True)
    assert isinstance(kept.error, AppFailed)
    assert gone(pid), "it kept what it had"
    again = call(host, "hungry.eat", mebibytes=1)
    assert again.error is None
    assert again.value != pid
    assert call(host, "naughty.chatter", words="hello").value == "hello"


def test_how_much_memory_is_the_owners_word(make: Make) -> None:
    host = make(ours("hungry", max_memory=128 << 20))
    full = call(host, "hungry.eat", mebibytes=256)
    assert "128 MiB" in str(full.error)


def test_values_parts_and_typed_errors(make: Make) -> None:
    host = make(ours("naughty"))
    said = call(host, "naughty.chatter", words="hello")
    assert (said.value, said.error, said.text, said.label) == ("hello", None, "hello", USER)
    parts = call(host, "naughty.media")
    assert parts.parts == (Text("look"), Image(b"\x89PNG"), File("a.csv", b"1,2", "text/csv"))
    assert parts.text == "look\n[image, image/png, 4 bytes]\n[file a.csv, text/csv, 3 bytes]"
    assert parts.label == UNTRUSTED
    assert call(host, "naughty.modules").value == []
    failed = call(host, "naughty.fail", words="gone")
    assert isinstance(failed.error, AppFailed)
    assert failed.error.type == "LookupError"
    assert isinstance(call(host, "naughty.lie").error, BadResult)
    assert isinstance(call(host, "naughty.flood", megabytes=100).error, BadResult)
    assert isinstance(call(host, "naughty.fail", wrong=1).error, BadArguments)
    assert isinstance(call(host, "naughty.nothing").error, BadArguments)
    assert isinstance(call(host, "nobody.nothing").error, BadArguments)
    assert isinstance(call(host, "naughty.whoami").error, SecretMissing)
    [line] = host.ps()
    assert (line.name, line.agent, line.state, line.active, line.restarts) == ("[apps]", 0, "ready", 0, 0)
    assert line.memory > 10 << 20
    assert alive(line.os_pid)
    assert "hello" in line.words
    host.close().result(30)
    assert gone(line.os_pid)


def test_labels_are_joined(make: Make) -> None:
    host = make(ours("naughty"))
    secret = Label(Integrity.STORE, frozenset({"me"}))
    assert call(host, "naughty.chatter", options={"label": secret}, words="x").label == secret
    assert call(host, "naughty.media", options={"label": STORE}).label == UNTRUSTED
    assert call(host, "naughty.fail", options={"label": secret}, words="x").label == secret


def test_secrets_reach_those_who_declared_them(make: Make) -> None:
    host = make(ours("naughty"))
    given = context(7, "k1", expert="clerk", volume=Path("/v"), secrets={"door": "mellon", "other": "x"})
    assert "mellon" not in repr(given)
    told = host.call("naughty.whoami", {}, given).result(60)
    assert told.value == ["7", "clerk", "/v", "k1", "mellon"]
    assert isinstance(host.call("naughty.pry", {}, given).result(60).error, SecretMissing)


def test_state_is_an_agents_own(make: Make) -> None:
    host = make(ours("notebook"), ours("naughty"))
    assert [call(host, "notebook.add", pid=1, note="a").value for _ in range(2)] == [1, 2]
    assert call(host, "notebook.add", pid=2, note="b").value == 1
    one, two = (call(host, "notebook.process", pid=pid).value for pid in (1, 2))
    assert one != two
    assert sorted((line.name, line.agent) for line in host.ps()) == [("[notebook]", 1), ("[notebook]", 2)]
    host.release(1).result(30)
    assert gone(one)
    assert alive(two)
    assert call(host, "notebook.add", pid=1, note="new").value == 1


@pytest.mark.parametrize("how", ["hang", "block"])
def test_a_call_that_will_not_stop_loses_its_process(make: Make, how: str) -> None:
    host = make(ours("naughty"), ours("notebook"))
    bystander = call(host, "notebook.process").value
    assert call(host, "naughty.modules").value == []
    [guilty] = [line.os_pid for line in host.ps() if line.name == "[apps]"]
    waiting = host.call("naughty.patient", {}, context(deadline=60))
    began = time.monotonic()
    late = call(host, f"naughty.{how}")
    assert isinstance(late.error, DeadlineExceeded)
    assert time.monotonic() - began < 3
    assert gone(guilty, seconds=10)
    assert "another call in it would not stop" in str(waiting.result(10).error)
    assert alive(bystander)
    assert call(host, "naughty.modules").value == []
    assert max(line.restarts for line in host.ps()) == 1


@pytest.mark.parametrize("how", ["patient", "polite"])
def test_a_call_that_stops_in_time_keeps_its_process(make: Make, how: str) -> None:
    host = make(ours("naughty"))
    call(host, "naughty.modules")
    [before] = [line.os_pid for line in host.ps()]
    assert isinstance(call(host, f"naughty.{how}").error, DeadlineExceeded)
    time.sleep(2)
    assert [line.os_pid for line in host.ps()] == [before]


def test_a_cancelled_call(make: Make) -> None:
    host = make(ours("naughty"))
    call(host, "naughty.modules")
    running = host.call("naughty.patient", {}, context(deadline=60))
    time.sleep(0.3)
    assert running.cancel()
    with pytest.raises(CancelledError):
        running.result(5)
    assert call(host, "naughty.modules").value == []


def test_a_crash_is_an_outcome_and_restarts_slow_down(make: Make) -> None:
    host = make(rogue("die"))
    outcomes = [call(host, "rogue.echo") for _ in range(4)]
    assert all(isinstance(outcome.error, AppUnavailable) for outcome in outcomes)
    assert outcomes[1].seconds > 0.25
    assert outcomes[2].seconds > 0.5
    assert outcomes[3].seconds > 1.0
    hurried = call(host, "rogue.echo", options={"deadline": 0.05})
    assert isinstance(hurried.error, AppUnavailable)
    assert "try again in" in str(hurried.error)
    [line] = host.ps()
    assert (line.state, line.os_pid, line.restarts, line.words) == ("waiting", 0, 3, "my last words")


def test_an_app_that_lacks_something_keeps_its_process(make: Make) -> None:
    host = make(ours("naughty"))
    error = call(host, "naughty.unplugged").error
    assert isinstance(error, AppUnavailable) and "no camera" in str(error)
    [before] = host.ps()
    assert isinstance(call(host, "naughty.unplugged").error, AppUnavailable)
    assert [line.os_pid for line in host.ps()] == [before.os_pid] and before.os_pid
    assert before.state == "ready" and host.ps()[0].restarts == 0


def test_a_crashed_app_comes_back(make: Make) -> None:
    host = make(ours("naughty"))
    assert isinstance(call(host, "naughty.crash").error, AppUnavailable)
    assert call(host, "naughty.modules").value == []


def test_leaked_children_end_with_their_app(make: Make, tmp_path: Path) -> None:
    host = make(ours("naughty"))
    app = call(host, "naughty.litter", file=str(tmp_path / "pids")).value
    while len(left := (tmp_path / "pids").read_text().split()) < 2:
        time.sleep(0.01)
    assert isinstance(call(host, "naughty.hang").error, DeadlineExceeded)
    assert gone(app, *map(int, left), seconds=10)


def test_progress_and_questions(make: Make) -> None:
    host = make(ours("naughty"))
    heard: list[tuple[float, float | None, str]] = []
    assert (
        call(host, "naughty.count", options={"on_progress": lambda *n: heard.append(n)}, upto=500).value
        == 500
    )
    for _ in range(1000):  # the package delivers news in tasks of their own, and none that is late
        if heard:
            break
        time.sleep(0.01)
    assert heard == sorted(heard)
    assert len(heard) < 100
    assert all(total == 500 and message == f"step {done:.0f}" for done, total, message in heard)
    asked: list[tuple[str, Any]] = []

    def slowly(prompt: str, schema: Any) -> Future[str]:
        asked.append((prompt, schema))
        answer: Future[str] = Future()
        threading.Timer(1.0, answer.set_result, ['{"good": true}' if schema else "because"]).start()
        return answer

    options = {"on_ask": slowly, "deadline": 0.8}
    assert call(host, "naughty.wonder", options=options, prompt="why?").value == "BECAUSE"
    assert call(host, "naughty.judge", options=options, prompt="good?").value is True
    assert asked[0] == ("why?", None)
    assert asked[1][1]["properties"] == {"good": {"title": "Good", "type": "boolean"}}
    assert isinstance(call(host, "naughty.wonder", prompt="?").error, AskRefused)


def test_what_came_of_a_key(make: Make) -> None:
    host = make(ours("post"), ours("naughty"))
    call(host, "post.send", options={"key": "k1"}, to="you", text="hi")
    known = host.took_effect("post.send", context(key="k1")).result(30)
    assert (known.value, known.absent) == ("letter to you", False)
    unknown = host.took_effect("post.send", context(key="k2")).result(30)
    assert (unknown.absent, unknown.error) == (True, None)
    assert isinstance(host.took_effect("naughty.fail", context()).result(30).error, BadArguments)


def test_one_broken_app_is_not_anothers_trouble(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad_import.py").write_text("print('noise'); import nowhere")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{tmp_path}")
    bad = Entry(name="bad", source=Ours("bad_import:Bad"))
    other = Entry(name="other", source=Ours(f"{NAUGHTY}:Post"))
    host = make(bad, other, ours("broken"), ours("naughty"))
    found = host.manifests().result(60)
    assert isinstance(found["naughty"], Manifest)
    assert isinstance(found["bad"], ManifestError)
    assert "nowhere" in str(found["bad"])
    assert isinstance(found["other"], ManifestError)
    assert isinstance(call(host, "bad.x").error, ManifestError)
    assert isinstance(call(host, "broken.anything").error, AppUnavailable)
    assert call(host, "naughty.modules").value == []


def test_manifests_are_kept_until_files_change(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "own_app.py"
    code = "\n".join(
        [
            "from llmos.abi.app import App, syscall",
            "class Own(App):",
            "    @syscall(effect='none')",
            "    def {0}(self) -> int:",
            "        'One.'",
            "        return 1",
        ]
    )
    module.write_text(code.format("first"))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{tmp_path}")
    monkeypatch.syspath_prepend(tmp_path)
    entry = Entry(name="own", source=Ours("own_app:Own"))

    def names() -> list[str]:
        found = make(entry).manifests().result(60)["own"]
        assert isinstance(found, Manifest)
        return [one.name for one in found.syscalls]

    assert names() == ["own.first"]
    began = time.monotonic()
    assert names() == ["own.first"]
    assert time.monotonic() - began < 0.1
    module.write_text(code.format("second"))
    os.utime(module, ns=(time.time_ns(), time.time_ns() + 1))
    assert names() == ["own.second"]
    assert "own_app" not in sys.modules


# --- foreign servers ---


def test_a_stranger_under_an_overlay(make: Make) -> None:
    host = make(rogue("good", effects={"e*": {"effect": "read", "retry": "safe"}}))
    manifest = host.manifests().result(30)["rogue"]
    assert isinstance(manifest, Manifest)
    assert (manifest.syscalls[0].effect, manifest.syscalls[0].retry) == ("read", "safe")
    said = call(host, "rogue.echo", text="hi")
    assert (said.parts, said.label) == ((Text("hi"),), UNTRUSTED)


def test_a_stranger_that_changes_is_refused_until_confirmed(make: Make) -> None:
    host = make(rogue("change"))
    first = host.manifests().result(30)["rogue"]
    assert isinstance(first, Manifest)
    time.sleep(0.3)  # its notice is on its way
    refused = call(host, "rogue.echo", text="hi")
    assert isinstance(refused.error, ManifestChanged)
    assert refused.error.confirmed == first.fingerprint
    again = call(host, "rogue.echo", text="hi")
    assert isinstance(again.error, ManifestChanged)


def test_confirming_what_was_seen(make: Make, tmp_path: Path) -> None:
    host = make(rogue("good"))
    first = host.manifests().result(30)["rogue"]
    assert isinstance(first, Manifest)
    host.close().result(30)
    listing = tmp_path / "state" / "foreign" / "rogue.json"
    listing.write_text(listing.read_text().replace("Says it again.", "Said it before."))
    host = make(rogue("good"))
    changed = call(host, "rogue.echo", text="hi")
    assert isinstance(changed.error, ManifestChanged)
    assert changed.error.listed == first.fingerprint
    with pytest.raises(ManifestChanged):
        host.confirm("rogue", "0" * 64).result(30)
    host.confirm("rogue", changed.error.listed).result(30)
    assert call(host, "rogue.echo", text="hi").parts == (Text("hi"),)


def test_a_stranger_that_floods_dies_or_hangs(make: Make) -> None:
    flood = make(rogue("flood"))
    assert isinstance(call(flood, "rogue.echo").error, BadResult)
    die = make(rogue("die"))
    dead = call(die, "rogue.echo")
    assert isinstance(dead.error, AppUnavailable)
    assert "my last words" in str(dead.error)
    hang = make(rogue("hang"))
    assert isinstance(call(hang, "rogue.echo", options={"deadline": 0.3}).error, DeadlineExceeded)


def test_a_server_that_cannot_be_reached(make: Make) -> None:
    host = make(Entry(name="web", source=Http("http://127.0.0.1:9/mcp")), rogue("good"))
    found = host.manifests().result(60)
    assert isinstance(found["web"], AppUnavailable)
    assert isinstance(found["rogue"], Manifest)


def test_closing_does_not_wait_for_a_silent_server(make: Make) -> None:
    host = make(rogue("silent"))
    waiting = host.manifests()
    time.sleep(1.5)
    began = time.monotonic()
    host.close().result(30)
    assert time.monotonic() - began < 5
    assert isinstance(waiting.result(5)["rogue"], AppUnavailable)


# --- inside ---


def test_pure_apps_may_run_inside(make: Make) -> None:
    host = make(Entry(name="pure", source=Ours(f"{INSIDE}:Pure"), inside=True))
    assert call(host, "pure.process").value == os.getpid()
    assert isinstance(call(host, "pure.fail").error, AppFailed)
    assert host.ps() == []
    assert isinstance(call(host, "pure.spin", options={"deadline": 0.2}).error, DeadlineExceeded)
    time.sleep(1.2)
    assert call(host, "pure.process").value != os.getpid()


def test_only_pure_apps_run_inside(make: Make) -> None:
    host = make(ours("naughty", inside=True))
    assert isinstance(call(host, "naughty.modules").error, ManifestError)


def test_names_are_there_once(make: Make) -> None:
    with pytest.raises(ManifestError, match="two apps"):
        make(rogue("good"), rogue("die"))
    with pytest.raises(ManifestError, match="no name"):
        Entry(name="../etc", source=Ours("x"))


def test_a_host_that_calls_nothing_imports_nothing() -> None:
    code = "import sys, llmos.kernel.apphost; print([m for m in ('mcp', 'jax') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.strip() == "[]"
