"""docs/experts.md: its file is an expert, its program runs, its table of expectations is whole."""

from __future__ import annotations

import re
from pathlib import Path

from llmos.apps.experts.manifest import Expect, Manifest
from llmos.cli.expert import ACTIONS
from llmos.drivers.yamlfile import parse

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "experts.md").read_text()
PIECES = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


def test_the_file_is_an_expert() -> None:
    (text,) = [code for language, code in PIECES if language == "yaml"]
    said = set(parse(text, Manifest).model_fields_set)
    assert said == set(Manifest.model_fields) - {"adapter"}, "every key is shown"


def test_every_action_and_expectation_is_named() -> None:
    for name, _ in ACTIONS:
        assert f"`{name}`" in TEXT or f"expert {name}" in TEXT, name
    for name, field in Expect.model_fields.items():
        assert f"`{field.alias or name}`" in TEXT, name


def test_the_program_runs(fresh_machine: Path) -> None:
    """With the kernel of a script in the place of the model: what is shown is how it is called."""
    (code,) = [code for language, code in PIECES if language == "python"]
    names = {line.split()[-1] for line in code.splitlines() if line.startswith("from ")}
    assert names == {"prepare", "Shelf", "load_config"}
    before, _, _ = code.partition("with connect")
    scope: dict[str, object] = {}
    exec(before, scope)  # noqa: S102  our own page
    from llmos.abi.specialist import Specialist

    librarian = scope["librarian"]
    assert isinstance(librarian, Specialist) and librarian.name == "librarian"
    assert librarian.asked(max_tokens=60)["max_tokens"] == 60


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\((\.\./[^)]+)\)", TEXT):
        assert (ROOT / "docs" / link).exists(), link
