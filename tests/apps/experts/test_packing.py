"""Packs: the same bytes for the same expert, and what a hostile one gets: a typed error, and nothing written."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmos.apps.experts.errors import BadSignature, KnowledgeGone, PackError, UnsafePack
from llmos.apps.experts.expert import Expert
from llmos.apps.experts.packing import FILE, pack
from llmos.apps.experts.shelf import Shelf
from llmos.apps.experts.signing import Key, verify
from llmos.apps.experts.unpacking import SIGNATURE, TABLE, Pack, check_unpacked

Write = Callable[..., Path]


@pytest.fixture
def key(tmp_path: Path) -> Key:
    return Key.make(tmp_path / "key.pem")


@pytest.fixture
def expert(shelf: Shelf, write: Write) -> Expert:
    """One with documents, a file of a test, and a licence."""
    file = write(
        "clerk",
        "knowledge: [{path: handbook/, trust: mine}, {path: notes.md}]\n"
        "tests: [{ask: Sum., files: [data.csv], expect: {contains: '3'}}]\n",
    )
    folder = file.parent
    (folder / "handbook/deep").mkdir(parents=True)
    (folder / "handbook/leave.md").write_text("# Leave\n30 days.\n")
    (folder / "handbook/deep/pay.md").write_text("# Pay\nMonthly.\n")
    (folder / "handbook/.hidden").write_text("not packed")
    (folder / "notes.md").write_text("Notes.\n")
    (folder / "data.csv").write_text("a\n1\n2\n")
    (folder / "LICENSE").write_text("MIT")
    return shelf.find(str(file))


def members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_same_expert_gives_the_same_bytes(expert: Expert, key: Key) -> None:
    first = pack(expert, key)
    for file in expert.folder.rglob("*"):
        os.utime(file, (1, 1))
    assert pack(expert, key) == first
    assert set(members(first)) == {
        TABLE, SIGNATURE, FILE, "knowledge/handbook/leave.md", "knowledge/handbook/deep/pay.md", "knowledge/notes.md",
        "tests/data.csv", "licences/LICENSE",
    }  # fmt: skip


def test_a_pack_is_read_and_unpacked(expert: Expert, key: Key, tmp_path: Path) -> None:
    made = Pack.read(pack(expert, key))
    made.check()
    assert (made.manifest.expert, made.signer) == ("clerk", key.public)
    assert [k.path for k in made.manifest.knowledge] == ["knowledge/handbook", "knowledge/notes.md"]
    folder = tmp_path / "out"
    folder.mkdir()
    made.unpack(folder)
    assert (folder / "knowledge/handbook/deep/pay.md").read_text() == "# Pay\nMonthly.\n"
    assert check_unpacked(folder) == key.public
    assert all(stat.S_IMODE(f.stat().st_mode) & 0o111 == 0 for f in folder.rglob("*") if f.is_file()), (
        "nothing can run"
    )


@pytest.mark.parametrize("what", ["changed", "added", "removed", "linked"])
def test_what_was_changed_after_unpacking_is_noticed(
    expert: Expert, key: Key, tmp_path: Path, what: str
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    Pack.read(pack(expert, key)).unpack(folder)
    file = folder / "knowledge/notes.md"
    match what:
        case "changed":
            file.write_text("Nodes.\n")
        case "added":
            (folder / "more.md").write_text("x")
        case "removed":
            file.unlink()
        case "linked":
            file.unlink()
            file.symlink_to(expert.folder / "notes.md")
    with pytest.raises(PackError, match="was changed"):
        check_unpacked(folder)


def test_what_cannot_be_packed(shelf: Shelf, write: Write, tmp_path: Path) -> None:
    file = write("clerk", "knowledge: [{path: docs}]\n")
    with pytest.raises(KnowledgeGone, match="docs"):
        pack(shelf.find(str(file)))
    (file.parent / "docs").mkdir()
    (file.parent / "docs/passwd").symlink_to("/etc/passwd")
    with pytest.raises(UnsafePack, match="no plain file"):
        pack(shelf.find(str(file)))
    (file.parent / "docs/passwd").unlink()
    (file.parent / "docs/what?.md").write_text("x")
    with pytest.raises(UnsafePack, match="rename it"):
        pack(shelf.find(str(file)))


def test_an_unsigned_pack_says_so(expert: Expert) -> None:
    assert Pack.read(pack(expert)).signer == ""


def test_what_extends_another_is_packed_whole(shelf: Shelf, write: Write) -> None:
    made = Pack.read(pack(shelf.find(str(write("mine", "extends: assistant\n")))))
    assert made.manifest.extends is None and made.manifest.instructions


# -- hostile packs -----------------------------------------------------------------------------------------------


def forge(
    files: dict[str, bytes], key: Key | None = None, *, extra: dict[str, bytes] | None = None,
    mode: int = stat.S_IFREG | 0o644, table: dict[str, Any] | None = None, odd: str = "",
) -> bytes:  # fmt: skip
    """A pack of anybody's making: `extra` members stand in no table, `odd` has the file mode `mode`."""
    told = json.dumps(
        {
            "format": 1, "expert": "clerk", "version": "0.1.0", "signer": key.public if key else "",
            "files": {n: {"sha256": hashlib.sha256(d).hexdigest(), "bytes": len(d)} for n, d in files.items()},
            **(table or {}),
        }
    ).encode()  # fmt: skip
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(TABLE, told)
        if key is not None:
            archive.writestr(SIGNATURE, key.sign(told))
        for name, data in [*files.items(), *(extra or {}).items()]:
            info = zipfile.ZipInfo(name)
            info.filename = name  # as it is: ZipInfo would mend some
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (mode if name == odd else stat.S_IFREG | 0o644) << 16
            archive.writestr(info, data)
    return out.getvalue()


EXPERT = b"expert: clerk\nversion: 0.1.0\ndescription: x\n"


def test_a_forged_pack_that_is_sound_is_read(key: Key) -> None:
    """Else the tests below would show nothing."""
    assert Pack.read(forge({FILE: EXPERT, "knowledge/a.md": b"x"}, key)).signer == key.public


@pytest.mark.parametrize(
    "name",
    [
        "../evil", "knowledge/../../evil", "/etc/evil", "knowledge//evil", "./evil", "knowledge/./evil", "a\\..\\evil",
        "C:evil", "C:/evil", "knowledge/evil\n", "knowledge/e\x1bvil", "knowledge/evil ", "knowledge/evil.", "con",
        "knowledge/NUL.txt", "x" * 500, "knowledge/" + "y" * 250, "knowledge/", "cafe\u0301", "knowledge/\u202eevil",
        "a?b", "a:stream",
    ],
)  # fmt: skip
def test_names_that_could_lead_elsewhere(key: Key, name: str) -> None:
    with pytest.raises(UnsafePack):
        Pack.read(forge({FILE: EXPERT, name: b"x"}, key))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFDIR, stat.S_IFSOCK])
def test_links_and_devices(key: Key, kind: int) -> None:
    data = forge({FILE: EXPERT, "knowledge/a": b"/etc/passwd"}, key, mode=kind | 0o777, odd="knowledge/a")
    with pytest.raises(UnsafePack, match="no plain file"):
        Pack.read(data)


@pytest.mark.parametrize(
    "names",
    [
        ("a.md", "A.md"), ("k/a.md", "K/b.md"), ("straße.md", "STRASSE.md"), ("ﬁ.md", "fi.md"), ("a", "a/b"),
        ("A", "a/b"), ("k/a", "k/a/b/c"),
    ],
)  # fmt: skip
def test_names_that_meet_on_some_file_systems(key: Key, names: tuple[str, str]) -> None:
    with pytest.raises(UnsafePack):
        Pack.read(forge({FILE: EXPERT, **dict.fromkeys(names, b"x")}, key))


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_a_member_that_is_there_twice(key: Key) -> None:
    for name in (FILE, TABLE, SIGNATURE, "knowledge/a.md"):
        with pytest.raises(UnsafePack, match="there twice"):
            Pack.read(forge({FILE: EXPERT, "knowledge/a.md": b"x"}, key, extra={name: b"y"}))


def test_members_that_no_table_knows(key: Key) -> None:
    with pytest.raises(UnsafePack, match=r"table lists.*hidden\.py"):
        Pack.read(forge({FILE: EXPERT}, key, extra={"hidden.py": b"import os"}))


def test_members_that_are_missing(key: Key) -> None:
    files = {FILE: EXPERT, "knowledge/a.md": b"x"}
    table = {"files": {n: {"sha256": "0" * 64, "bytes": 1} for n in (*files, "knowledge/b.md")}}
    with pytest.raises(UnsafePack, match=r"b\.md"):
        Pack.read(forge(files, key, table=table))


def test_bombs(key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnsafePack, match="bomb"):
        Pack.read(forge({FILE: EXPERT, "knowledge/zeros": b"\0" * (8 << 20)}, key))
    with pytest.raises(UnsafePack, match="files"):
        Pack.read(forge({FILE: EXPERT, **{f"k/{n}": b"" for n in range(10_001)}}, key))


def test_a_member_larger_than_its_header_says(key: Key) -> None:
    data = forge({FILE: EXPERT, "knowledge/a": b"0123456789" * 50}, key)
    size = (500).to_bytes(4, "little")
    assert data.count(size) >= 2
    small = data.replace(size, (5).to_bytes(4, "little"))
    table = json.loads(members(data)[TABLE])
    with pytest.raises(PackError):
        Pack.read(small).check()
    assert table["files"]["knowledge/a"]["bytes"] == 500


@pytest.mark.parametrize("name", [FILE, "knowledge/a.md"])
def test_wrong_hashes(key: Key, name: str) -> None:
    files = {FILE: EXPERT, "knowledge/a.md": b"x"}
    table = {
        "files": {n: {"sha256": hashlib.sha256(d).hexdigest(), "bytes": len(d)} for n, d in files.items()}
    }
    table["files"][name]["sha256"] = "0" * 64
    with pytest.raises(PackError, match="sha256 differs"):
        Pack.read(forge(files, key, table=table)).check()


def test_a_size_that_differs(key: Key) -> None:
    table = {"files": {FILE: {"sha256": "0" * 64, "bytes": 1}}}
    with pytest.raises(PackError, match="size differs"):
        Pack.read(forge({FILE: EXPERT}, key, table=table))


def test_forged_and_missing_signatures(key: Key, tmp_path: Path) -> None:
    other = Key.make(tmp_path / "other.pem")
    parts = members(forge({FILE: EXPERT}, key))

    def put(**changed: bytes | None) -> bytes:
        out = io.BytesIO()
        names = {"table": TABLE, "signature": SIGNATURE, "expert": FILE}
        with zipfile.ZipFile(out, "w") as archive:
            for short, name in names.items():
                if (data := changed.get(short, parts[name])) is not None:
                    archive.writestr(name, data)
        return out.getvalue()

    assert Pack.read(put()).signer == key.public
    for wrong in (
        other.sign(parts[TABLE]).encode(),
        b"",
        b"AAAA",
        b"\xff\xfe",
        key.sign(parts[TABLE] + b" ").encode(),
    ):
        with pytest.raises(BadSignature):
            Pack.read(put(signature=wrong))
    with pytest.raises(BadSignature, match="missing"):
        Pack.read(put(signature=None))
    with pytest.raises(BadSignature, match="forged"):
        Pack.read(put(table=parts[TABLE].replace(b'"clerk"', b'"Clerk"')))
    with pytest.raises(BadSignature):  # the signer taken out, the signature left
        Pack.read(put(table=parts[TABLE].replace(key.public.encode(), b"")))
    with pytest.raises(BadSignature):
        verify("not base64!", "x", b"")


@pytest.mark.parametrize(
    "data", [b"", b"PK", b"PK\x03\x04" + b"\0" * 100, b"<html>", b"PK\x05\x06" + b"\0" * 18, os.urandom(2000)]
)
def test_what_is_no_pack(data: bytes) -> None:
    with pytest.raises(PackError):
        Pack.read(data)


@pytest.mark.parametrize(
    "table",
    [{"format": 2}, {"format": None}, {"files": []}, {"files": {FILE: {}}}, {"expert": 3}, {"version": None}],
)
def test_tables_that_cannot_be_read(key: Key, table: dict[str, Any]) -> None:
    with pytest.raises(PackError, match=TABLE):
        Pack.read(forge({FILE: EXPERT}, key, table=table))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"expert: other\nversion: 0.1.0\ndescription: x\n", "not what it says"),
        (b"expert: clerk\nversion: 9.0.0\ndescription: x\n", "not what it says"),
        (EXPERT + b"extends: assistant\n", "extends another"),
        (EXPERT + b"knowledge: [{path: ../../../etc}]\n", "lead elsewhere"),
        (EXPERT + b"knowledge: [{path: /etc}]\n", "lead elsewhere"),
        (EXPERT + b"knowledge: [{path: elsewhere}]\n", "not in the pack"),
        (EXPERT + b"adapter: ../a.safetensors\n", "lead elsewhere"),
        (EXPERT + b"tests: [{ask: q, files: [/etc/passwd], expect: {contains: x}}]\n", "lead elsewhere"),
        (EXPERT + b"grants: {'*': }\n", "expert file in the pack is wrong"),
        (EXPERT + b"run: rm -rf\n", "unknown key"),
        (b"\xff\xfe", "expert file in the pack is wrong"),
        (b"!!python/object/apply:os.system [true]", "wrong"),
    ],
)
def test_hostile_expert_files(key: Key, text: bytes, said: str) -> None:
    with pytest.raises(PackError, match=f"(?s){said}"):
        Pack.read(forge({FILE: text}, key))


def test_every_cut_and_many_flips_are_typed_errors(expert: Expert, key: Key, tmp_path: Path) -> None:
    """Whatever happens to a pack on its way: it is read as it was, or refused."""
    data = pack(expert, key)
    whole = Pack.read(data).table
    for cut in range(0, len(data), 37):
        with pytest.raises(PackError):
            Pack.read(data[:cut])
    for at in range(0, len(data), 11):
        bent = bytearray(data)
        bent[at] ^= 0x41
        try:
            found = Pack.read(bytes(bent))
            found.check()
            assert found.table == whole
        except PackError:
            pass


def test_a_key_is_private_and_made_once(tmp_path: Path) -> None:
    from llmos.apps.experts.errors import ExpertError

    file = tmp_path / "keys/key.pem"
    key = Key.make(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert Key.load(file).public == key.public
    assert file.read_text() not in repr(key)
    with pytest.raises(ExpertError, match="already"):
        Key.make(file)
    file.write_text("nonsense")
    with pytest.raises(ExpertError, match="no key"):
        Key.load(file)
    with pytest.raises(ExpertError, match="llmos expert key"):
        Key.load(tmp_path / "none")
