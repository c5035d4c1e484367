"""Stores and installing: whole or not at all, from whom it says, with what somebody agreed to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from llmos.abi.errors import ConfigError
from llmos.apps.experts import installing
from llmos.apps.experts.errors import BadSignature, ConsentMissing, ExpertError, PackError
from llmos.apps.experts.grants import Consents, granted
from llmos.apps.experts.packing import pack
from llmos.apps.experts.shelf import Shelf
from llmos.apps.experts.signing import Key
from llmos.apps.experts.store import Entry, FolderStore, newest, open_store, search
from llmos.apps.experts.unpacking import Pack
from tests.apps.experts.apps import machine
from tests.apps.experts.test_consent import Person
from tests.apps.experts.test_packing import EXPERT, FILE, forge

Write = Callable[..., Path]
Made = Callable[..., Pack]


@pytest.fixture
def key(tmp_path: Path) -> Key:
    return Key.make(tmp_path / "key.pem")


@pytest.fixture
def made(shelf: Shelf, write: Write, key: Key) -> Made:
    """A pack of an expert with these lines in its file."""

    def make(version: str = "1.0.0", text: str = "", *, by: Key | None = key, name: str = "clerk") -> Pack:
        head = f"expert: {name}\nversion: {version}\ndescription: The {name} of the office.\n"
        (write(name, head + text).parent / "a.md").write_text(f"Of {version}.")
        return Pack.read(pack(shelf.find(str(write(name, head + text))), by))

    return make


def everything(shelf: Shelf) -> list[str]:
    """What lies in the state folder, but for locks."""
    return sorted(p.relative_to(shelf.state).as_posix() for p in shelf.state.rglob("*") if p.name != ".lock")


KNOWING = "knowledge: [{path: a.md, trust: mine}]\n"


def test_installed_used_upgraded_removed(shelf: Shelf, made: Made, key: Key) -> None:
    person = Person()
    first = installing.install(shelf, made("1.0.0", KNOWING + "grants: {desk.read: }\n"), machine(), person)
    assert (first.version, first.signer, person.asked) == ("1.0.0", key.public, [["desk.read"]])
    expert = shelf.find("clerk")
    assert expert.origin == "installed" and Path(expert.knowledge[0].path).read_text() == "Of 1.0.0."
    assert expert.knowledge[0].trust == "shared", "a stranger's documents, whatever they say of themselves"
    assert granted(expert, machine(), Consents(shelf.state)) == ("desk.read",)
    installing.check(shelf, "clerk")

    installing.install(shelf, made("1.1.0", KNOWING + "grants: {desk.read: }\n"), machine(), person)
    assert len(person.asked) == 1, "nothing new is wanted"
    assert Path(shelf.find("clerk").knowledge[0].path).read_text() == "Of 1.1.0."
    assert granted(shelf.find("clerk"), machine(), Consents(shelf.state)) == ("desk.read",)

    wide = made("1.2.0", "grants: {desk.read: , desk.write: }\n")
    with pytest.raises(ConsentMissing):
        installing.install(shelf, wide, machine(), Person(says=False))
    assert shelf.find("clerk").manifest.version == "1.1.0", "the old one stays"
    installing.install(shelf, wide, machine(), person)
    assert person.asked[1:] == [["desk.write"]], "an upgrade that widens asks for what is new"
    assert len(list((shelf.state / "installed").iterdir())) == 1

    installing.remove(shelf, "clerk")
    with pytest.raises(ConfigError, match="no expert 'clerk'"):
        shelf.find("clerk")
    assert everything(shelf) == ["consents.json", "installed", "installed.json"]
    assert "clerk" not in (shelf.state / "consents.json").read_text()


def test_nobody_agreed_and_nothing_is_there(shelf: Shelf, made: Made) -> None:
    with pytest.raises(ConsentMissing):
        installing.install(shelf, made("1.0.0", "grants: {desk.write: }\n"), machine(), Person(says=False))
    assert everything(shelf) == ["installed"]


def test_a_pack_cannot_widen_what_was_agreed_to_by_itself(shelf: Shelf, made: Made) -> None:
    installing.install(shelf, made("1.0.0", "grants: {desk.read: {under: out}}\n"), machine(), Person())
    file = shelf.find("clerk").file
    file.write_text(file.read_text().replace("desk.read", "desk.*"))
    with pytest.raises(ConsentMissing):
        granted(shelf.find("clerk"), machine(), Consents(shelf.state))
    with pytest.raises(PackError, match="was changed"):
        installing.check(shelf, "clerk")


def test_signatures(shelf: Shelf, made: Made, tmp_path: Path) -> None:
    with pytest.raises(BadSignature, match="nobody has signed"):
        installing.install(shelf, made(by=None), machine(), Person())
    installing.install(shelf, made("1.0.0"), machine(), Person())
    thief = Key.make(tmp_path / "thief.pem")
    for by in (thief, None):
        with pytest.raises(BadSignature, match="not signed by its author"):
            installing.install(shelf, made("2.0.0", by=by), machine(), Person(), unsigned=True)
    assert shelf.find("clerk").manifest.version == "1.0.0"
    installing.install(shelf, made(by=None, name="other"), machine(), Person(), unsigned=True)
    assert shelf.installed()["other"].signer == ""


def test_older_versions_and_shipped_names(shelf: Shelf, made: Made, key: Key) -> None:
    installing.install(shelf, made("1.10.0"), machine(), Person())
    for version in ("1.10.0", "1.9.9", "0.1.0"):
        with pytest.raises(PackError, match="not newer"):
            installing.install(shelf, made(version), machine(), Person())
    with pytest.raises(PackError, match="llmos itself"):
        installing.install(shelf, made(name="librarian"), machine(), Person())


def test_what_this_machine_cannot_do(shelf: Shelf, made: Made) -> None:
    with pytest.raises(ConfigError, match="no syscall answers"):
        installing.install(shelf, made("1.0.0", "grants: {teleport.go: }\n"), machine(), Person())
    assert everything(shelf) == ["installed"]


def test_a_damaged_pack_leaves_nothing(shelf: Shelf, key: Key) -> None:
    files = {FILE: EXPERT, "knowledge/a.md": b"x", "knowledge/b.md": b"y"}
    table = json.loads(
        json.dumps({"files": {n: {"sha256": "0" * 64, "bytes": len(d)} for n, d in files.items()}})
    )
    import hashlib

    table["files"][FILE]["sha256"] = hashlib.sha256(EXPERT).hexdigest()
    with pytest.raises(PackError, match="sha256 differs"):
        installing.install(shelf, Pack.read(forge(files, key, table=table)), machine(), Person())
    assert everything(shelf) == ["installed"]


def test_leavings_of_a_crash_are_in_nobodys_way(shelf: Shelf, made: Made) -> None:
    pack_ = made("1.0.0")
    home = shelf.state / "installed"
    (home / ".new-abc").mkdir(parents=True)
    (home / f"clerk-1.0.0-{pack_.digest[:12]}").mkdir()
    installing.install(shelf, pack_, machine(), Person())
    installing.check(shelf, "clerk")
    assert not (home / ".new-abc").exists()


def test_two_installations_at_once(shelf: Shelf, made: Made) -> None:
    packs = [made("1.0.0", name=f"e{n}") for n in range(6)]
    threads = [
        threading.Thread(target=installing.install, args=(shelf, one, machine(), Person())) for one in packs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(shelf.installed()) == {f"e{n}" for n in range(6)}
    assert all(installing.check(shelf, f"e{n}") for n in range(6))


def test_a_damaged_list_of_installed_experts(shelf: Shelf, made: Made) -> None:
    installing.install(shelf, made(), machine(), Person())
    (shelf.state / "installed.json").write_text("{")
    with pytest.raises(PackError, match=r"installed\.json"):
        shelf.find("clerk")
    with pytest.raises(ExpertError):
        installing.remove(shelf, "clerk")


def test_an_installed_expert_that_was_made_to_lead_out(shelf: Shelf, made: Made) -> None:
    installing.install(shelf, made("1.0.0", KNOWING), machine(), Person())
    folder = shelf.find("clerk").folder
    file = folder / FILE
    whole = file.read_text()
    file.write_text(whole.replace("knowledge/a.md", "../../../../etc"))
    with pytest.raises(ConfigError, match="leads out of the pack"):
        shelf.find("clerk")
    file.write_text(whole)
    (folder / "knowledge/a.md").unlink()
    (folder / "knowledge/a.md").symlink_to("/etc/passwd")
    with pytest.raises(ConfigError, match="leads out of the pack"):
        shelf.find("clerk")


# -- the store ---------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def publish(store: FolderStore, *packs: Pack) -> list[Entry]:
    return [store.publish(one, tests=3, passed=2, model="m") for one in packs]


def test_published_searched_fetched(store: FolderStore, made: Made, key: Key) -> None:
    assert search(store) == [] and store.entries() == ()
    publish(store, made("1.0.0"), made("1.10.0", "grants: {desk.read: }\n"), made("1.9.0"), made(name="cook"))
    assert [(e.expert, e.version) for e in search(store)] == [("clerk", "1.10.0"), ("cook", "1.0.0")]
    assert [e.expert for e in search(store, "OFFICE cook")] == ["cook"] and search(store, "zebra") == []
    found = newest(store, "clerk")
    assert (found.grants, found.tests, found.passed, found.signer) == (("desk.read",), 3, 2, key.public)
    assert Pack.read(store.fetch(found)).manifest.version == "1.10.0"
    assert newest(store, "clerk@1.0.0").version == "1.0.0"
    with pytest.raises(PackError, match="has no tailor"):
        newest(store, "tailor")
    assert open_store(store.place).entries() == store.entries()


def test_a_version_is_published_once_and_a_name_has_one_owner(
    store: FolderStore, made: Made, tmp_path: Path
) -> None:
    publish(store, made("1.0.0"))
    with pytest.raises(PackError, match="published already"):
        publish(store, made("1.0.0", "starters: [other]\n"))
    with pytest.raises(BadSignature, match="somebody else's name"):
        publish(store, made("2.0.0", by=Key.make(tmp_path / "thief.pem")))
    with pytest.raises(BadSignature, match="somebody else's name"):
        publish(store, made("2.0.0", by=None))


def test_a_store_that_lies(store: FolderStore, made: Made, tmp_path: Path) -> None:
    publish(store, made("1.0.0"))
    (packed,) = Path(store.place).glob("packs/*")
    whole = packed.read_bytes()
    for wrong in (whole[:-1], whole + b"x", b"", bytes([whole[0] ^ 1]) + whole[1:]):
        packed.write_bytes(wrong)
        with pytest.raises(PackError, match="not what the store's index says"):
            store.fetch(newest(store, "clerk"))
    packed.unlink()
    with pytest.raises(PackError, match="cannot be fetched"):
        store.fetch(newest(store, "clerk"))
    index = Path(store.place) / "index.json"
    entry = json.loads(index.read_text())["experts"][0]
    for wrong_index in (
        "", "[]", "{}", '{"experts": 3}', "[" * 100_000, json.dumps({"experts": [{**entry, "expert": "../../etc"}]}),
        json.dumps({"experts": [{**entry, "version": "1.0.0/../.."}]}),
        json.dumps({"experts": [{**entry, "bytes": -1}]}),
    ):  # fmt: skip
        index.write_text(wrong_index)
        with pytest.raises(PackError, match="damaged"):
            store.entries()


def test_places_that_are_no_store(tmp_path: Path) -> None:
    for place in ("https://example.org/store", "git+ssh://x/y", "git@x:y"):
        with pytest.raises(PackError, match="folders"):
            open_store(place)
    (tmp_path / "file").write_text("x")
    with pytest.raises(PackError):
        open_store(str(tmp_path / "file")).entries()


def test_many_publish_at_once(store: FolderStore, made: Made) -> None:
    packs = [made("1.0.0", name=f"e{n}") for n in range(8)]
    threads = [threading.Thread(target=publish, args=(store, one)) for one in packs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {e.expert for e in store.entries()} == {f"e{n}" for n in range(8)}
