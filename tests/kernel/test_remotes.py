"""Remote models behind the kernel: as syscalls whose words the monitor watches."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmos.abi.config import RemoteConfig
from llmos.abi.events import Ask, Result
from llmos.abi.labels import Integrity
from llmos.abi.mount import Mount
from llmos.kernel.kernel import Kernel
from llmos.testing import call
from tests.drivers.media.drawn import encoded, page
from tests.drivers.remote.hostile import Request, Served, serving

Make = Callable[..., Kernel]


def with_remote(kernel: Kernel, server: Served, **more: Any) -> Kernel:
    """The kernel, whose owner has named the server `far`."""
    remotes = {"far": RemoteConfig(url=server.url, model="m", retries=0, stall=20.0, **more)}
    kernel.config = kernel.config.model_copy(update={"remotes": remotes})
    return kernel


def once(name: str, **arguments: Any) -> Callable[[str], str]:
    """A model that makes one call and is done."""
    made = call(name, **arguments)
    return lambda window: "Done." if name in window.rpartition("Go on.")[2] else made


def result(kernel: Kernel, **spawning: Any) -> tuple[Result, list[Ask]]:
    process = kernel.spawn(grants=["remote"], **spawning)
    events = list(process.ask("Go on."))
    (found,) = [e for e in events if isinstance(e, Result)]
    return found, [e for e in events if isinstance(e, Ask)]


def test_a_remote_is_asked_with_its_key(scripted_kernel: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMOS_SECRET_FAR", "sk-7")
    with serving(lambda request: request.say("Forty", "-two")) as server:
        kernel = scripted_kernel(once("remote.ask", model="far", prompt="What?"))
        found, asked = result(with_remote(kernel, server, key="secret:far"))
        assert found.ok and found.text == "Forty-two" and found.label.integrity == Integrity.UNTRUSTED
        assert not asked and server.seen[0].headers["authorization"] == "Bearer sk-7"
        for record in kernel.journal.records():
            assert "sk-7" not in repr(record)


def test_who_is_not_named_has_no_key_or_breaks_off_is_an_error(scripted_kernel: Make) -> None:
    with serving(lambda request: request.send(b"<html>")) as server:
        kernel = scripted_kernel(once("remote.ask", model="far", prompt="What?"))
        with_remote(kernel, server, key="secret:nobody")
        found, _ = result(kernel)
        assert not found.ok and "SecretMissing" in found.text and not server.seen
        found, _ = result(with_remote(kernel, server))
        assert not found.ok and "RemoteGarbled" in found.text and len(server.seen) == 1
        kernel.config = kernel.config.model_copy(update={"remotes": {"fra": kernel.config.remotes["far"]}})
        found, _ = result(kernel)
        assert not found.ok and "did you mean 'fra'" in found.text and len(server.seen) == 1


def test_what_a_remote_may_not_read_is_asked_about(scripted_kernel: Make, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("The launch is on Tuesday.")
    with serving(lambda request: request.say("Yes.")) as server:
        kernel = scripted_kernel(once("remote.ask", model="far", prompt="The launch is on Tuesday."))
        with_remote(kernel, server)
        for readers, allowed in (({"me"}, False), ({"me", "far"}, True), (None, True)):
            mount = Mount(tmp_path / "note.txt", "mine", None if readers is None else frozenset(readers))
            server.seen.clear()
            events = list(kernel.spawn([mount], grants=["remote"]).ask("Ask far about the launch. Go on."))
            (found,) = [e for e in events if isinstance(e, Result)]
            assert found.ok == allowed == bool(server.seen)
            asked = [(e.argument, e.value) for e in events if isinstance(e, Ask)]
            assert asked == ([] if allowed else [("prompt", "The launch is on Tuesday.")])


def test_pictures_sound_and_files(scripted_kernel: Make) -> None:
    picture = encoded(page([], (30, 20)))

    def answer(request: Request) -> None:
        match request.path.removeprefix("/v1/"):
            case "images/generations":
                request.send({"data": [{"b64_json": base64.b64encode(picture).decode()}]})
            case "audio/speech":
                request.send(sound, mime="audio/wav")
            case "audio/transcriptions":
                request.send({"text": "hello"})
            case _:
                request.say("A page.")

    import numpy as np

    from llmos.drivers.media.sound import Sound, wav

    sound = wav(Sound(np.zeros(8000, np.float32), 16_000))
    with serving(answer) as server:
        wanted = {
            "remote.draw": ({"description": "a page"}, "30 x 20", ["painting.png"]),
            "remote.look": ({"image": "painting.png", "question": "What?"}, "A page.", []),
            "remote.say": ({"text": "hello"}, "0.5 s", ["speech.wav"]),
            "remote.hear": ({"audio": "speech.wav"}, "hello", []),
            "remote.list": ({}, "far", []),
        }  # fmt: skip
        next_: list[str] = []
        kernel = with_remote(
            scripted_kernel(lambda w: "Done." if "remote." in w.rpartition("go on.")[2] else next_[-1]),
            server,
        )
        process = kernel.spawn(grants=["remote"])
        for count, (name, (arguments, words, files)) in enumerate(wanted.items()):
            given = arguments if name == "remote.list" else {"model": "far", **arguments}
            next_.append(call(name, **given))
            process.forget()
            (found,) = [e for e in process.ask(f"{count}: go on.") if isinstance(e, Result)]
            assert found.ok and words in found.text, (name, found.text)
            assert [Path(file).name for file in found.files] == files
        next_.append(call("remote.look", model="far", image="../../secret", question="What?"))
        process.forget()
        (found,) = [e for e in process.ask("again: go on.") if isinstance(e, Result)]
        assert not found.ok and "leads out" in found.text
        next_.append(call("remote.draw", model="far", description="nonsense"))
        picture = b"MZ"
        process.forget()
        (found,) = [e for e in process.ask("once more: go on.") if isinstance(e, Result)]
        assert not found.ok and "is no picture" in found.text
        assert sorted(p.name for p in kernel.workspace(process.pid).iterdir()) == [
            "painting.png",
            "speech.wav",
        ]
