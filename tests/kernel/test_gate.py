"""The gate against clients of all kinds: strangers, liars, those that hang, and those that die."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest

from llmos.abi import errors, wire
from llmos.abi.errors import ConfigError, EngineError, LLMOSError, ProcessError, TurnRefused
from llmos.abi.events import Ask, Token
from llmos.attach import attach
from llmos.kernel.gate import Gate
from llmos.kernel.gate import client as gate_client
from llmos.kernel.journal.records import Approval
from llmos.kernel.kernel import Kernel
from llmos.testing import call

Make = Callable[..., Kernel]
ROOT = Path(__file__).parents[2]
LONG = "word " * 2000
SHOP = {"shop": {"app": "tests.kernel.shop:Shop"}}


def script(window: str) -> str:
    question, _, rest = window.rpartition("<|im_start|>user\n")[2].partition("<|im_end|>")
    if question == "buy":
        steps = [call("shop.reviews", item="tea"), call("shop.pay", to="eve", cents=5), "done"]
        return steps[min(rest.count("<|im_start|>assistant") - 1, 2)]
    return LONG if question == "long" else f"You said {question}."


def eventually(check: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "machine"


@pytest.fixture
def gate(scripted_kernel: Make, state: Path) -> Iterator[Gate]:
    kernel = scripted_kernel(script, state=state / "kernel", apps=SHOP, hosts=("*",))
    with Gate(kernel, frame_bytes=1 << 16) as gate:
        yield gate


class Raw:
    """A client that says what it likes."""

    def __init__(self, path: Path, hello: dict[str, Any] | None = None) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        with wire.address(path) as address:
            self.socket.connect(address)
        self._lines = self.socket.makefile("rb")
        if hello is not None:
            self.say(hello)
            self.hello = self.hear()

    def say(self, *frames: dict[str, Any]) -> None:
        self.socket.sendall(b"".join(wire.pack(frame) for frame in frames))

    def hear(self) -> dict[str, Any]:
        line = self._lines.readline()
        return json.loads(line) if line else {}

    def close(self) -> None:
        self._lines.close()
        self.socket.close()


@pytest.fixture
def raw(gate: Gate) -> Iterator[Callable[..., Raw]]:
    with ExitStack() as clients:
        hello = {"llmos": wire.VERSION}
        yield lambda hello=hello: clients.enter_context(closing(Raw(gate.path, hello)))


def test_nobody_else_gets_near_the_socket(gate: Gate) -> None:
    assert stat.S_IMODE(gate.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(gate.path.parent.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_is_refused(scripted_kernel: Make) -> None:
    """Where the folder lets somebody in, the gate does not."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as parts:
        kernel = scripted_kernel(script, state=Path(folder) / "kernel")
        gate = parts.enter_context(Gate(kernel))
        for path, mode in ((Path(folder), 0o755), (gate.path.parent, 0o755), (gate.path, 0o666)):
            path.chmod(mode)
        code = f"""
import os, socket
os.setgid(65534); os.setuid(65534)
s = socket.socket(socket.AF_UNIX)
s.connect({str(gate.path)!r})
print(s.recv(1 << 16).decode(), end="")
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        refused = wire.load_error(json.loads(done.stdout.splitlines()[0])["error"])
        assert isinstance(refused, ProcessError) and "another user" in refused.what
        assert len(done.stdout.splitlines()) == 1
        mine = attach(Path(folder))
        assert mine is not None
        mine.close()


def test_another_version_is_told_so(raw: Callable[..., Raw], gate: Gate) -> None:
    client = raw({"llmos": 99})
    refused = wire.load_error(client.hello["error"])
    assert isinstance(refused, ConfigError) and "version 1" in refused.what and refused.do
    assert client.hear() == {}
    other = raw({"hello": True})
    assert "error" in other.hello


def test_a_kernel_of_another_version_is_told_so(tmp_path: Path) -> None:
    path = wire.socket_path(tmp_path)
    path.parent.mkdir()
    code = f"""
import socket
s = socket.socket(socket.AF_UNIX); s.bind({str(path)!r}); s.listen(); print("up", flush=True)
c, _ = s.accept(); c.recv(9999); c.sendall(b'{{"llmos": 2}}\\n'); c.recv(1)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"up\n"
        with pytest.raises(ConfigError, match="another version"):
            attach(tmp_path)


@pytest.mark.parametrize(
    ("garbage", "says"),
    [
        (b"GET / HTTP/1.1\r\n", "not JSON"),
        (b"[" * 50_000 + b"\n", "not JSON"),
        (b"\xff\xfe\n", "not JSON"),
        (b"[1, 2]\n", "not a JSON object"),
        (b"{}\n", "no id"),
        (b'{"id": "x", "verb": "ps"}\n', "no id"),
        (b"x" * 200_000 + b"\n", "too large"),
    ],
)
def test_garbage_ends_its_client_and_nobody_else(
    raw: Callable[..., Raw], gate: Gate, garbage: bytes, says: str
) -> None:
    good, bad = raw(), raw()
    with suppress(OSError):
        bad.socket.sendall(garbage)
    said = bad.hear()
    assert says in wire.load_error(said["error"]).args[0]
    with suppress(OSError):
        assert bad.hear() == {}
    good.say({"id": 1, "verb": "ps"})
    assert good.hear() == {"id": 1, "value": []}


@pytest.mark.parametrize(
    ("verb", "given", "kind", "says"),
    [
        ("dance", {}, ProcessError, "no verb"),
        (["ps"], {}, ProcessError, "no verb"),
        ("ps", [], ProcessError, "no object"),
        ("ps", {"x": 1}, ProcessError, "Unexpected keyword"),
        ("ask", {"pid": "one"}, ProcessError, "valid integer"),
        ("ask", {}, ProcessError, "Missing required"),
        ("signal", {"pid": 1, "signal": "HUP"}, ProcessError, "'INT'"),
        ("stat", {"pid": 5}, errors.NoSuchProcess, "no process 5"),
        ("feedback", {"pid": 1, "verdict": "correct", "turn": 1}, ProcessError, "wrongly"),
        ("spawn", {"mounts": [{"path": 3}]}, ProcessError, "wrongly"),
    ],
)
def test_wrong_requests_are_errors_of_their_own(
    raw: Callable[..., Raw], gate: Gate, verb: Any, given: Any, kind: type[LLMOSError], says: str
) -> None:
    gate.kernel.spawn()
    client = raw()
    client.say({"id": 3, "verb": verb, "with": given}, {"id": 4, "verb": "ps"})
    heard = {frame["id"]: frame for frame in (client.hear(), client.hear())}
    told = wire.load_error(heard[3]["error"])
    assert type(told) is kind and says in str(told)
    assert len(heard[4]["value"]) == 1, "the client goes on"


def test_who_says_nothing_is_sent_away(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_client, "HELLO_S", 0.1)
    with closing(Raw(gate.path)) as silent:
        assert silent.hear() == {}


def test_clients_are_bounded(raw: Callable[..., Raw], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_client, "MAX_CLIENTS", 2)
    _, second = raw(), raw()
    third = raw(None)
    assert "2 clients" in wire.load_error(third.hear()["error"]).args[0]
    second.say({"id": 1, "verb": "ps"})
    assert second.hear()["id"] == 1


def test_a_client_that_dies_takes_what_was_its_own(gate: Gate, state: Path) -> None:
    kernel = gate.kernel
    mine = kernel.spawn(expert="older")
    code = f"""
import os, pathlib
from llmos.attach import attach
kernel = attach(pathlib.Path({str(state)!r}))
own, stays = kernel.spawn(expert="own"), kernel.spawn(expert="stays")
turns = [kernel.process({mine.pid}).ask("long", max_tokens=4000), own.ask("long", max_tokens=4000)]
kept = stays.ask("long", max_tokens=4000, detached=True)
readings = [iter(turn) for turn in turns]
for reading in readings: next(reading)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False
    )
    assert done.returncode == -9
    eventually(lambda: {s.name for s in kernel.ps()} == {"older", "stays"})
    eventually(lambda: all(p.current is None for p in kernel.table))
    assert [len(p.conversation[0].answer) < 3999 for p in kernel.table] == [True, False]
    assert gate.readings == {}


def test_a_client_that_does_not_read_slows_its_own_turn(raw: Callable[..., Raw], gate: Gate) -> None:
    slow, quick = raw(), raw()
    for client in (slow, quick):
        client.say({"id": 1, "verb": "spawn"})
    pids = [client.hear()["value"]["pid"] for client in (slow, quick)]
    asked = {"question": "long", "max_tokens": 4000}
    slow.say({"id": 2, "verb": "ask", "with": {"pid": pids[0], **asked}})
    assert "part" in slow.hear()
    quick.say({"id": 2, "verb": "ask", "with": {"pid": pids[1], **asked}}, {"id": 2, "more": 1 << 30})
    while "part" in (frame := quick.hear()):
        pass
    assert frame == {"id": 2, "value": None}
    held = gate.kernel.process(pids[0]).current
    assert held is not None, "it waits for its reader"
    slow.say({"id": 3, "verb": "ps"})
    frames = [slow.hear()]
    while frames[-1]["id"] != 3:
        frames.append(slow.hear())
    assert 200 < len(frames) <= wire.UNREAD + 1, "the rest of the connection goes on"
    slow.say({"id": 2, "more": 1 << 30})
    while "part" in (frame := slow.hear()):
        pass
    assert frame == {"id": 2, "value": None}


def test_two_clients_read_one_turn(gate: Gate, state: Path) -> None:
    first, second = attach(state), attach(state)
    assert first is not None and second is not None
    with second:
        with first:
            p = first.spawn()
            turn = p.ask("long", max_tokens=1200, detached=True)
            other = second.process(p.pid).current
            assert other is not None and other.number == turn.number
            reading = iter(turn)
            next(reading)
        assert other.answer == LONG[:1200].strip(), "the first has gone, the second reads on"


def buy(gate: Gate, state: Path, asker: Callable[[Ask], bool] | None) -> tuple[str, list[Any]]:
    client = attach(state, asker=asker)
    assert client is not None
    with client:
        turn = client.spawn(grants=["shop"]).ask("buy", max_tokens=1000)
        assert turn.answer
    approvals = [r.body for r in gate.kernel.journal.records(turn.pid, kinds=[Approval])]
    return turn.answer, [(a.value, a.allowed, a.by) for a in approvals if isinstance(a, Approval)]


def test_what_nobody_answers_is_denied(gate: Gate, state: Path) -> None:
    assert buy(gate, state, None)[1] == [("eve", False, "deny")]


@pytest.mark.parametrize("allowed", [True, False])
def test_approvals_travel(gate: Gate, state: Path, allowed: bool) -> None:
    asked: list[Any] = []

    def asker(doubt: Ask) -> bool:
        asked.append((doubt.syscall, doubt.argument, doubt.value))
        return allowed

    assert buy(gate, state, asker)[1] == [("eve", allowed, "user")]
    assert asked == [("shop.pay", "to", "eve")]


def test_an_asker_that_leaves_has_not_approved(gate: Gate, raw: Callable[..., Raw]) -> None:
    client = raw({"llmos": wire.VERSION, "approves": True})
    p = gate.kernel.spawn(grants=["shop"])
    client.say({"id": 1, "verb": "ask", "with": {"pid": p.pid, "question": "buy", "detached": True}})
    while '"Ask"' not in json.dumps(client.hear()):
        pass
    client.close()
    eventually(lambda: p.current is None)
    approvals = [r.body for r in gate.kernel.journal.records(p.pid, kinds=[Approval])]
    assert [a.allowed for a in approvals if isinstance(a, Approval)] == [False]


def test_what_stands_open_goes_on_at_the_next_boot(scripted_kernel: Make, state: Path) -> None:
    """A kernel that goes down leaves its clients' turns as they are; a stale socket is in nobody's way."""
    kernel = scripted_kernel(script, state=state / "kernel")
    gate = Gate(kernel)
    client = attach(state)
    assert client is not None
    with client:
        p = client.spawn(expert="one")
        turn = p.ask("long", max_tokens=3000)
        reading = iter(turn)
        while not isinstance(next(reading), Token):
            pass
        gate.close()
        kernel.close()
        with pytest.raises(EngineError, match="has gone"):
            list(reading)
        with pytest.raises(EngineError, match="has gone"):
            p.stat()
    (state / "kernel" / "socket").touch()
    again = scripted_kernel(script, state=state / "kernel")
    with Gate(again), attach(state) as client:  # type: ignore[union-attr]
        resumed = client.process(p.pid)
        follow = resumed.current
        if follow is not None:
            assert follow.answer == LONG[:3000].strip()
        eventually(lambda: resumed.conversation)
        assert resumed.conversation[0].answer == LONG[:3000].strip()


def test_the_journal_can_be_followed(gate: Gate, state: Path) -> None:
    class Enough(Exception):
        pass

    p, q = gate.kernel.spawn(), gate.kernel.spawn()
    kinds: list[str] = []

    def take(seq: int, when: float, pid: int, kind: str, body: Mapping[str, Any]) -> None:
        assert pid == p.pid and when > 1e9
        if not kinds:
            q.ask("not this"), p.ask("hi", detached=True)
        kinds.append(kind)
        if kind == "finished":
            assert body["answer"] == "You said hi."
            raise Enough

    client = attach(state)
    assert client is not None
    with client:
        with pytest.raises(Enough):
            client.records(take, p.pid, follow=True)
        assert [k for k in kinds if k != "sampled"] == ["spawned", "asked", "started", "finished"]
        every: list[int] = []
        client.records(lambda seq, *_: every.append(seq))
        assert every == list(range(1, len(every) + 1)) and len(every) > len(kinds)


def test_draining(gate: Gate, state: Path) -> None:
    client = attach(state)
    assert client is not None
    with client:
        p = client.spawn()
        turn = p.ask("long", max_tokens=2000, detached=True)
        client.shutdown()
        assert gate.stopping.is_set() and turn.answer == LONG[:2000].strip()
        with pytest.raises(TurnRefused, match="going down"):
            p.ask("hi")
        with pytest.raises(TurnRefused, match="going down"):
            client.spawn()


def test_a_long_path(scripted_kernel: Make, tmp_path: Path) -> None:
    state = tmp_path / ("x" * 120)
    kernel = scripted_kernel(script, state=state / "kernel")
    with Gate(kernel), attach(state) as client:  # type: ignore[union-attr]
        assert client.spawn().ask("hi").answer == "You said hi."
    assert attach(state) is None, "nobody listens any more"


def test_every_error_comes_out_as_it_went_in() -> None:
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, LLMOSError)]
    assert len(kinds) > 30
    for kind in kinds:
        error = kind("what", why="why", do="do")
        back = wire.load_error(json.loads(json.dumps(wire.dump_error(error))))
        assert (type(back), str(back), vars(back)) == (kind, str(error), vars(error))
    assert type(wire.load_error({"type": "SystemExit", "what": "x"})) is LLMOSError
    assert isinstance(wire.load_error(wire.dump_error(TimeoutError("t"))), TimeoutError)
    assert isinstance(wire.load_error(wire.dump_error(ZeroDivisionError("z"))), EngineError)
