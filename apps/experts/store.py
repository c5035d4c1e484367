"""A store: where packs are published and found.

What: one interface, and a folder with an index that has it. Stores behind git or HTTP can have it later.
Invariant: nothing that a store says is believed: a file's name is made from the expert's, its sha256 is compared, and
    the pack is judged as one from anywhere. A version is published once; a name belongs to whoever signed it first.
Interface: `open_store(place) -> Store`: `entries`, `search`, `fetch`, `publish`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llmos.apps.experts.bounds import grants_of
from llmos.apps.experts.errors import BadSignature, PackError
from llmos.apps.experts.manifest import NAME, VERSION
from llmos.apps.experts.unpacking import MAX_PACK_BYTES, SUFFIX, Pack
from llmos.drivers.whole import write_whole

INDEX = "index.json"
MAX_INDEX_BYTES = 64 << 20


class Entry(BaseModel):
    """A published version of an expert, as the index lists it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    expert: str = Field(pattern=NAME)
    version: str = Field(pattern=VERSION)
    description: str = Field(max_length=500)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0, le=MAX_PACK_BYTES)
    signer: str = Field(max_length=100)
    grants: tuple[str, ...] = Field(default=(), max_length=1000)
    tests: int = Field(default=0, ge=0)
    passed: int = Field(default=0, ge=0)  # as its publisher says
    model: str = ""  # that they were asked of

    @property
    def order(self) -> tuple[int, ...]:
        """Versions in their order."""
        return order(self.version)


def order(version: str) -> tuple[int, ...]:
    """`1.10.0` as what it counts by."""
    return tuple(map(int, version.split(".")))


class Store(Protocol):
    """Where packs are published."""

    place: str

    def entries(self) -> Sequence[Entry]:
        """Every version of every expert. PackError: the index is damaged."""
        ...

    def fetch(self, entry: Entry) -> bytes:
        """The bytes of a pack, which are what the index says. PackError."""
        ...

    def publish(self, pack: Pack, *, tests: int, passed: int, model: str) -> Entry:
        """Add a version. PackError: it is there; BadSignature: the name is somebody else's."""
        ...


def open_store(place: str) -> Store:
    """The store at a place: a folder. PackError: it is of a kind that is not known."""
    if re.match(r"^(git\+|https?:|ssh:|git@)", place):
        raise PackError(
            f"{place} is no store that can be read",
            why="stores are folders in this version",
            do="name a folder",
        )
    return FolderStore(Path(place.removeprefix("file://")).expanduser())


def search(store: Store, words: str = "") -> list[Entry]:
    """The newest version of each expert that has all these words in its name or description."""
    newest: dict[str, Entry] = {}
    for entry in store.entries():
        if entry.expert not in newest or newest[entry.expert].order < entry.order:
            newest[entry.expert] = entry
    wanted = words.casefold().split()
    found = [e for e in newest.values() if all(w in f"{e.expert} {e.description}".casefold() for w in wanted)]
    return sorted(found, key=lambda e: e.expert)


def newest(store: Store, name: str) -> Entry:
    """The newest version of `name`, or the one that `name@version` names. PackError: there is none."""
    expert, _, version = name.partition("@")
    found = [e for e in store.entries() if e.expert == expert and version in ("", e.version)]
    if not found:
        known = ", ".join(dict.fromkeys(e.expert for e in search(store))) or "nothing"
        raise PackError(
            f"the store has no {name}", why=f"{store.place} has {known[:200]}", do="llmos expert search"
        )
    return max(found, key=lambda e: e.order)


class FolderStore:
    """A folder with `index.json`, and the packs in `packs/`."""

    def __init__(self, folder: Path) -> None:
        self.place, self._folder = str(folder.absolute()), folder

    def entries(self) -> Sequence[Entry]:
        """See `Store`."""
        file = self._folder / INDEX
        try:
            with file.open("rb") as opened:
                data = opened.read(MAX_INDEX_BYTES + 1)
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise PackError(
                f"the store at {self.place} cannot be read", why=error.strerror or str(error)
            ) from None
        try:
            if len(data) > MAX_INDEX_BYTES:
                raise ValueError(f"it has more than {MAX_INDEX_BYTES >> 20} MiB")
            return tuple(Entry.model_validate(one) for one in json.loads(data)["experts"])
        except (ValueError, KeyError, TypeError, ValidationError, RecursionError) as error:
            why = str(error).splitlines()[0]
            raise PackError(
                f"the index of the store at {self.place} is damaged", why=why, do="tell who keeps it"
            ) from None

    def fetch(self, entry: Entry) -> bytes:
        """See `Store`."""
        try:
            with self._file(entry).open("rb") as file:
                data = file.read(entry.bytes + 1)
        except OSError as error:
            raise PackError(
                f"{entry.expert} {entry.version} cannot be fetched", why=f"{error.strerror}: {error.filename}"
            ) from None
        if len(data) != entry.bytes or hashlib.sha256(data).hexdigest() != entry.sha256:
            raise PackError(
                f"{entry.expert} {entry.version} is not what the store's index says", why="its sha256 differs",
                do="tell who keeps the store",
            )  # fmt: skip
        return data

    def publish(self, pack: Pack, *, tests: int, passed: int, model: str) -> Entry:
        """See `Store`."""
        m = pack.manifest
        entry = Entry(
            expert=m.expert, version=m.version, description=m.description, sha256=pack.digest, bytes=len(pack.data),
            signer=pack.signer, grants=grants_of(m.grants), tests=tests, passed=passed, model=model,
        )  # fmt: skip
        with self._locked():
            known = self.entries()
            for other in known:
                if other.expert == entry.expert and other.signer != entry.signer:
                    raise BadSignature(
                        f"{entry.expert} is somebody else's name in this store", why="another key signed it first",
                        do="rename your expert, or sign it with that key",
                    )  # fmt: skip
                if (other.expert, other.version) == (entry.expert, entry.version):
                    raise PackError(
                        f"{entry.expert} {entry.version} is published already",
                        do="raise `version:` in its file",
                    )
            write_whole(self._file(entry), pack.data)
            listed: list[dict[str, Any]] = [one.model_dump(mode="json") for one in (*known, entry)]
            write_whole(self._folder / INDEX, json.dumps({"format": 1, "experts": listed}, indent=1).encode())
        return entry

    def _file(self, entry: Entry) -> Path:
        return self._folder / "packs" / f"{entry.expert}-{entry.version}{SUFFIX}"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One publisher at a time."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = (self._folder / ".lock").open("w")
        except OSError as error:
            raise PackError(
                f"nothing can be published at {self.place}",
                why=error.strerror or str(error),
                do="name a folder of yours",
            ) from None
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
