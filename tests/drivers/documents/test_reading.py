"""Files as they come: packed, badly encoded, damaged, hostile. Each is a document or a typed error that says why."""

from __future__ import annotations

import gzip
import os
import time
import zlib
from pathlib import Path

import pytest

from llmos.abi.errors import DocumentError
from llmos.drivers.documents import reading
from llmos.drivers.documents.reading import decode, format_of, read_document
from llmos.drivers.documents.worker import DocumentReader

MINIMAL_PDF = b"""%PDF-1.4
1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj
2 0 obj<</Type/Pages/Kids[3 0 R 6 0 R]/Count 2>>endobj
3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 300]/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>>>endobj
4 0 obj<</Length 66>>stream
BT /F 12 Tf 20 250 Td (Call before nine.) Tj 0 -40 Td (Or write.) Tj ET
endstream endobj
5 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj
6 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 300]/Contents 7 0 R/Resources<</Font<</F 5 0 R>>>>>>endobj
7 0 obj<</Length 52>>stream
BT /F 12 Tf 20 250 Td (The second page.) Tj ET
endstream endobj
trailer<</Root 1 0 R/Size 8>>
"""
ENCRYPTED_PDF = MINIMAL_PDF.replace(
    b"trailer<</Root 1 0 R/Size 8>>",
    b"8 0 obj<</Filter/Standard/V 1/R 2/P -44/O<" + b"61" * 32 + b">/U<" + b"62" * 32 + b">>>endobj\n"
    b"trailer<</Root 1 0 R/Size 9/Encrypt 8 0 R/ID[<" + b"63" * 16 + b"><" + b"63" * 16 + b">]>>",
)


def put(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def test_formats_by_name() -> None:
    names = [
        "a.txt",
        "README",
        "a.rst",
        "a.MD",
        "a.html.gz",
        "a.pdf",
        "a.css",
        "a.tar.gz",
        ".profile",
        "a.py",
    ]
    found = [format_of(Path(name)) for name in names]
    assert found == ["plain", "plain", "plain", "markdown", "html", "pdf", None, None, "plain", "code"]


def test_gzip_is_looked_through(tmp_path: Path) -> None:
    packed = gzip.compress(b"# Title\n\nfirst\n") + gzip.compress(b"\nsecond\n")
    document = read_document(put(tmp_path, "a.md.gz", packed))
    assert [b.text for b in document.blocks] == ["Title", "first", "second"]
    assert document.blocks[2].places == (5,)


@pytest.mark.parametrize(
    ("data", "text", "notes"),
    [
        ("Grüße".encode(), "Grüße", 0),
        ("Grüße".encode("utf-8-sig"), "Grüße", 0),
        ("Grüße".encode("utf-16"), "Grüße", 0),
        ("Grüße, schöne".encode("cp1252"), "Grüße, schöne", 1),
        ("Grüße, schöne ".encode() + b"\xff.", "Grüße, schöne \ufffd.", 1),
        (b"a\r\nb\rc", "a\nb\nc", 0),
    ],
)
def test_characters(data: bytes, text: str, notes: int) -> None:
    assert (decode(data, "x.txt")[0], len(decode(data, "x.txt")[1])) == (text, notes)


def test_a_declared_charset_counts_in_html(tmp_path: Path) -> None:
    page = '<meta charset="koi8-r"><p>Привет</p>'.encode("koi8-r")
    assert read_document(put(tmp_path, "a.html", page)).blocks[0].text == "Привет"


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("empty.txt", b"", "is empty"),
        ("blank.md", b" \n\n ", "is empty"),
        ("no-text.html", b"<html><body><script>x</script></body></html>", "holds no text"),
        ("picture.txt", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "binary data"),
        ("picture", bytes(range(256)) * 4, "binary data"),
        ("style.css", b"p {}", "is not a document"),
        ("cut.txt.gz", gzip.compress(b"text " * 1000)[:-20], "ends too early"),
        ("not.txt.gz", b"plain text", "not valid gzip"),
        ("bad.pdf", b"%PDF-1.4 nothing more", "is damaged"),
        ("locked.pdf", ENCRYPTED_PDF, "is encrypted"),
        ("scan.pdf", MINIMAL_PDF.replace(b"Tj", b"  "), "no text"),
    ],
)
def test_what_is_refused_and_why(tmp_path: Path, name: str, data: bytes, why: str) -> None:
    with pytest.raises(DocumentError, match=why) as caught:
        read_document(put(tmp_path, name, data))
    assert name.split(".", maxsplit=1)[0] in caught.value.what
    assert caught.value.do


def test_a_gzip_bomb_is_refused_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_EXPANDED_BYTES", 1 << 20)
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(64)) + packer.flush()
    with pytest.raises(DocumentError, match="unpacks to more than 1 MiB"):
        read_document(put(tmp_path, "bomb.txt.gz", bomb))


def test_too_large_missing_and_special_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DocumentError, match="No such file"):
        read_document(tmp_path / "gone.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(DocumentError, match="not a regular file"):
        read_document(tmp_path / "pipe.txt")
    monkeypatch.setattr(reading, "MAX_DOCUMENT_BYTES", 100)
    with pytest.raises(DocumentError, match="too large"):
        read_document(put(tmp_path, "large.txt", b"x" * 101))


def test_pdf_text_with_its_pages(tmp_path: Path) -> None:
    document = read_document(put(tmp_path, "a.pdf", MINIMAL_PDF))
    assert document.unit == "page"
    found = [(b.text, b.places) for b in document.blocks]
    assert found == [("Call before nine.\nOr write.", (1, 1)), ("The second page.", (2,))]


def test_the_worker_reads_and_reports(tmp_path: Path) -> None:
    with DocumentReader() as reader:
        assert reader.read(put(tmp_path, "a.md", b"# Title\n\ntext\n")).title == "Title"
        with pytest.raises(DocumentError, match="is empty"):
            reader.read(put(tmp_path, "b.md", b""))
        assert reader.read(put(tmp_path, "line\nbreak.txt", b"text\n")).blocks[0].text == "text"


def test_the_worker_survives_a_parser_that_hangs_or_dies(tmp_path: Path) -> None:
    slow = put(tmp_path, "slow.html", b"<p" * 400_000)
    good = put(tmp_path, "good.txt", b"text\n")
    with DocumentReader(seconds=0.02) as reader:
        began = time.monotonic()
        with pytest.raises(DocumentError, match="ran longer than"):
            reader.read(slow)
        assert time.monotonic() - began < 30
    with DocumentReader() as reader:
        reader.read(good)
        assert reader._child is not None
        reader._child.kill()
        reader._child.wait()
        with pytest.raises(DocumentError, match="ended"):
            reader.read(good)
        assert reader.read(good).blocks[0].text == "text"


def test_the_worker_bounds_memory(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "from llmos.drivers.documents import worker; worker.MAX_PARSE_BYTES = 1 << 30; worker._bound()\n"
        "try: bytearray(2 << 30)\nexcept MemoryError: print('bounded')\n"
        "try: open('written', 'wb', 0).write(b'x' * 10)\nexcept OSError as e: print('read only')\n"
    )
    root = Path(__file__).parents[3]
    ran = subprocess.run(
        [sys.executable, "-c", "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n" + code],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ran.stdout.split("\n")[:2] == ["bounded", "read only"]
