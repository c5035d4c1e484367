"""What an expert may call: exactly what somebody has agreed to, as it was then."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from llmos.abi.config import Config
from llmos.abi.errors import ConfigError
from llmos.apps.experts import agreeing
from llmos.apps.experts.errors import ConsentMissing
from llmos.apps.experts.expert import Expert
from llmos.apps.experts.grants import Consents, Wanted, granted, syscalls, wanted
from llmos.apps.experts.shelf import Shelf
from tests.apps.experts.apps import machine

Write = Callable[..., Path]


class Person:
    """Somebody who is asked, and remembers what for."""

    def __init__(self, says: bool = True) -> None:
        self.says, self.asked = says, list[list[str]]()

    def __call__(self, expert: Expert, missing: Sequence[Wanted], agreed: Sequence[Wanted]) -> bool:
        self.asked.append([one.grant for one in missing])
        return self.says


@pytest.fixture
def clerk(shelf: Shelf, write: Write) -> Expert:
    return shelf.find(str(write("clerk", "grants: {counter.*: , desk.*: {under: out}}\n")))


def test_a_grant_is_of_one_syscall(clerk: Expert) -> None:
    wants = wanted(clerk, machine())
    assert [(w.grant, w.syscall, w.effect) for w in wants] == [
        ("counter.add", "counter.add", "none"),
        ("desk.read(path=out/*)", "desk.read", "read"),
        ("desk.write(path=out/*)", "desk.write", "write"),
    ]


def test_nothing_is_granted_that_nobody_agreed_to(clerk: Expert, shelf: Shelf) -> None:
    consents = Consents(shelf.state)
    with pytest.raises(ConsentMissing, match=r"desk.write\(path=out/\*\) \(write\).*llmos expert allow"):
        granted(clerk, machine(), consents)
    with pytest.raises(ConsentMissing):
        granted(clerk, machine(), consents, Person(says=False))
    assert consents.agreed(clerk) is None


def test_what_was_agreed_to_is_asked_once(clerk: Expert, shelf: Shelf) -> None:
    person = Person()
    first = granted(clerk, machine(), Consents(shelf.state), person)
    assert first == granted(clerk, machine(), Consents(shelf.state), person)
    assert first == ("counter.add", "desk.read(path=out/*)", "desk.write(path=out/*)")
    assert len(person.asked) == 1


def test_an_app_that_has_grown_asks_again(clerk: Expert, shelf: Shelf) -> None:
    person = Person()
    granted(clerk, machine(), Consents(shelf.state), person)
    granted(clerk, machine(more=True), Consents(shelf.state), person)
    assert person.asked[1:] == [["desk.burn(path=out/*)"]], "the new one alone"
    granted(clerk, machine(more=True, effect="send"), Consents(shelf.state), person)
    assert person.asked[2:] == [["desk.read(path=out/*)"]], "the one that does more now"
    wider = machine(more=True, effect="send")
    schema = wider["counter.add"].parameters
    more = {**schema, "properties": {**schema["properties"], "title": {"type": "string"}}}
    wider["counter.add"] = wider["counter.add"].model_copy(update={"parameters": more})
    granted(clerk, wider, Consents(shelf.state), person)
    assert person.asked[3:] == [["counter.add"]], "the one that takes more now, whatever it is called"


def test_a_description_that_changes_asks_nobody(clerk: Expert, shelf: Shelf) -> None:
    person = Person()
    granted(clerk, machine(), Consents(shelf.state), person)
    reworded = {name: s.model_copy(update={"description": "Other words."}) for name, s in machine().items()}
    for name, one in reworded.items():
        told = {k: {**v, "description": "Other words."} for k, v in one.parameters["properties"].items()}
        reworded[name] = one.model_copy(update={"parameters": {**one.parameters, "properties": told}})
    granted(clerk, reworded, Consents(shelf.state), person)
    assert len(person.asked) == 1


def test_a_file_that_widens_asks_and_one_that_narrows_does_not(shelf: Shelf, write: Write) -> None:
    person, consents = Person(), Consents(shelf.state)

    def run(text: str) -> tuple[str, ...]:
        return granted(shelf.find(str(write("clerk", text))), machine(), consents, person)

    run("grants: {desk.read: {under: out}}\n")
    assert run("grants: {desk.read: }\n") == ("desk.read",)
    assert person.asked == [["desk.read(path=out/*)"], ["desk.read"]]
    run("grants: {}\n")
    assert len(person.asked) == 2


def test_another_file_of_the_same_name_has_no_part_in_it(clerk: Expert, shelf: Shelf, write: Write) -> None:
    granted(clerk, machine(), Consents(shelf.state), Person())
    twin = shelf.find(str(write("clerk", "grants: {counter.*: }\n", folder="elsewhere")))
    with pytest.raises(ConsentMissing):
        granted(twin, machine(), Consents(shelf.state))


def test_a_damaged_list_of_consents_asks_again(clerk: Expert, shelf: Shelf) -> None:
    granted(clerk, machine(), Consents(shelf.state), Person())
    for text in ("", "[]", "{", '{"x": 3}'):
        (shelf.state / "consents.json").write_text(text)
        with pytest.raises(ConsentMissing):
            granted(clerk, machine(), Consents(shelf.state))


def test_what_is_shipped_is_agreed_to_as_it_is_shipped(shelf: Shelf) -> None:
    known = syscalls(shelf.config)
    assistant = shelf.find("assistant")
    assert granted(assistant, known, Consents(shelf.state))
    name = wanted(assistant, known)[0].syscall
    grown = {**known, name: known[name].model_copy(update={"effect": "send"})}
    with pytest.raises(ConsentMissing):
        granted(assistant, grown, Consents(shelf.state))


def test_a_syscall_that_is_not_here(shelf: Shelf, write: Write) -> None:
    expert = shelf.find(str(write("clerk", "grants: {desks.read: }\n")))
    with pytest.raises(ConfigError, match=r"'desks.read'.*did you mean 'desk.read'"):
        granted(expert, machine(), Consents(shelf.state), Person())


def test_the_machine_knows_its_apps_without_a_kernel(shelf: Shelf) -> None:
    known = syscalls(shelf.config)
    assert {"proc.spawn", "memory.search", "experts.ask"} <= known.keys()
    assert any(name.startswith("calculator.") for name in known)
    config = Config.model_validate(
        {"machine": shelf.config.machine, "apps": {"desk": {"app": "tests.apps.experts.apps:Desk"}}}
    )
    assert "desk.write" in syscalls(config)


def test_what_a_person_is_shown(clerk: Expert) -> None:
    notes = io.StringIO()
    hostile = Wanted("desk.read(path=\x1b[2J*)", "read", "", "Read\x1b]0;me\x07.")
    assert agreeing.always(notes)(clerk, [*wanted(clerk, machine()), hostile], [])
    said = notes.getvalue()
    assert "\x1b" not in said and "clerk 0.1.0 wants to call" in said
    assert said.index("desk.write") < said.index("counter.add"), "the gravest first"
