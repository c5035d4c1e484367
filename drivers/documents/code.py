"""Source code, and data written as text (json, yaml, toml).

What: code is cut where a reader would: at definitions. Python is parsed, so a method's block stands under its class;
    of other languages a line at the left margin after an empty one begins a block.
Invariant: verbatim, every line in exactly one block, nothing is run or imported. JSON without line breaks is laid out
    anew, which its notes say.
Interface: `parse_code(text, name)`, `parse_json(text, name)` -> Document; `SUFFIXES`.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator

from llmos.drivers.documents.document import Block, Document

SUFFIXES = tuple(
    """.py .pyi .c .h .cc .cpp .hpp .cs .go .java .js .jsx .ts .tsx .kt .lua .php .pl .r .rb .rs .scala .sh .sql .swift
    .toml .yaml .yml .ini .cfg .tex""".split()
)
_LONG = 2000  # characters of a line of JSON that nobody has laid out
_LINES = 60  # of a block without a place to cut

Part = tuple[int, int, tuple[str, ...]]  # first line, the line after the last, path


def parse_code(text: str, name: str) -> Document:
    """Read source code."""
    lines = text.split("\n")
    parts: list[Part] | None = None
    if name.lower().endswith((".py", ".pyi")):
        parts = _python(text, len(lines))
    return Document(name, "line", tuple(_blocks(lines, parts or [(0, len(lines), ())])))


def parse_json(text: str, name: str) -> Document:
    """Read JSON (or lines of it); what is no JSON is read as it stands."""
    notes: tuple[str, ...] = ()
    if max(map(len, text.split("\n"))) > _LONG and not name.lower().endswith(".jsonl"):
        try:
            text = json.dumps(json.loads(text), indent=1, ensure_ascii=False)
            notes = ("JSON in one line: laid out anew, and lines are counted in that",)
        except (ValueError, RecursionError):
            pass
    return Document(name, "line", tuple(_blocks(text.split("\n"), [(0, text.count("\n") + 1, ())])), notes)


def _python(text: str, count: int) -> list[Part] | None:
    """The definitions of a module and what lies between them; None where it is no Python of this version."""
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    starts: list[tuple[int, tuple[str, ...]]] = [(0, ())]

    def visit(body: list[ast.stmt], path: tuple[str, ...]) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                kind = "class" if isinstance(node, ast.ClassDef) else "def"
                here = (*path, f"{kind} {node.name}")
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
                starts.append((first, here))
                if isinstance(node, ast.ClassDef):
                    visit(node.body, here)
                starts.append((node.end_lineno or node.lineno, path))

    visit(module.body, ())
    ends = [start for start, _ in starts[1:]] + [count]
    return [(start, end, path) for (start, path), end in zip(starts, ends, strict=True) if end > start]


def _blocks(lines: list[str], parts: list[Part]) -> Iterator[Block]:
    for first, end, path in parts:
        start = first
        for i in range(first, end + 1):
            cut = i == end or (i - start >= _LINES and not lines[i].strip())
            cut = cut or (not path and i > start and lines[i][:1].strip() != "" and not lines[i - 1].strip())
            if not cut:
                continue
            here = [n for n in range(start, i) if lines[n].strip()]
            if here:
                kept = lines[here[0] : here[-1] + 1]
                places = tuple(range(here[0] + 1, here[-1] + 2))
                yield Block("code", "\n".join(line.rstrip() for line in kept), places, path)
            start = i
