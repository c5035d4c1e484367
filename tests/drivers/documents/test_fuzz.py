"""Damaged and hostile documents: whatever the bytes, a DocumentError that names their fault, or a document.

What: seeds of every format (`seeds/`), mutated by a seeded generator and read by the worker as mounts do. The
    worker turns a bug of a parser into a DocumentError too, so its words for one are failures here: an exception,
    a crash, a hang, an answer that is no document. Its memory is looked at after each format.
The quick part tries some hundred inputs, the slow part more than ten thousand.
"""

from __future__ import annotations

import gzip
import io
import random
import re
import time
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from llmos.abi.errors import DocumentError
from llmos.drivers.documents.document import Document
from llmos.drivers.documents.worker import DocumentReader

from .made import MADE, zipped

SEEDS = Path(__file__).parent / "seeds"
FORMATS = ("txt", "rst", "md", "html", "pdf", "html.gz", "csv", "json", "py", *MADE)
QUICK, SLOW = 40, 2_000
SECONDS = 20.0  # one input may take this long on a busy machine; a sound one takes a millisecond or two
MIB = 400  # that a worker may ever hold; it starts with 50
BUG = re.compile(
    r"its parser failed|parser process ended|ended with status|ran longer|garbled|needs more than"
)

TEXT = [
    b"\0", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", "\u202e\u200b\u2028".encode(), b"\r", b"\x1b[2J",
    b"\x0c", b"\t", b"\n\n", b" " * 99, "\U000e0041\u0301".encode(), b"\xed\xa0\x80", b"<|im_start|>",
]  # fmt: skip
WORDS = {
    "txt": [b"====\n", b"----\n", b"::\n\n   ", b"* ", b"1) ", b"+--+--+\n", b"|"],
    "rst": [
        b"====\n",
        b"***\n",
        b".. include:: /etc/passwd\n",
        b".. _a: b_\n",
        b"::\n\n",
        b"|x|",
        b"=== ===\n",
        b"`",
    ],
    "md": [
        b"> ",
        b"- ",
        b"1. ",
        b"```\n",
        b"[a](",
        b"[a]: ",
        b"![",
        b"<a ",
        b"| ",
        b"|-|\n",
        b"*",
        b"_",
        b"\\",
        b"&#0;",
        b"&#x110000;",
        b"<!--",
        b"# ",
    ],
    "html": [
        b"<",
        b"</",
        b"<!--",
        b"-->",
        b"<![CDATA[",
        b"<?",
        b"<table>",
        b"<td>",
        b"<pre>",
        b"</pre>",
        b"<title>",
        b"<nav>",
        b"<div ",
        b"<script>",
        b"<textarea>",
        b"<plaintext>",
        b"<svg>",
        b"&",
        b"&#",
        b"&#xffffffff;",
        b"&lol;",
        b"<h1>",
        b"<li>",
        b"<a class=footnote-reference>",
        b'<!DOCTYPE x [<!ENTITY l "ll">]>',
        b"<p hidden",
        b"charset=utf-7",
        b"charset=idna",
        b"charset=zip",
        b"charset=undefined",
    ],
    "pdf": [
        b"obj",
        b"endobj",
        b"stream\n",
        b"endstream",
        b"<<",
        b">>",
        b"[",
        b"]",
        b"(",
        b")",
        b"/Kids[2 0 R]",
        b"/Count 99999999",
        b"/Length 2147483647",
        b"/Length -1",
        b"/Parent 3 0 R",
        b"/Filter/FlateDecode",
        b"/Filter[/LZWDecode/ASCII85Decode]",
        b"/Filter/JBIG2Decode",
        b"/Encrypt 7 0 R",
        b"9 0 R",
        b"0 0 R",
        b"/XRefStm 15",
        b"/Prev 9",
        b"Tj",
        b"/X Do",
        b"99999999999",
        b"-1",
        b"1e38",
        b"/MediaBox[0 0 1e9 1e9]",
        b"/DecodeParms<</Predictor 12/Columns 2147483647>>",
    ],
    "csv": [b",", b";", b'"', b'""', b"\n", b'"\n', b"\t", b"|", b"," * 999],
    "json": [
        b"{",
        b"[",
        b'"',
        b"\\u0000",
        b"\\ud800",
        b"1e999",
        b"NaN",
        b"[" * 5000,
        b" " * 3000,
        b":",
        b",",
    ],
    "py": [
        b"(",
        b")",
        b"def ",
        b"class A:\n ",
        b"@",
        b"    ",
        b'"""',
        b"\\\n",
        b"f'{",
        b"(" * 300,
        b"-" * 9000,
        b"if 1:\n",
    ],
}
XML = [
    b"<", b">", b"</", b"/>", b"<!--", b"<![CDATA[", b'<!DOCTYPE x [<!ENTITY l "ll">]>', b"&l;", b"&#0;",
    b' r="99999999"', b' r="A1"', b' t="s"', b' w:val="0"', b' idref="', b"<w:p>", b"<w:tbl>", b"<row>", b"<c>", b"<v>",
    b' gridSpan="99"',
]  # fmt: skip


def damaged(form: str, number: int) -> bytes:
    """Input `number` of a format: one to six mutations of a seed."""
    chance = random.Random(f"{form} {number}")
    if form in MADE:
        return _archive(form, chance)
    inner = form.removesuffix(".gz")
    seeds = [path.read_bytes() for path in sorted(SEEDS.glob(f"*.{inner}"))]
    data = bytearray(chance.choice(seeds))
    words = TEXT + WORDS[inner] * 3
    packed = form.endswith(".gz")
    if packed and chance.random() < 0.7:  # else what is packed is damaged
        data = bytearray(gzip.compress(data, mtime=0) * chance.choice([1, 1, 2]))
        words, packed = [b"\x1f\x8b", b"\0", b"\xff\xff", b"\x08"], False
    _mutate(data, chance, words, seeds)
    return gzip.compress(data, mtime=0) if packed else bytes(data)


def _archive(form: str, chance: random.Random) -> bytes:
    """An archive with a damaged part, whole again as an archive; or one damaged itself."""
    data = bytearray(_made(form))
    if chance.random() < 0.2:
        _mutate(data, chance, [b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"\xff" * 8], [bytes(data)])
        return bytes(data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = chance.choice(sorted(name for name in parts if not name.endswith((".jpeg", ".png"))))
    part = bytearray(parts[name])
    _mutate(part, chance, TEXT + XML * 3, [parts[name]])
    return zipped({**parts, name: bytes(part)})


@cache
def _made(form: str) -> bytes:
    return MADE[form]()


def _mutate(data: bytearray, chance: random.Random, words: list[bytes], seeds: list[bytes]) -> None:
    """One to six mutations."""
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(data) + 1)
        length = min(int(chance.expovariate(1 / 40)), len(data) - at)
        kind = chance.randrange(9)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del data[at : at + length]
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            data[at:at] = data[at : at + length] * chance.choice([1, 2, 300])
        elif kind == 4:
            data[at : at + length] = chance.randbytes(length)
        elif kind == 5:
            data[at:at] = chance.choice(words) * chance.choice([1, 2, 50, 2000])
        elif kind == 6:
            other = chance.choice(seeds)
            data[at:] = other[chance.randrange(len(other)) :]
        elif kind == 7:
            data[at:at] = b"".join(chance.choices(words, k=chance.randint(1, 60)))
        elif numbers := list(re.finditer(rb"\d+", data)):
            found = chance.choice(numbers)
            value = chance.choice([0, 1, 7, 255, 65536, 2**31 - 1, 2**31, 2**32, 2**63])
            data[found.start() : found.end()] = b"%d" % value


def sound(document: Document) -> bool:
    """What `Block` does not check by itself."""
    return bool(document.blocks) and all(b.text.strip() and min(b.places) > 0 for b in document.blocks)


def run(form: str, cases: int, folder: Path) -> tuple[int, int]:
    """(documents, errors) of so many inputs; AssertionError with the input kept for the first that fails."""
    path = folder / f"damaged.{form}"
    read = refused = 0
    with DocumentReader(seconds=SECONDS) as reader:
        for number in range(cases):
            path.write_bytes(damaged(form, number))
            try:
                assert sound(reader.read(path)), f"no sound document: damaged({form!r}, {number})"
                read += 1
            except DocumentError as error:
                assert not BUG.search(str(error)), f"damaged({form!r}, {number}): {error}"
                assert error.what and error.do
                refused += 1
        assert peak(reader) < MIB << 20
    return read, refused


def peak(reader: DocumentReader) -> int:
    """Bytes that the reader's child has held at most."""
    assert reader._child is not None
    status = Path(f"/proc/{reader._child.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


@pytest.mark.parametrize("form", FORMATS)
def test_damaged_documents_quick(form: str, tmp_path: Path) -> None:
    read, refused = run(form, QUICK, tmp_path)
    assert read + refused == QUICK
    assert read  # mutations that nothing survives would test the first check only


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("form", FORMATS)
def test_damaged_documents_slow(form: str, tmp_path: Path) -> None:
    read, refused = run(form, SLOW, tmp_path)
    assert min(read, refused) > SLOW // 100


LONG: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "nested quotes": ("md", lambda n: b"> " * n),
    "nested lists": ("md", lambda n: b"".join(b"  " * k + b"- x\n" for k in range(min(n, 3000)))),
    "open brackets": ("md", lambda n: b"[" * n),
    "open images": ("md", lambda n: b"![a](" * n),
    "stars": ("md", lambda n: b"*a **b " * n),
    "backticks": ("md", lambda n: b"".join(b"`" * (k % 800) + b" " for k in range(n // 400))),
    "references": ("md", lambda n: b"".join(b"[a%d]: /u\n" % k for k in range(n // 10)) + b"[a1] " * (n // 10)),
    "table cells": ("md", lambda n: b"|a" * n + b"\n" + b"|-" * n + b"\n" + b"|b" * n),
    "open tags": ("html", lambda n: b"<p" * n),
    "open comments": ("html", lambda n: b"<!--" * n),
    "open tags, an end": ("html", lambda n: b"<p" * n + b">"),
    "open comments, an end": ("html", lambda n: b"<!--" * n + b">"),
    "attributes, an end": ("html", lambda n: b"<a " + b"b='" * n + b">"),
    "declarations, an end": ("html", lambda n: b"<!a" * n + b"<![" * n + b"<?" * n + b">"),
    "attributes": ("html", lambda n: b"<a " + b"b='" * n),
    "ampersands": ("html", lambda n: b"&" * n + b"&#x" * n),
    "declarations": ("html", lambda n: b"<!a" * n + b"<![" * n + b"<?" * n),
    "open scripts": ("html", lambda n: b"<script></scrip" * n),
    "white space": ("html", lambda n: b"<p>a</p >" + b" " * n + b"</p " * n),
    "headings": ("rst", lambda n: b"a\n===\n\n" * n),
    "spaces": ("txt", lambda n: b"a" + b" " * n + b"b" + b"-" * n + b"\n" + b"=" * n),
    "table rules": ("txt", lambda n: b"= " * n + b"\n" + b"| " * n + b"\n" + b"+-" * n),
    "pages that hold themselves": ("pdf", lambda n: b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
                   b"2 0 obj<</Type/Pages/Count 9/Kids[" + b"2 0 R " * n + b"]>>endobj\ntrailer<</Root 1 0 R>>"),
    "arrays": ("pdf", lambda n: b"%PDF-1.4\n1 0 obj" + b"[" * n + b"endobj\ntrailer<</Root 1 0 R>>"),
}  # fmt: skip


@pytest.mark.parametrize("name", LONG)
def test_patterns_that_make_parsers_slow_end_in_time(name: str, tmp_path: Path) -> None:
    """Each is known to make some parser quadratic or deep; about 100 kB."""
    form, make = LONG[name]
    path = tmp_path / f"long.{form}"
    path.write_bytes(make(20_000))
    with DocumentReader(seconds=SECONDS) as reader:
        began = time.monotonic()
        try:
            assert sound(reader.read(path))
        except DocumentError as error:
            assert not BUG.search(str(error)), str(error)
        assert time.monotonic() - began < SECONDS
