"""A wrong declaration is an error while its class is defined."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated, Any

import pytest

from llmos.abi.app import App, Call, Payload, Target, query, syscall, syscalls_of
from llmos.abi.errors import ManifestError
from llmos.abi.manifest import Manifest


def test_names_and_flags() -> None:
    class CoffeeMachine(App, stateful=True, secrets="beans"):
        """Makes coffee."""

    class Other(App, name="tea"):
        """Makes tea."""

    assert (CoffeeMachine.app_name, CoffeeMachine.stateful, CoffeeMachine.pure) == (
        "coffee_machine",
        True,
        False,
    )
    assert CoffeeMachine.secrets == ("beans",)
    assert CoffeeMachine.max_memory == 0
    assert Other.app_name == "tea"


def test_how_much_memory_its_processes_may_hold() -> None:
    class Large(App, max_memory=16 << 30):
        """Holds a model."""

        @syscall(effect="none")
        def think(self) -> int:
            """Think."""
            return 1

    assert Manifest.of(Large).max_memory == 16 << 30
    with pytest.raises(ManifestError, match="max_memory"):
        type("Small", (App,), {}, max_memory=16)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"effect": "explode"}, "explode"),
        ({"effect": "read", "retry": "often"}, "often"),
        ({"effect": "read", "returns": "truth"}, "truth"),
        ({"effect": "read", "deadline": 0.0}, "deadline"),
        ({"effect": "read", "deadline": float("inf")}, "deadline"),
    ],
)
def test_words_that_do_not_exist(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ManifestError, match=word):
        syscall(**options)


def test_a_pure_call_may_be_believed_as_its_arguments() -> None:
    class Mixed(App):
        @syscall(effect="none")
        def add(self, a: int) -> int:
            """Adds."""
            return a

        @syscall(effect="fetch")
        def look(self, a: int) -> int:
            """Looks."""
            return a

        @syscall(effect="read", returns="store")
        def shelf(self, a: int) -> int:
            """Reads."""
            return a

    assert {name: one.returns for name, one in syscalls_of(Mixed)} == {
        "add": "user",
        "look": "untrusted",
        "shelf": "store",
    }


def test_a_syscall_hides_no_other() -> None:
    with pytest.raises(ManifestError, match="'twice'"):

        class Doubled(App):
            @syscall(effect="none")
            def twice(self, a: int) -> int:
                """Once."""
                return a

            @syscall(effect="none")  # type: ignore[no-redef]
            def twice(self, a: int) -> int:  # noqa: F811
                """Again."""
                return a


def test_a_queried_syscall_needs_its_companion() -> None:
    with pytest.raises(ManifestError, match="nobody can be asked"):

        class Lonely(App):
            @syscall(effect="send", retry="query")
            def send(self, text: str) -> str:
                """Sends."""
                return text

    with pytest.raises(ManifestError, match="no use for a companion"):

        class Needless(App):
            @syscall(effect="send", retry="never")
            def send(self, text: str) -> str:
                """Sends."""
                return text

            @query(send)
            def sent(self, key: str) -> str | None:
                """Nobody asks."""

    class Mail(App):
        @syscall(effect="send", retry="query")
        def send(self, to: Annotated[str, Target], text: Annotated[str, Payload], call: Call) -> str:
            """Sends."""
            return text

        @query(send)
        def sent(self, key: str) -> str | None:
            """Says."""

    assert [one.query for _, one in syscalls_of(Mail)] == ["sent"]


def test_pure_means_pure() -> None:
    with pytest.raises(ManifestError, match="pure"):

        class Dirty(App, pure=True):
            @syscall(effect="write")
            def save(self, a: int) -> int:
                """Saves."""
                return a

    with pytest.raises(ManifestError, match="pure"):

        class Confused(App, pure=True, stateful=True):
            pass


def test_names_that_are_none() -> None:
    with pytest.raises(ManifestError, match="no name"):

        class Bad(App, name="Übel app"):
            pass


def test_inherited_syscalls_count() -> None:
    class Base(App):
        @syscall(effect="none")
        def one(self, a: int) -> int:
            """One."""
            return a

    class Derived(Base):
        @syscall(effect="none")
        def two(self, a: int) -> int:
            """Two."""
            return a

    assert [name for name, _ in syscalls_of(Derived)] == ["one", "two"]


def test_writing_an_app_imports_nothing_heavy() -> None:
    code = "import sys, llmos.abi.app; print([m for m in ('jax', 'numpy', 'pydantic', 'mcp') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
