"""From a file on disk to a `Document`: which parser, how many bytes, which characters.

What: chooses the format by suffix, reads no more than the limits allow, undoes gzip within a bound, decodes,
    parses. What is not a document is refused with a reason: nothing is guessed from binary bytes.
Invariant: reads regular files only (a FIFO or a device would block), and no more than the two limits say.
Interface: `format_of(path) -> Format | None`, `read_document(path) -> Document`; raises DocumentError.
    Call `read_document` in the worker process (`worker.py`): it may meet a hostile file.
Characters: a byte-order mark decides; else UTF-8; else, for HTML, the declared charset; else, if most of the
    bytes above 127 do form UTF-8, UTF-8 with U+FFFD for the rest; else Windows-1252. Anything but clean UTF-8
    or a declared charset is said in the document's notes.
"""

from __future__ import annotations

import codecs
import os
import re
import stat
import zlib
from importlib import import_module
from pathlib import Path
from typing import Literal

from llmos.abi.errors import DocumentError
from llmos.abi.limits import MAX_DOCUMENT_BYTES, MAX_EXPANDED_BYTES
from llmos.drivers.documents.code import SUFFIXES
from llmos.drivers.documents.document import Document
from llmos.drivers.documents.unseen import marked

Format = Literal["plain", "markdown", "html", "pdf", "docx", "pptx", "xlsx", "epub", "csv", "json", "code"]
_SUFFIXES: dict[str, Format] = {
    "": "plain", ".txt": "plain", ".text": "plain", ".rst": "plain", ".rest": "plain",
    ".md": "markdown", ".markdown": "markdown", ".mkd": "markdown",
    ".html": "html", ".htm": "html", ".xhtml": "html",
    ".pdf": "pdf", ".docx": "docx", ".pptx": "pptx", ".xlsx": "xlsx", ".xlsm": "xlsx", ".epub": "epub",
    ".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", **dict.fromkeys(SUFFIXES, "code"),
}  # fmt: skip
_PARSERS: dict[Format, tuple[str, str]] = {  # module and function
    "plain": ("plain", "parse_plain"), "markdown": ("markdown", "parse_markdown"), "html": ("web", "parse_html"),
    "csv": ("sheets", "parse_csv"), "json": ("code", "parse_json"), "code": ("code", "parse_code"),
    "pdf": ("pdf", "parse_pdf"), "docx": ("office", "parse_docx"), "pptx": ("office", "parse_pptx"),
    "xlsx": ("sheets", "parse_workbook"), "epub": ("ebook", "parse_epub"),
}  # fmt: skip
_BINARY = frozenset({"pdf", "docx", "pptx", "xlsx", "epub"})
READ = "text, md, rst, html, pdf, docx, pptx, xlsx, epub, csv, json or source code (or one of these with .gz)"
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_CHARSET = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?\s*([A-Za-z0-9_.:-]{2,40})""", re.IGNORECASE)


def format_of(path: Path) -> Format | None:
    """The format that a file's name promises, or None; `.gz` is looked through; no suffix is plain text."""
    name = path.name.lower().removesuffix(".gz")
    stem, dot, suffix = name.rpartition(".")
    return _SUFFIXES.get("." + suffix if dot and stem else "")


def read_document(path: Path) -> Document:
    """Read and parse one file; DocumentError says what is wrong with it."""
    form = format_of(path)
    if form is None:
        raise DocumentError(
            f"{path.name} is not a document", why=f"files of type {path.suffix} are not read",
            do=f"give {READ}",
        )  # fmt: skip
    data = read_bytes(path)
    if not data.strip():
        raise DocumentError(
            f"{path.name} is empty", why="there is no text in it", do="leave it out, or fill it"
        )
    name = path.name.removesuffix(".gz")
    module, parser = _PARSERS[form]
    parse = getattr(import_module(f"llmos.drivers.documents.{module}"), parser)
    notes: tuple[str, ...] = ()
    if form in _BINARY:
        document: Document = parse(data, name)
    else:
        text, notes = decode(data, name, declared=form == "html")
        document = parse(text, name)
    document = marked(document)
    if not document.blocks:
        raise DocumentError(
            f"{name} holds no text", why="nothing in it is shown to a reader", do="leave it out"
        )
    return Document(document.title, document.unit, document.blocks, (*notes, *document.notes))


def read_bytes(path: Path) -> bytes:
    """The file's content, unpacked when its name ends in `.gz`."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            info = os.fstat(file.fileno())
            if not stat.S_ISREG(info.st_mode):
                raise DocumentError(
                    f"{path.name} is not a regular file", do="give a file or a folder of files"
                )
            data = file.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        raise DocumentError(
            f"{path.name} cannot be read",
            why=error.strerror or str(error),
            do="check that it exists and who may read it",
        ) from None
    if len(data) > MAX_DOCUMENT_BYTES:
        raise DocumentError(
            f"{path.name} is too large",
            why=f"more than {MAX_DOCUMENT_BYTES >> 20} MiB",
            do="split it into smaller files",
        )
    return _gunzip(data, path.name) if path.name.lower().endswith(".gz") and data else data


def _gunzip(data: bytes, name: str) -> bytes:
    """Undo gzip, all its members, within MAX_EXPANDED_BYTES."""
    out, size = [], 0
    while data:
        member = zlib.decompressobj(wbits=31)
        try:
            part = member.decompress(data, MAX_EXPANDED_BYTES + 1 - size)
        except zlib.error as error:
            raise DocumentError(
                f"{name} is damaged", why=f"not valid gzip ({error})", do="fetch it again"
            ) from None
        size += len(part)
        out.append(part)
        if size > MAX_EXPANDED_BYTES:
            raise DocumentError(
                f"{name} is too large",
                why=f"it unpacks to more than {MAX_EXPANDED_BYTES >> 20} MiB (a gzip bomb, or very long)",
                do="unpack it and split it into smaller files",
            )
        if not member.eof:
            raise DocumentError(f"{name} is damaged", why="the gzip data ends too early", do="fetch it again")
        data = member.unused_data.lstrip(b"\0")  # gzip allows zero padding after a member
    return b"".join(out)


def decode(data: bytes, name: str, *, declared: bool = False) -> tuple[str, tuple[str, ...]]:
    """The characters of a text file, newlines made one kind, and notes on what had to be assumed."""
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            text = data[len(bom) :].decode(encoding, "replace")
            return _checked(text, name), _replaced(text, encoding)
    try:
        return _checked(data.decode("utf-8"), name), ()
    except UnicodeDecodeError:
        pass
    if b"\0" in data:
        raise _binary(name)
    if declared and (found := _CHARSET.search(data[:2048])):
        try:
            encoding = codecs.lookup(found[1].decode("ascii")).name
            if encoding != "utf-8":
                text = data.decode(encoding, "replace")
                return _checked(text, name), _replaced(text, encoding)
        except (LookupError, UnicodeError):
            pass
    text = data.decode("utf-8", "replace")
    broken = text.count("\ufffd")
    valid = sum(character > "\x7f" for character in text) - broken
    if valid > broken:
        return _checked(text, name), _replaced(text, "utf-8")
    text = data.decode("cp1252", "replace")
    return _checked(text, name), ("not UTF-8: read as Windows-1252",)


def _replaced(text: str, encoding: str) -> tuple[str, ...]:
    count = text.count("\ufffd")
    return (f"{count} bytes are not valid {encoding}: shown as U+FFFD",) if count else ()


def _checked(text: str, name: str) -> str:
    """Refuse binary data; one kind of newline."""
    sample = text[:65536]
    odd = sum(1 for c in sample if c < " " and c not in "\t\n\r\f\x0b\x1b")
    if "\0" in text or odd * 50 > len(sample):
        raise _binary(name)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _binary(name: str) -> DocumentError:
    return DocumentError(
        f"{name} is not text",
        why="it holds binary data",
        do=f"give {READ}",
    )
