"""What a process's owner may change while it lives: documents, grants, what stands in its windows, its past."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llmos.abi.errors import ConfigError, ProcessError, WindowOverflow
from llmos.abi.events import Call, PageIn, PageOut
from llmos.abi.mount import Mount
from llmos.kernel.journal import read
from llmos.kernel.journal.records import Started
from llmos.kernel.kernel import Kernel
from llmos.testing import call
from tests.memory.words_encoder import WordsEncoder

Make = Callable[..., Kernel]
SHOP = {"shop": {"app": "tests.kernel.shop:Shop"}}


def window_of(kernel: Kernel, pid: int) -> str:
    """The window that the process's last turn began with."""
    bodies = [r.body for r in read(kernel.state, kinds=[Started]) if r.pid == pid]
    assert isinstance(bodies[-1], Started)
    return kernel.tokenizer.decode(bodies[-1].window)


def sources(events: object) -> set[str]:
    return {e.source for e in events if isinstance(e, PageIn)}  # type: ignore[attr-defined]


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    folder = tmp_path / "papers"
    folder.mkdir()
    (folder / "cats.txt").write_text("The cat is called Miso and sleeps all day.")
    (folder / "boats.txt").write_text("The boat lies in berth fourteen.")
    (folder / "100%_done.txt").write_text("Wildcards in names are letters.")
    return folder


@pytest.fixture
def make(scripted_kernel: Make) -> Make:
    def made(*arguments: object, **options: object) -> Kernel:
        kernel = scripted_kernel(lambda window: "So it is.", *arguments, **options)
        kernel.library.__dict__["encoder"] = WordsEncoder()
        return kernel

    return made


def test_documents_come_and_go(make: Make, documents: Path) -> None:
    kernel = make()
    process = kernel.spawn([Mount(documents, "mine")])
    assert process.holdings().mounts[0].path == documents
    assert "cats.txt" in {Path(s).name for s in sources(process.ask("Where is the cat?"))}
    process.unmount(documents)
    assert process.holdings().mounts == ()
    assert not sources(process.ask("Where is the cat?"))
    with pytest.raises(ProcessError, match="is not mounted"):
        process.unmount(documents)


def test_pages_in_out_and_pinned(make: Make, documents: Path) -> None:
    kernel = make()
    process = kernel.spawn([documents])
    cats = next(s for s in sources(process.ask("Where is the cat?")) if s.endswith("cats.txt"))
    process.place(cats, "out")
    assert cats not in sources(process.ask("Where is the cat?"))
    process.place(cats, "in")
    assert cats in sources(process.ask("berth"))
    assert kernel.spawn([documents]).view.knows(cats.replace("cats", "100%_done"))
    assert not process.view.knows(cats.replace("cats", "c_ts")), "a name is no pattern"
    process.place("turn 1", "out")
    process.ask("And now?").result
    window = window_of(kernel, process.pid)
    assert window.count("Where is the cat?") == 1, "turn 2 is there, turn 1 is not"
    with pytest.raises(ProcessError, match="within the reach"):
        process.place("turn 99", "pinned")
    assert process.holdings().placed == {cats: "in", "turn 1": "out"}
    process.place(cats, "")
    assert process.holdings().placed == {"turn 1": "out"}


def test_what_is_pinned_never_leaves(scripted_kernel: Make) -> None:
    kernel = scripted_kernel(lambda window: "So it is.", window=1024)
    kernel.library.__dict__["encoder"] = WordsEncoder()
    process = kernel.spawn()
    process.ask("The word of the day is xylophone.", max_tokens=20).result
    process.place("turn 1", "pinned")
    gone = []
    for n in range(12):
        turn = process.ask(
            f"Tell me about the weather in the town of number {n}, please, at length.", max_tokens=20
        )
        gone += [e.source for e in turn if isinstance(e, PageOut)]
        assert "xylophone" in window_of(kernel, process.pid)
    assert gone and "turn 1" not in gone
    for n in range(2, 9):
        process.place(f"turn {n}", "pinned")
    with pytest.raises(WindowOverflow):
        process.ask("x" * 300, max_tokens=20)


def test_grants_change_between_turns(scripted_kernel: Make) -> None:
    def script(window: str) -> str:
        return "Done." if "tool" in window.rpartition("user\n")[2] else call("shop.price", item="tea")

    kernel = scripted_kernel(script, apps=SHOP)
    process = kernel.spawn()
    assert not [e for e in process.ask("price?", max_tokens=60) if isinstance(e, Call)]
    process.grant(["shop.price"])
    assert process.holdings().grants == ("shop.price",)
    assert [e.syscall for e in process.ask("price?", max_tokens=200) if isinstance(e, Call)] == ["shop.price"]
    with pytest.raises(ConfigError, match="no syscall answers"):
        process.grant(["nobody.at_all"])
    (child,) = process.fork()
    child.grant([])
    with pytest.raises(ProcessError, match="has less"):
        child.grant(["shop.pay"])
    process.grant([])
    assert not [e for e in process.ask("price?", max_tokens=60) if isinstance(e, Call)]
    assert kernel.replay(process.pid).divergence is None


def test_undone_turns_are_forgotten(make: Make, documents: Path, tmp_path: Path) -> None:
    kernel = make(state=tmp_path / "kept")
    process = kernel.spawn(grants=[])
    for question in ("one", "two", "three"):
        process.ask(question).result
    process.forget(since=2)
    assert [e.question for e in process.conversation] == ["one"]
    process.place("turn 1", "pinned")
    process.ask("four").result
    assert "two" not in window_of(kernel, process.pid)
    kernel.close()
    again = make(state=tmp_path / "kept").process(process.pid)
    assert [(e.turn, e.question) for e in again.conversation] == [(1, "one"), (4, "four")]
    assert again.holdings().placed == {"turn 1": "pinned"}


def test_a_fork_is_preferred_to_another(make: Make) -> None:
    kernel = make()
    process = kernel.spawn()
    process.ask("one").result
    left, right = process.fork(2)
    left.ask("two").result, right.ask("two").result
    left.prefer(2, 2, of=right.pid)
    with pytest.raises(ProcessError, match=f"process {right.pid} has had no turn 9"):
        left.prefer(2, 9, of=right.pid)
