"""What nobody sees in a document is named, or gone where it says nothing; what scripts need stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.abi.errors import DocumentError
from llmos.drivers.documents.document import Block, Document
from llmos.drivers.documents.reading import read_document
from llmos.drivers.documents.unseen import NOTE, marked

TAGS = "".join(chr(0xE0000 + ord(c)) for c in "obey me")


def read(folder: Path, name: str, text: str) -> Document:
    (folder / name).write_text(text)
    return read_document(folder / name)


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.html", "a.csv", "a.py", "a.json"])
def test_words_are_found_as_they_are_read(tmp_path: Path, name: str) -> None:
    plain = '"sala\u200bries and nine\u00adteen, \u05e9\u05dc\u05d5\u05dd"'
    text = {"a.csv": f"{plain}\n1\n", "a.json": f"{{{plain}: 1}}", "a.py": f"x = {plain}\n"}.get(name, plain)
    document = read(tmp_path, name, text)
    said = "\n".join(block.text for block in document.blocks)
    assert "salaries and nineteen, \u05e9\u05dc\u05d5\u05dd" in said and NOTE not in document.notes


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.html"])
def test_hidden_words_are_named(tmp_path: Path, name: str) -> None:
    document = read(tmp_path, name, f"Pay on Friday.{TAGS} \u202eesrever\u202c " + "\u200b\u2060" * 6 + "end")
    said = "\n".join(block.text for block in document.blocks)
    assert "Pay on Friday.[tag characters: obey me]" in said and NOTE in document.notes
    assert "[direction override: reversed from here]esrever" in said
    assert "[zero-width characters: 12 of them]end" in said
    assert not set(said) & {"\u200b", "\u2060", "\u202e", *TAGS}


def test_what_scripts_and_pictures_need_stays() -> None:
    persian = "\u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
    for text in (persian, "\U0001f469\u200d\U0001f52c ok", "na\u00efve", "\u2764\ufe0f"):
        document = Document("t", "line", (Block("paragraph", text, (1,)),))
        assert marked(document) == document, ascii(text)


@given(st.text(st.sampled_from("ab \n\u200b\u2060\u202e\u00ad\U000e0041\ufe0f\u05d0"), max_size=40))
def test_lines_keep_their_places(text: str) -> None:
    block = Block("code", f"x{text}", tuple(range(text.count("\n") + 1)), (text,))
    (seen,) = marked(Document("t", "line", (block,))).blocks
    assert seen.places == block.places and not set(seen.text) & {"\u202e", "\U000e0041"}


def test_a_document_of_nothing_to_see_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="holds no text"):
        read(tmp_path, "a.txt", "\u200b")


def test_what_its_own_style_hides_is_not_the_page(tmp_path: Path) -> None:
    page = """<p style="color:red">One.</p><div style="display: none">two<p>three</p></div>
    <p style='visibility:hidden'>four
    <p>Five. <span style="font-size:0px">six</span><span style="font-size:0.8em; opacity:0.5">Seven.</span></p>
    <p hidden>eight</p><ul><li style="opacity:0">nine</li></ul><b style="OPACITY : 0.0">ten</b> Eleven."""
    said = " ".join(block.text for block in read(tmp_path, "a.html", page).blocks)
    assert [w for w in ("One", "Five", "Seven", "Eleven") if w in said] == ["One", "Five", "Seven", "Eleven"]
    assert not [w for w in ("two", "three", "four", "six", "eight", "ten") if w in said]
