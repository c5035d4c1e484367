"""docs/apps/studio.md and remote.md: their Python runs, the configuration is one, the tables are whole."""

import re
from pathlib import Path

import pytest
import yaml

from llmos.abi.config import Config
from llmos.abi.manifest import Manifest
from llmos.apps.multimodal.studio import Studio
from llmos.drivers.yamlfile import check
from llmos.kernel.remotes import Remotes

PAGES = Path(__file__).resolve().parents[2] / "docs" / "apps"


@pytest.mark.parametrize("page", ["studio", "remote"])
def test_the_code_runs(page: str) -> None:
    pieces = re.findall(r"```python\n(.*?)```", (PAGES / f"{page}.md").read_text(), re.DOTALL)
    assert len(pieces) == 2
    for piece in pieces:
        exec(compile(piece, f"{page}.md", "exec"), {})  # noqa: S102


def test_the_configuration_is_one() -> None:
    (said,) = re.findall(r"```yaml\n(.*?)```", (PAGES / "remote.md").read_text(), re.DOTALL)
    config = check(yaml.safe_load(said), Config).remotes["far"]
    assert (config.stall, config.seconds, config.retries) == (60.0, 600.0, 3)  # as the defaults are
    assert type(config)(url=config.url).model_dump(exclude={"model", "key"}) == config.model_dump(
        exclude={"model", "key"}
    )


@pytest.mark.parametrize(("page", "app"), [("studio", Studio), ("remote", Remotes)])
def test_every_syscall_is_in_the_table(page: str, app: type) -> None:
    rows = dict(
        re.findall(r"^\| `([a-z.]+)\([^`]*`\s*\| (\w+) \|", (PAGES / f"{page}.md").read_text(), re.MULTILINE)
    )
    assert rows == {s.name: s.effect for s in Manifest.of(app).syscalls}
