"""What llmos.yaml says wrongly to an app is found before the app is used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmos.abi.config import AppConfig, Config
from llmos.abi.errors import ConfigError
from llmos.drivers.yamlfile import check
from llmos.kernel.apphost import fit
from llmos.kernel.apphost.fit import misfits
from llmos.kernel.boot import boot
from llmos.kernel.doctor import examine


def apps(**told: dict[str, Any]) -> dict[str, AppConfig]:
    return {name: AppConfig.model_validate(said) for name, said in told.items()}


def test_misfits_are_named_and_what_fits_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = apps(
        terminal={"seconds": 5.0},
        interpreter={"memory": "2 wheels"},
        files={"version": 3},
        calculator={"digits": 3},
    )
    found = [str(error) for error in misfits(told, tmp_path)]
    assert len(found) == 3
    assert any("apps.interpreter.memory" in one for one in found)
    assert any("apps.files.version: an unknown key" in one and "'versions'" in one for one in found)
    assert any("apps.calculator.digits" in one and "takes no settings" in one for one in found)

    seen: list[set[str]] = []
    looked = fit._checked
    monkeypatch.setattr(fit, "_checked", lambda apps: seen.append(set(apps)) or looked(apps))
    assert misfits(apps(terminal={"seconds": 5.0}), tmp_path) == [] and not seen
    assert len(misfits(apps(terminal={"seconds": -1.0}), tmp_path)) == 1 and seen == [{"terminal"}]


def test_nothing_is_looked_at_where_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "_checked", lambda apps: pytest.fail("a process was started"))
    assert misfits(apps(terminal={}, other={"mcp": "some-server"}), tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_an_app_that_cannot_be_loaded_is_no_misfit(tmp_path: Path) -> None:
    assert misfits(apps(gone={"app": "no.such.module:App", "size": 3}), tmp_path) == []


def test_a_machine_with_a_misfit_does_not_boot_and_the_doctor_says_so(tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    config = check({"machine": {"state": state}, "apps": {"terminal": {"secconds": 3}}}, Config)
    with pytest.raises(ConfigError, match=r"apps\.terminal\.secconds: an unknown key"):
        boot(config)
    lacking = [f for chapter, findings in examine(config) if chapter == "apps" for f in findings if not f.ok]
    assert any("secconds" in f.says and f.needed and "'seconds'" in f.do for f in lacking)


def test_what_was_kept_is_a_plain_file(tmp_path: Path) -> None:
    assert misfits(apps(terminal={"seconds": 5.0}), tmp_path) == []
    (kept,) = tmp_path.iterdir()
    assert list(json.loads(kept.read_text())) == ["terminal"]
    kept.write_text("{")
    assert misfits(apps(terminal={"seconds": 5.0}), tmp_path) == []
