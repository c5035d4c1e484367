"""The commands of docs/learning.md are ones that there are, with options that there are."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from llmos.cli.parser import parser

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "learning.md").read_text("utf-8")
SAID = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


@pytest.mark.parametrize("line", [line for line in SAID if line.startswith("llmos ")])
def test_a_command_is_understood(line: str) -> None:
    given = parser().parse_args(shlex.split(line)[1:])
    assert callable(given.run)


def test_the_page_goes_through_every_action() -> None:
    for action in ("pretrain", "sft", "dpo", "eval", "scaling", "plan", "harvest", "scan", "night", "rl"):
        assert f"llmos learn {action}" in PAGE, action


def test_rows_of_data_are_json() -> None:
    blocks = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert blocks and all(json.loads(line) for block in blocks for line in block.splitlines())


def test_what_is_linked_is_there() -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", PAGE)
    assert links and not [link for link in links if not (ROOT / "docs" / link).exists()]
