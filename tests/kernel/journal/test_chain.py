"""The chain notices every change; the head file survives a write that was torn."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from llmos.kernel.journal.chain import HASH_BYTES, Head, Link, Row, link

rows = st.builds(
    Row, st.integers(1, 9), st.integers(0, 9), st.integers(0, 9), st.sampled_from(["sampled", "sent", "sent 1"]),
    st.binary(max_size=4),
)  # fmt: skip
hashes = st.binary(min_size=HASH_BYTES, max_size=HASH_BYTES)


@given(hashes, rows, hashes, rows)
def test_different_records_or_pasts_have_different_hashes(a: bytes, x: Row, b: bytes, y: Row) -> None:
    assert (link(a, x) == link(b, y)) == ((a, x) == (b, y))


@given(hashes, st.lists(rows, min_size=1, max_size=6), st.data())
def test_the_end_depends_on_every_record_and_their_order(
    start: bytes, history: list[Row], data: st.DataObject
) -> None:
    def end(chain: list[Row]) -> bytes:
        hash = start
        for row in chain:
            hash = link(hash, row)
        return hash

    changed = data.draw(st.permutations(history)) + data.draw(st.lists(rows, max_size=1))
    assert (end(changed) == end(history)) == (changed == history)


def _head(path: Path) -> Link | None:
    head = Head(path)
    try:
        return head.read()
    finally:
        head.close()


def test_the_newest_head_is_read_back(tmp_path: Path) -> None:
    assert _head(tmp_path / "head") is None
    for seq in (1, 2, 5):
        head = Head(tmp_path / "head")
        head.write(Link(seq, bytes([seq]) * 16))
        head.write(Link(seq + 1, bytes([seq]) * 16))
        head.close()
        assert _head(tmp_path / "head") == Link(seq + 1, bytes([seq]) * 16)


@given(st.integers(0, 511), st.integers(1, 255))
def test_any_byte_of_a_slot_spoiled_leaves_the_head_before(
    tmp_path_factory: object, at: int, flip: int
) -> None:
    path = Path(tmp_path_factory.mktemp("head")) / "head"  # type: ignore[attr-defined]
    head = Head(path)
    head.write(Link(1, b"1" * 16))
    head.write(Link(2, b"2" * 16))
    head.close()
    data = bytearray(path.read_bytes())
    slot = data.index(b" 2 ") // 4096 * 4096
    data[slot + at] ^= flip
    path.write_bytes(data)
    assert _head(path) == Link(1, b"1" * 16)


def test_rubbish_is_no_head(tmp_path: Path) -> None:
    for rubbish in (
        b"",
        b"\n",
        b"llmos journal head 1 x y z\n",
        b"\xff" * 9000,
        bytes(9000),
        b"1 2 3 4 5\n" * 900,
    ):
        (tmp_path / "head").write_bytes(rubbish)
        assert _head(tmp_path / "head") is None
