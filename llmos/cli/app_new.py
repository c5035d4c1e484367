"""The files of a new app: a package that installs, works and has a test.

What: `make(name, folder)` writes them from the templates below.
Invariant: nothing that is there is overwritten; a name that no app may have, or that Python could not import, is
    refused before anything is written.
Interface: `make(name, folder) -> folder`. Errors: ManifestError, ConfigError.
"""

from __future__ import annotations

import keyword
import re
import sys
from pathlib import Path

from llmos.abi.app import check_app_name
from llmos.abi.errors import ConfigError, ManifestError

_APP = '''\
"""{title}: what this app is for, in a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from pydantic import Field

from llmos import App, Call, Target, syscall
from llmos.abi.errors import AppError

MAX_ITEMS = 1000


class {class_name}Error(AppError):
    """What this app does not do, and why: the model reads it."""


class {class_name}(App, name="{name}"):
    """A list that grows: replace it by what your app is for."""

    @syscall(effect="read", retry="safe")
    def items(self, call: Call) -> list[str]:
        """All items of the list."""
        return _read(call)

    @syscall(effect="write", retry="keyed", returns="user")
    def add(
        self, item: Annotated[str, Field(min_length=1, max_length=200), Target, "what to add"], call: Call
    ) -> str:
        """Add an item to the list."""
        items = _read(call)
        if len(items) >= MAX_ITEMS:
            raise {class_name}Error(f"the list has {{MAX_ITEMS}} items already", do="begin another one")
        if item not in items:  # a call may come twice after a crash: it counts once
            _file(call).write_text(json.dumps([*items, item]), encoding="utf-8")
        return f"{{item}} is on the list"


def _file(call: Call) -> Path:
    """Where the list lies: in the working volume of the process that calls."""
    if call.volume is None:
        raise {class_name}Error("there is no working volume", do="call it from a kernel")
    return call.volume / "{name}.json"


def _read(call: Call) -> list[str]:
    file = _file(call)
    return list(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else []
'''

_TEST = '''\
"""The app under a kernel whose model says what the test tells it, and the checks that every app has to pass."""

from llmos.abi.events import Result
from llmos.testing import call, conformance, scripted_kernel

__all__ = ["scripted_kernel"]
APP = "{package}:{class_name}"


def test_an_item_is_added(scripted_kernel):
    def script(window: str) -> str:  # from what the model reads to what it says
        return "Done." if "is on the list" in window else call("{name}.add", item="milk")

    process = scripted_kernel(script, apps={{"{name}": {{"app": APP}}}}).spawn(grants=["{name}"])
    turn = process.ask("Put milk on the list.", max_tokens=300)
    assert [(event.ok, event.text) for event in turn if isinstance(event, Result)] == [(True, "milk is on the list")]


test_it_conforms = conformance(APP, examples={{"{name}.add": {{"item": "milk"}}}})
'''

_PROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "{name}"
version = "0.1.0"
description = "An app for llmos."
requires-python = ">=3.11"
dependencies = ["llmos"]

[project.entry-points."llmos.apps"]
{name} = "{package}:{class_name}"

[tool.setuptools]
packages = ["{package}"]

[tool.pytest.ini_options]
testpaths = ["tests"]
pythonpath = ["."]
"""

_README = """\
# {name}

An app for llmos: what its methods do, a model can call.

```sh
pip install -e .                # the app is installed; `llmos app list` shows it
llmos app info {name}           # what a model is told of it
llmos app test {name}           # the conformance suite
python -m pytest                # its own tests, and the suite
llmos ask "Put milk on the list." --grant {name}
```

Declare truly what a call does (`effect`), which argument decides whom or what it reaches (`Target`), and how far its
results may be believed (`returns`): the monitor protects your users by that alone.
"""


def make(name: str, folder: Path) -> Path:
    """Write the package of a new app into a folder that is not there yet.

    Raises:
        ManifestError: a name that no app may have.
        ConfigError: there is something at that place already.
    """
    check_app_name(name)
    package = f"{name.replace('-', '_')}_app"
    if (
        not re.fullmatch(r"[a-z][a-z0-9_]*", package)
        or keyword.iskeyword(name)
        or name in sys.stdlib_module_names
    ):
        raise ManifestError(
            f"{name!r} is no name for an app", why="Python uses it for something else", do="choose another"
        )
    if folder.exists() or folder.is_symlink():
        raise ConfigError(
            f"{folder} is there already",
            why="nothing is overwritten",
            do="choose another name, or --into FOLDER",
        )
    words = {
        "name": name, "package": package, "title": name.replace("_", " ").replace("-", " ").capitalize(),
        "class_name": "".join(word.capitalize() for word in re.split(r"[-_]", name) if word),
    }  # fmt: skip
    files = {
        f"{package}/__init__.py": _APP, f"tests/test_{name.replace('-', '_')}.py": _TEST, "pyproject.toml": _PROJECT,
        "README.md": _README,
    }  # fmt: skip
    for path, template in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(template.format(**words), encoding="utf-8")
    return folder
