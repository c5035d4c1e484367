"""What the kernel needs to run on this machine, and how it stands: the model and its memory, journal, secrets, apps.

What: findings over a configuration; `drivers.doctor` looks below it.
Invariant: imports no jax, changes nothing, fetches nothing, and hashes whole files only when it is asked to.
Interface: `examine(config, deep=, progress=) -> list[(chapter, findings)]`.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from llmos.abi.config import Config
from llmos.abi.errors import CorruptWeights, LLMOSError, ModelNotFound
from llmos.abi.limits import PAGE_TOKENS
from llmos.abi.progress import Progress, silent
from llmos.drivers import doctor as machine
from llmos.drivers.doctor import Finding, size

if TYPE_CHECKING:
    from llmos.drivers.weights import WeightsFiles

RUNTIME = 350 << 20  # Python, JAX and its compiled programs, beside weights and pool
ROOM = 256 << 20  # that volumes and journal should have
Chapters = list[tuple[str, list[Finding]]]


def examine(config: Config, *, deep: bool = False, progress: Progress = silent) -> Chapters:
    """Every chapter and its findings.

    Args:
        deep: read whole files: models against their sha256, the journal from its beginning.
    """
    kernel, memory, state, cache = config.kernel, config.memory, config.machine.state, config.machine.cache
    files, model = _weights("model", kernel.model, cache, "the first question")
    _, encoder = _weights("encoder", memory.encoder, cache, "the first mount")
    room = 0 if files else 2 * _catalogued(kernel.model)  # what is fetched, and the parts that it comes in
    with ThreadPoolExecutor(2) as beside:  # these wait, for others
        network = beside.submit(machine.network, wanted=files is None)
        sandbox = beside.submit(machine.sandbox)
        return [
            ("machine", [_python(), _packages(), machine.processor(), machine.compiler(), machine.devices()]),
            ("models", [model, encoder, _memory(config, files), *_cached(cache, deep, progress)]),
            (
                "disk",
                [machine.disk("state", state, ROOM), machine.disk("cache", cache, room), _secrets(state)],
            ),
            ("kernel", _kernel(state / "kernel", deep)),
            ("network", network.result()),
            ("sandbox", sandbox.result()),
            ("apps", [*_extras(), *_apps(config)]),
        ]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    ok = sys.version_info >= (3, 11)
    return Finding("python", ok, f"{version}, {sys.executable}", "install Python 3.11 or newer", needed=True)


def _packages() -> Finding:
    """What llmos is made of, as its own metadata lists it."""
    try:
        wanted = [r for r in metadata.requires("llmos") or () if "extra ==" not in r]
    except metadata.PackageNotFoundError:
        return Finding("packages", False, "llmos is not installed, only found", "pip install -e .")
    missing = []
    for requirement in wanted:
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
    says = f"{', '.join(missing)} missing" if missing else f"all {len(wanted)} that it needs"
    return Finding("packages", not missing, says, f"pip install {shlex.join(missing)}", needed=True)


def _weights(part: str, name: str, cache: Path, fetcher: str) -> tuple[WeightsFiles | None, Finding]:
    """A model's files where they are here, and `fetcher` does not have to get them. Nothing is hashed."""
    from llmos.drivers.weights import cache as places
    from llmos.drivers.weights import find
    from llmos.drivers.weights.catalogue import catalogue

    if (entry := catalogue().get(name)) is None:
        try:
            files = find(name, fetch=False)
        except LLMOSError as error:
            return None, Finding(part, False, error.what, error.do, needed=True)
        return files, Finding(part, True, f"{files.path}, {size(files.size)}", needed=True)
    path = places.whereabouts(entry, cache, places.user_folders())
    if path is None:
        says = f"{name} is not here: {fetcher} fetches {size(entry.bytes)}"
        return None, Finding(part, False, says, f"llmos models pull {name}")
    return places.files(entry, path), Finding(part, True, f"{name}, {size(entry.bytes)}: {path}", needed=True)


def _catalogued(name: str) -> int:
    from llmos.drivers.weights.catalogue import catalogue

    entry = catalogue().get(name)
    return 0 if entry is None else entry.bytes


def _memory(config: Config, files: WeightsFiles | None) -> Finding:
    """Whether weights, pool and the program fit, with what a window takes of the pool."""
    total, free, swap = machine.memory()
    kernel, window = config.kernel, config.kernel.window
    weights, a_window = _catalogued(kernel.model), ""
    if files is not None:
        try:
            weights, token = _weigh(files, kernel.numerics)
        except LLMOSError as error:
            return Finding("memory", False, error.what, error.do, needed=True)
        held = kernel.pool // (token * PAGE_TOKENS) * PAGE_TOKENS
        a_window = f", a window of {window:,} tokens {size(window * token)} of it"
        if held <= window:
            says = (
                f"the pool of {size(kernel.pool)} holds {held:,} tokens, less than one window of {window:,}"
            )
            return Finding("memory", False, says, "raise `kernel.pool` or lower `kernel.window`", needed=True)
    whole = weights + kernel.pool + RUNTIME
    says = (
        f"{size(whole)} at most: weights {size(weights)}, pool {size(kernel.pool)}{a_window}, "
        f"program {size(RUNTIME)}; the machine has {size(total)}, {size(free)} free, swap {size(swap)}"
    )
    if whole > total:
        return Finding("memory", False, says, "lower `kernel.pool`, or choose a smaller model", needed=True)
    if whole > free:
        return Finding("memory", False, says, "end other programs, or lower `kernel.pool`")
    return Finding("memory", True, says, needed=True)


def _weigh(files: WeightsFiles, numerics: str) -> tuple[int, int]:
    """Bytes of the weights as they will be held, and of one token's keys and values: read from headers."""
    from llmos.drivers.weights import open_weights
    from llmos.kernel.model.config import ModelConfig

    weights = open_weights(files)
    model = ModelConfig.from_metadata(weights.source, weights.metadata, weights.tensors)
    elements = sum(prod(tensor.shape) for tensor in weights.tensors.values())
    held = {"native": files.size, "bf16": 2 * elements, "f32": 4 * elements}[numerics]
    token = model.layers * model.kv_heads * 2 * model.head_dim * (4 if numerics == "f32" else 2)
    return held, token


def _cached(cache: Path, deep: bool, progress: Progress) -> list[Finding]:
    from llmos.drivers.weights.fetch import statuses, verify

    found = []
    for status in statuses(cache=cache):
        name = status.entry.name
        if status.staged:
            found.append(Finding(name, False, "its download broke off", f"llmos models pull {name}"))
        if status.path is None:
            continue
        sound, says = (
            True,
            "verified when it came" if status.verified else "not verified yet; its first use does",
        )
        if deep:
            try:
                sound = verify(name, progress=progress, cache=cache).sound
                says = "its sha256 is right" if sound else "DAMAGED: its sha256 is wrong"
            except (CorruptWeights, ModelNotFound) as error:
                sound, says = False, error.what
        do = f"llmos models rm {name}, then llmos models pull {name}"
        found.append(Finding(name, sound, says, do))
    return found


def _secrets(state: Path) -> Finding:
    """Files that others may read are refused when an app asks for them."""
    folder = state / "secrets"
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    shown = [file for file in files if file.stat().st_mode & 0o077]
    if shown:
        says = f"{', '.join(f.name for f in shown)} can be read by others"
        return Finding("secrets", False, says, f"chmod 600 {shlex.join(map(str, shown))}")
    return Finding("secrets", True, f"{len(files)}, yours alone" if files else "none")


def _kernel(folder: Path, deep: bool) -> list[Finding]:
    """Whether one runs here, and how its journal stands."""
    pid = _owner(folder) if folder.is_dir() else None
    says = "none runs; `llmos up` starts one, else each command has its own"
    running = Finding("kernel", True, says if pid is None else f"runs as process {pid}")
    return [running, _journal(folder, deep) if folder.is_dir() else Finding("journal", True, "none yet")]


def _owner(folder: Path) -> int | None:
    """Who holds the journal's lock, by the system's list: trying the lock could stand in a kernel's way."""
    from llmos.kernel.journal.owner import FILE

    try:
        inode = (folder / FILE).stat().st_ino
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if len(fields) > 5 and fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(inode):
                return int((folder / FILE).read_text().strip() or fields[4])
    except (OSError, ValueError):
        pass
    return None


def _journal(folder: Path, deep: bool) -> Finding:
    """The chain of its records: from the newest snapshot on, or all of it."""
    from llmos.kernel.journal.recovery import DATABASE, examine
    from llmos.kernel.journal.store import Store

    if not (folder / DATABASE).exists():
        return Finding("journal", True, "none yet")
    try:
        with contextlib.closing(Store(folder / DATABASE, write=False)) as store:
            found, last = examine(store, None, whole=deep), store.last().seq
        loss = found.loss()
    except LLMOSError as error:
        return Finding("journal", False, error.what, error.do or "the next boot sets what is damaged aside")
    if loss is not None:
        return Finding(
            "journal", False, f"damaged: {loss.why}", "the next boot keeps the good part, sets the rest aside"
        )
    whole = "its whole chain" if deep else "its chain from the newest snapshot on"
    return Finding("journal", True, f"{last:,} records; {whole} is sound")


def _extras() -> list[Finding]:
    """Packages that only some uses need."""
    uses = {
        "mcp": "apps outside of the kernel",
        "openai": "the tests of `llmos serve`",
        "playwright": "the browser",
    }
    missing = set(machine.modules(list(uses)))
    return [
        Finding(
            name,
            name not in missing,
            use if name not in missing else f"not installed; for {use}",
            f"pip install {name}",
        )
        for name, use in uses.items()
    ]


def _apps(config: Config) -> list[Finding]:
    """What the apps are told, the programs of foreign ones, and a browser where one is configured."""
    from llmos.kernel.apphost.fit import misfits

    found = [
        Finding("settings", False, error.what, error.do, needed=True) for error in misfits(config.apps, None)
    ]
    for name, app in config.apps.items():
        if app is not None and app.mcp:
            program = shlex.split(app.mcp)[0]
            there = shutil.which(program)
            says = there or f"its program {program} is not installed"
            found.append(
                Finding(
                    name, there is not None, says, f"install {program}, or take `{name}` out of llmos.yaml"
                )
            )
    if "browser" in config.apps:
        folders = Path("~/.cache/ms-playwright").expanduser().glob("chromium*")
        there = next(map(str, folders), None) or shutil.which("chromium") or shutil.which("google-chrome")
        found.append(
            Finding(
                "chromium", bool(there), there or "not installed", "playwright install --with-deps chromium"
            )
        )
    return found
