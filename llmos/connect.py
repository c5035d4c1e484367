"""From a configuration to a running kernel.

What: finds and reads `llmos.yaml`, lays overrides over it, attaches to the kernel that runs there or boots one.
Invariant: nothing heavy is imported before the configuration has been found good, nor where a kernel runs.
Interface: `connect(config, **overrides)` for programs; `load_config` and `find_config` for those who only
    want to look. Overrides are the keys of `llmos.yaml` without their section: `connect(window=4096)`.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # without the import of typing: this module is part of `import llmos`
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Literal, overload

    from llmos.abi.config import Config
    from llmos.abi.machine import Machine
    from llmos.abi.progress import Progress
    from llmos.kernel.kernel import Asker, Kernel
else:

    def overload(function: object) -> object:
        """That of `typing`, for which this module does not wait."""
        return function


FILE = "llmos.yaml"


@overload
def connect(
    config: Config | str | os.PathLike[str] | None = None,
    *,
    attach: Literal[False],
    progress: Progress | None = None,
    asker: Asker | None = None,
    trace: str | os.PathLike[str] | None = None,
    **overrides: object,
) -> Kernel: ...


@overload
def connect(  # noqa: F811  an overload
    config: Config | str | os.PathLike[str] | None = None,
    *,
    attach: bool = True,
    progress: Progress | None = None,
    asker: Asker | None = None,
    trace: str | os.PathLike[str] | None = None,
    **overrides: object,
) -> Machine: ...


def connect(  # noqa: F811  an overload
    config: Config | str | os.PathLike[str] | None = None,
    *,
    attach: bool = True,
    progress: Progress | None = None,
    asker: Asker | None = None,
    trace: str | os.PathLike[str] | None = None,
    **overrides: object,
) -> Machine:
    """The kernel that runs on this state folder (`llmos up`), else a private one that goes when it is closed. Use it
    as a context manager: processes that were spawned in it end with it, unless they were asked something `detached`.

    Args:
        config: a `Config`, the path of a configuration file, or None to look for one (see `find_config`).
        attach: False boots a private kernel in any case.
        progress: told about downloads and loading.
        asker: approves the values that the monitor asks about; without one they are refused.
        trace: write what happens into this file (see `kernel.trace`); of a private kernel.
        overrides: keys of the configuration by their own names, e.g. `model="smollm2-135m"`,
            `pool="512MiB"`; None means not given.

    Raises:
        ConfigError: the file or an override is wrong, or says what the running kernel is not.
        WeightsError: the model cannot be found, fetched or read.
        EngineError: the kernel cannot start on this machine.
    """
    settings = load_config(config, **overrides)
    if attach and trace is None:
        from llmos.attach import attach as attach_to

        running = attach_to(settings.machine.state, asker=asker, progress=progress)
        if running is not None:
            try:
                running.check(settings)
            except BaseException:
                running.close()
                raise
            return running
    from llmos.abi.progress import silent
    from llmos.kernel.boot import boot
    from llmos.kernel.trace import OFF, Recorder

    recorder = OFF if trace is None else Recorder(trace)
    try:
        return boot(settings, progress=progress or silent, asker=asker, trace=recorder)
    except BaseException:
        recorder.close()
        raise


def load_config(config: Config | str | os.PathLike[str] | None = None, **overrides: object) -> Config:
    """The configuration that `connect` would boot with, checked."""
    from llmos.abi.config import Config
    from llmos.drivers.yamlfile import read

    if config is None:
        config = find_config()
    if not isinstance(config, Config):
        config = Config() if config is None else read(config, Config)
    given = {key: value for key, value in overrides.items() if value is not None}
    return _overlay(config, given) if given else config


def find_config() -> Path | None:
    """`$LLMOS_CONFIG`, `./llmos.yaml`, `llmos/llmos.yaml` in the user's configuration folder, or None."""
    from pathlib import Path

    if named := os.environ.get("LLMOS_CONFIG"):
        return Path(named).expanduser()  # named but missing is an error, not a reason to look further
    home = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    return next((path for path in (Path(FILE), home / "llmos" / FILE) if path.is_file()), None)


def _overlay(config: Config, given: dict[str, object]) -> Config:
    import difflib

    from llmos.abi.config import Config
    from llmos.abi.errors import ConfigError
    from llmos.drivers.yamlfile import check

    values = config.model_dump(exclude_unset=True)  # what nobody said stays unsaid
    sections = {name: keys for name, keys in config.model_dump().items() if isinstance(keys, dict)}
    section_of = {key: section for section, keys in sections.items() for key in keys}
    for key, value in given.items():
        if key not in section_of:
            near = difflib.get_close_matches(key, section_of, n=1, cutoff=0.5)
            raise ConfigError(
                "unknown override",
                why=f"the keys are {', '.join(section_of)}",
                do=f"did you mean {near[0]!r}?" if near else "remove it",
                key=key,
            )
        values.setdefault(section_of[key], {})[key] = (
            os.fspath(value) if isinstance(value, os.PathLike) else value
        )
    return check(values, Config)
