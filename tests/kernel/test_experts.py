"""`experts.ask`: a child with its own grants, narrowed; circles and depth bounded; labels and costs come back."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmos.abi.config import Config
from llmos.abi.events import Result
from llmos.abi.labels import UNTRUSTED, USER
from llmos.abi.manifest import Manifest
from llmos.abi.specialist import Specialist
from llmos.apps.experts import installing
from llmos.apps.experts.packing import pack
from llmos.apps.experts.shelf import Shelf
from llmos.apps.experts.unpacking import Pack
from llmos.drivers.yamlfile import check
from llmos.kernel.experts import CHAIN, Profile, narrowed, nearest
from llmos.kernel.grants import Grant
from llmos.kernel.kernel import Kernel
from llmos.kernel.system import SYSTEM
from llmos.memory.history import History
from llmos.testing import call
from tests.apps.experts.apps import machine

Make = Callable[..., Kernel]
Install = Callable[..., None]
APPS = {
    "counter": {"app": "tests.apps.experts.apps:Counter"},
    "desk": {"app": "tests.apps.experts.apps:Desk"},
}
KNOWN = machine() | {s.name: s for app in SYSTEM for s in Manifest.of(app).syscalls}


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Installs an expert on the machine of `scripted_kernel`, with everything that it wants agreed to."""
    shelf = Shelf(check({"machine": {"state": str(tmp_path / "machine")}}, Config))

    def make(name: str, text: str = "") -> None:
        file = tmp_path / f"{name}.yaml"
        about = "" if text.startswith("description:") else f"description: The {name}.\n"
        file.write_text(f"expert: {name}\n{about}{text}")
        made = Pack.read(pack(shelf.find(str(file))))
        installing.install(shelf, made, KNOWN, lambda *_: True, unsigned=True)

    return make


def question(window: str) -> str:
    return window.rpartition("<|im_start|>user\n")[2].partition("<|im_end|>")[0]


def result(window: str) -> str:
    found = re.findall(
        r"<\|im_start\|>tool\n(.*?)<\|im_end", window.rpartition("<|im_start|>user\n")[2], re.DOTALL
    )
    return found[-1].strip() if found else ""


def test_an_expert_is_asked_and_answers(scripted_kernel: Make, install: Install) -> None:
    install(
        "clerk", "instructions: You are the clerk.\ngrants: {counter.add: }\nsampling: {max_tokens: 90}\n"
    )

    def script(window: str) -> str:
        if "You are the clerk" in window:
            return f"It is {result(window)}." if result(window) else call("counter.add", a=2, b=3)
        return (
            f"The clerk says: {result(window)}"
            if result(window)
            else call("experts.ask", name="clerk", question="2+3?")
        )

    kernel = scripted_kernel(script, apps=APPS)
    process = kernel.spawn(grants=["experts"])
    turn = process.ask("What is 2+3?", max_tokens=300)
    assert [e.text for e in turn if isinstance(e, Result)] == ["It is 5."]
    assert turn.answer == "The clerk says: It is 5."
    assert [s.pid for s in kernel.ps()] == [process.pid], "the child has gone"
    assert process.ledger.syscalls == 2, "what it used, its asker has used"


def test_it_has_its_own_grants_and_not_its_askers(scripted_kernel: Make, install: Install) -> None:
    install("clerk", "instructions: You are the clerk.\n")

    def script(window: str) -> str:
        if "You are the clerk" in window:
            return call("counter.add", a=2, b=3)  # which it cannot write: nothing was granted to it
        return result(window) or call("experts.ask", name="clerk", question="2+3?")

    kernel = scripted_kernel(script, apps=APPS)
    turn = kernel.spawn(grants=["experts", "counter"]).ask("2+3?", max_tokens=300)
    assert [e.syscall for e in turn if isinstance(e, Result)] == ["experts.ask"]
    assert "<tool_call>" not in turn.answer.partition("{")[0]


@pytest.mark.parametrize(
    ("asker", "has"),
    [
        ([], ("counter.add", "desk.read", "experts.ask")),
        (["desk"], ("counter.add", "desk.read", "desk.write(path=out/*)", "experts.ask")),
        (["desk.write(path=out/a*)"], ("counter.add", "desk.read", "experts.ask")),
        (["desk.write"], ("counter.add", "desk.read", "desk.write(path=out/*)", "experts.ask")),
    ],
)
def test_nobody_acts_through_another(asker: list[str], has: tuple[str, ...]) -> None:
    expert = Specialist(
        name="x", grants=("counter.add", "desk.read", "desk.write(path=out/*)", "experts.ask")
    )
    assert narrowed(expert, [Grant.parse(text) for text in asker], KNOWN) == has


def test_circles_are_refused(scripted_kernel: Make, install: Install) -> None:
    for name, other in (("ann", "bob"), ("bob", "ann")):
        install(name, f"instructions: You are {name}, ask {other}.\ngrants: {{experts.ask: }}\n")

    def script(window: str) -> str:
        if result(window):
            return f"I heard: {result(window)}"
        asked = re.search(r"ask (\w+)\.", window)
        return call("experts.ask", name=asked[1] if asked else "ann", question="what?")

    kernel = scripted_kernel(script)
    turn = kernel.spawn(grants=["experts"]).ask("what?", max_tokens=900)
    assert "waits for this answer: ann → bob → ann" in turn.answer
    assert turn.answer.count("I heard") == 3
    assert len(kernel.ps()) == 1


def test_a_chain_is_short(scripted_kernel: Make, install: Install) -> None:
    for n in range(CHAIN + 2):
        install(f"e{n}", f"instructions: You are e{n}, ask e{n + 1}.\ngrants: {{experts.ask: }}\n")

    def script(window: str) -> str:
        if result(window):
            return result(window)[:400]
        asked = re.search(r"ask (\w+)\.", window)
        return call("experts.ask", name=asked[1] if asked else "e0", question="what?")

    turn = scripted_kernel(script).spawn(grants=["experts"]).ask("what?", max_tokens=2000)
    assert "no further expert can be asked" in turn.answer and f"e{CHAIN - 1}" in turn.answer


def test_labels_come_back_with_the_answer(scripted_kernel: Make, install: Install) -> None:
    install("clerk", "instructions: You are the clerk.\n")

    def script(window: str) -> str:
        if "You are the clerk" in window:
            return "Yes."
        return "Done." if result(window) else call("experts.ask", name="clerk", question="true?")

    kernel = scripted_kernel(script)
    for label in (USER, UNTRUSTED):
        process = kernel.spawn(grants=["experts"])
        events = list(process.ask("Ask the clerk whether it is true?", max_tokens=300, label=label))
        assert [e.label for e in events if isinstance(e, Result)] == [label]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nobody", "there is no expert 'nobody'"),
        ("../../etc/x.yaml", "there is no expert"),
        ("/etc/passwd", "no expert"),
    ],
)
def test_whom_nobody_knows(scripted_kernel: Make, install: Install, name: str, said: str) -> None:
    def script(window: str) -> str:
        return result(window) or call("experts.ask", name=name, question="what?")

    turn = scripted_kernel(script).spawn(grants=["experts"]).ask("what?", max_tokens=900)
    assert said in turn.answer


def test_an_expert_that_nobody_agreed_to(scripted_kernel: Make, install: Install, tmp_path: Path) -> None:
    install("clerk", "grants: {counter.add: }\n")
    (tmp_path / "machine/experts/consents.json").write_text("{}")

    def script(window: str) -> str:
        return result(window) or call("experts.ask", name="clerk", question="what?")

    turn = scripted_kernel(script, apps=APPS).spawn(grants=["experts"]).ask("what?", max_tokens=900)
    assert "nobody has agreed" in turn.answer and "llmos expert allow clerk" in turn.answer


def test_the_list_has_names_and_descriptions(scripted_kernel: Make, install: Install) -> None:
    install("clerk")

    def script(window: str) -> str:
        return result(window)[:2000] or call("experts.list")

    turn = scripted_kernel(script).spawn(grants=["experts.list"]).ask("who is there?", max_tokens=3000)
    assert '"clerk": "The clerk."' in turn.answer and '"librarian"' in turn.answer


COOK = "description: Recipes, and how long things boil.\ninstructions: You are the cook.\n"
TAILOR = "description: Mends coats and trousers.\ninstructions: You are the tailor.\n"


def routed(window: str) -> str:
    """Somebody who passes questions on, and experts that say who they are and what they heard."""
    for name in ("cook", "tailor"):
        if f"You are the {name}" in window:
            return f"I am the {name}: {question(window)}"
    return result(window) or call("experts.route")


@pytest.mark.parametrize(
    ("asked", "who"),
    [
        ("Who mends trousers?", "tailor"),
        ("How long must an egg boil?", "cook"),
        ("Which recipes are there?", "cook"),
    ],
)
def test_a_question_goes_to_whoever_says_that_it_is_his(
    scripted_kernel: Make, install: Install, asked: str, who: str
) -> None:
    install("cook", COOK)
    install("tailor", TAILOR)
    kernel = scripted_kernel(routed)
    kernel.library.encode = None  # by words alone, as on a machine without the encoder
    process = kernel.spawn(grants=["experts.route"])
    assert process.ask(asked, max_tokens=300).answer == f"I am the {who}: {asked}"
    events = list(process.ask(asked, max_tokens=300, label=UNTRUSTED))
    assert [e.label for e in events if isinstance(e, Result)] == [UNTRUSTED], "what was asked keeps its label"


def test_a_router_asks_whom_it_may_and_nobody_who_waits_for_it(
    scripted_kernel: Make, install: Install
) -> None:
    install("cook", COOK)
    install("tailor", TAILOR)
    install("guide", "description: Mends trousers too.\ngrants: {experts.route: }\n")

    def script(window: str) -> str:
        if "You are the tailor" in window:
            return "I am the tailor."
        return result(window) or call("experts.route")

    kernel = scripted_kernel(script)
    process = kernel.spawn(
        grants=["experts.route"]
    )  # goes to the guide, whose words are nearest, and on from there
    turn = process.ask("Who mends trousers too?", max_tokens=600)
    assert turn.answer == "I am the tailor."
    assert [s.pid for s in kernel.ps()] == [process.pid]
    bound = kernel.spawn(grants=["experts.route", "experts.ask(name=cook)"])
    events = list(bound.ask("Who mends trousers?", max_tokens=600))
    assert [e.text for e in events if isinstance(e, Result)][:1] != ["I am the tailor."]
    nobody = kernel.spawn(grants=["experts.route", "experts.ask(name=nobody)"])
    assert "there is no expert to ask" in nobody.ask("Who mends trousers?", max_tokens=600).answer


def test_whose_words_are_nearest_comes_first() -> None:
    coats = Profile("Mends coats.")
    roster = {"cook": Profile("Recipes.", tested=("How long does rice boil?",)), "tailor": coats, "b": coats}
    assert nearest("How long does an egg boil?", roster, History())[0] == "cook"
    assert nearest("Who mends coats?", roster, History()) == ["b", "tailor", "cook"], "ties go by name"


def test_a_call_that_was_interrupted_goes_on_with_the_same_child(
    scripted_kernel: Make, install: Install, tmp_path: Path
) -> None:
    """The machine stops while the child answers: at the next boot the call waits for that child, and no other."""
    install("clerk", "instructions: You are the clerk.\nsampling: {max_tokens: 4000}\n")
    kernels: list[Kernel] = []

    def script(window: str) -> str:
        if "You are the clerk" in window:
            for process in kernels[0].table if len(kernels) == 1 else ():
                if process.expert == "clerk":
                    process.signal("STOP")  # before its first word, and long before its last
            return "Yes. " * 700
        return (
            f"Done: {result(window)[:4]}"
            if result(window)
            else call("experts.ask", name="clerk", question="true?")
        )

    state = tmp_path / "journal"
    kernels.append(scripted_kernel(script, state=state))
    asker = kernels[0].spawn(grants=["experts"])
    asker.ask("true?", max_tokens=300, detached=True)
    child = until(
        lambda: next((p.pid for p in kernels[0].table if p.expert == "clerk" and p.state == "stopped"), None)
    )
    kernels[0].journal.wait(kernels[0].appended)
    shutil.copytree(state, tmp_path / "after")  # as a crash leaves it

    kernels.append(scripted_kernel(script, state=tmp_path / "after"))
    assert [p.pid for p in kernels[1].table] == [asker.pid, child]
    kernels[1].process(child).signal("CONT")
    answer = until(lambda: [e.answer for e in kernels[1].process(asker.pid).conversation])
    assert answer == ["Done: Yes."]
    until(lambda: len(kernels[1].ps()) == 1)
    assert kernels[1].table.admit() == child + 1, "nobody else was spawned"


def until(look: Callable[[], Any]) -> Any:
    """What `look` comes to once it comes to something."""
    end = time.monotonic() + 120
    while not (found := look()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found
