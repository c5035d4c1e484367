"""docs/apps/eyes.md, ears.md and voice.md: every piece of Python in them is run, with the real models."""

import re
import runpy
import shutil
from pathlib import Path

import pytest

from llmos.drivers.media.errors import MediaError, model

PAGES = Path(__file__).resolve().parents[2] / "docs" / "apps"
NEEDS = {"eyes": (), "ears": ("kokoro-82m", "whisper-tiny.en"), "voice": ("kokoro-82m",)}


@pytest.mark.parametrize("page", NEEDS)
def test_the_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page != "eyes" and shutil.which("espeak-ng") is None:
        pytest.skip("there is no espeak-ng: apt-get install it")
    for name in NEEDS[page]:
        try:
            model(name)
        except MediaError as error:
            pytest.skip(str(error))
    pieces = re.findall(
        r"^```python\n(.*?)^```$", (PAGES / f"{page}.md").read_text(), re.DOTALL | re.MULTILINE
    )
    assert pieces
    program = tmp_path / "program.py"
    program.write_text("".join(pieces))
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(program))
