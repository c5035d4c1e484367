"""How experts travel: `llmos expert rm|key|pack|publish|search|install|upgrade|verify`.

What: a function for each action.
Invariant: nothing is published whose tests do not pass; nothing is installed that nobody agreed to.
Interface: the functions, each from arguments to an exit code.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from llmos.apps.experts import agreeing, installing
from llmos.apps.experts import store as stores
from llmos.apps.experts.errors import ConsentMissing, ExpertError, PackError
from llmos.apps.experts.grants import Consent, syscalls
from llmos.apps.experts.packing import pack as packed
from llmos.apps.experts.shelf import Shelf
from llmos.apps.experts.signing import Key, short
from llmos.apps.experts.unpacking import MAX_PACK_BYTES, SUFFIX, Pack
from llmos.cli.expert_actions import shelf, tested, tested_before
from llmos.drivers.terminal import neutralise, table, width
from llmos.drivers.whole import write_whole


def rm(arguments: argparse.Namespace) -> int:
    """Take installed experts away."""
    for name in arguments.names:
        gone = installing.remove(shelf(arguments), name)
        print(f"{gone.name} {gone.version}: removed")
    return 0


def key(arguments: argparse.Namespace) -> int:
    """Make the author's key, or show its public half."""
    file = _key_file(shelf(arguments))
    made = Key.load(file) if file.exists() else Key.make(file)
    print(made.public)
    print(
        f"known as {short(made.public)}; kept in {file}: back it up, and show it to nobody", file=sys.stderr
    )
    return 0


def pack(arguments: argparse.Namespace) -> int:
    """Put an expert into one file."""
    here = shelf(arguments)
    expert = here.find(arguments.name)
    signer = None if arguments.unsigned else Key.load(_key_file(here))
    data = packed(expert, signer)
    made = Pack.read(data)
    file = Path(arguments.output or f"{expert.name}-{expert.manifest.version}{SUFFIX}")
    write_whole(file, data)
    print(f"{file}: {len(data):,} bytes, {len(made.table['files'])} files, signed by {short(made.signer)}")
    return 0


def publish(arguments: argparse.Namespace) -> int:
    """Test, pack and put into a store."""
    here = shelf(arguments)
    expert = here.find(arguments.name)
    signer = None if arguments.unsigned else Key.load(_key_file(here))
    made = Pack.read(packed(expert, signer))
    model = arguments.model or expert.manifest.base or here.config.kernel.model
    report = tested_before(here, expert, model) or tested(arguments).dump()
    if report["score"] < arguments.least:
        raise ExpertError(
            f"{expert.name} is not published",
            why=f"{report['passed']} of {report['tests']} of its tests pass with {model}",
            do=f"mend it (`llmos expert test {arguments.name}` tells what fails), or say which share will do: --least",
        )  # fmt: skip
    store = _store(arguments, here)
    entry = store.publish(made, tests=report["tests"], passed=report["passed"], model=model)
    print(
        f"{entry.expert} {entry.version} is published in {store.place}: {entry.passed} of {entry.tests} tests pass"
    )
    return 0


def search(arguments: argparse.Namespace) -> int:
    """What a store has."""
    here = shelf(arguments)
    found = stores.search(_store(arguments, here), " ".join(arguments.words))
    if arguments.json:
        print(json.dumps({"experts": [entry.model_dump(mode="json") for entry in found]}))
        return 0
    rows = [("name", "version", "tests", "signed by", "about")]
    rows += [(e.expert, e.version, f"{e.passed}/{e.tests}", short(e.signer), e.description) for e in found]
    print("\n".join(table(rows, width())))
    return 0


def install(arguments: argparse.Namespace) -> int:
    """Make a pack an expert of this machine."""
    here = shelf(arguments)
    file, place = Path(arguments.source), ""
    if file.is_file() or "/" in arguments.source or arguments.source.endswith(SUFFIX):
        data = _file(file)
    else:
        store = _store(arguments, here)
        data, place = store.fetch(stores.newest(store, arguments.source)), store.place
    made = Pack.read(data)
    entry = installing.install(
        here, made, syscalls(here.config), _consent(arguments), store=place, unsigned=arguments.unsigned
    )
    print(
        f"{entry.name} {entry.version} is installed, signed by {short(entry.signer)}: llmos expert run {entry.name}"
    )
    return 0


def upgrade(arguments: argparse.Namespace) -> int:
    """Install newer versions from where experts came."""
    here = shelf(arguments)
    known = here.installed()
    for name in arguments.names or sorted(known):
        if name not in known:
            raise ExpertError(f"{name} is not installed", why=f"installed are {', '.join(known) or 'none'}")
        place = arguments.store or known[name].store
        if not place:
            print(f"{name}: came from a file; name a store: --store")
            continue
        store = stores.open_store(place)
        newest = stores.newest(store, name)
        if newest.order <= stores.order(known[name].version):
            print(f"{name}: {known[name].version} is the newest")
            continue
        made = Pack.read(store.fetch(newest))
        entry = installing.install(
            here, made, syscalls(here.config), _consent(arguments), store=store.place,
            unsigned=not known[name].signer,
        )  # fmt: skip
        print(f"{name}: {known[name].version} → {entry.version}")
    return 0


def verify(arguments: argparse.Namespace) -> int:
    """Check a pack, or an installed expert."""
    here = shelf(arguments)
    file = Path(arguments.source)
    if arguments.source in here.installed() and not file.is_file():
        signer, what = installing.check(here, arguments.source), here.installed()[arguments.source].version
    else:
        made = Pack.read(_file(file))
        made.check()
        signer, what = made.signer, f"{made.manifest.expert} {made.manifest.version}"
    if arguments.json:
        print(
            json.dumps(
                {"source": arguments.source, "sound": True, "signer": signer, "known_as": short(signer)}
            )
        )
    else:
        print(f"{neutralise(arguments.source)}: {what} is sound, signed by {short(signer)}")
    return 0


def _consent(arguments: argparse.Namespace) -> Consent:
    if arguments.yes:
        return agreeing.always(sys.stderr)
    asking = agreeing.at_terminal()

    def nobody(expert: object, missing: object, agreed: object) -> bool:
        raise ConsentMissing(
            "nobody is there to ask", why="there is no terminal", do="look at it, then: --yes"
        )

    return asking or nobody


def _store(arguments: argparse.Namespace, here: Shelf) -> stores.Store:
    return stores.open_store(arguments.store or str(here.state / "store"))


def _key_file(here: Shelf) -> Path:
    return here.state / "key.pem"


def _file(file: Path) -> bytes:
    try:
        if file.stat().st_size > MAX_PACK_BYTES:
            raise PackError(f"{file} is too large for a pack")
        return file.read_bytes()
    except OSError as error:
        raise PackError(
            f"{file} cannot be read", why=error.strerror or str(error), do="check the path"
        ) from None
