"""The shell with a real model: as a user starts it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.apps.shell.conftest import Terminal

Spawn = Callable[..., Terminal]


def test_a_conversation(terminal: Spawn, weights_path: Callable[[str], Path], tmp_path: Path) -> None:
    weights_path("smollm2-135m")
    (tmp_path / "notes.txt").write_text("The parrot is called Ambrose. It eats nuts.\n", encoding="utf-8")

    cache = os.environ.get("LLMOS_CACHE") or str(Path("~/.cache/llmos").expanduser())
    shell = terminal(
        "shell", "--model", "smollm2-135m", "--max-tokens", "16", module="llmos",
        env={"LLMOS_STATE": str(tmp_path / "state"), "LLMOS_CACHE": cache},
    )  # fmt: skip
    shell.sees("Ask anything", "the model is loading")
    shell.types(f"What is the parrot called? See @{tmp_path}/notes.txt")
    shell.sees("notes.txt (shared)", "first token")
    shell.types("/pmap")
    shell.sees("knowledge")
    shell.types("/why")
    shell.sees("tokens, each", "Without", "knowledge")
    (tmp_path / "crew.txt").write_text("The cook is called Bo.\n", encoding="utf-8")
    shell.types(f"/mount {tmp_path}/crew.txt mine")
    shell.sees("crew.txt (mine)")
    shell.types("/mount")
    shell.sees("notes.txt (shared)", "crew.txt (mine)")
    for line, said in (
        ("/pin crew.txt", "crew.txt stays in every window"),
        ("/page-out notes.txt", "notes.txt is left out of them"),
    ):
        shell.types(line)
        shell.sees(said)
    shell.types("What is the cook called?")
    shell.sees("first token")
    shell.types("/pmap")
    shell.sees("crew.txt", "crew.txt stays in every window")
    shell.types(f"/umount {tmp_path}/crew.txt")
    shell.sees("unmounted", "crew.txt")
    shell.types("/next")
    shell.sees("other tokens together")
    shell.types("/ps")
    shell.sees("1    0     operator", "2    0     agent")
    shell.send("\x04")
    assert shell.ends() == 0
