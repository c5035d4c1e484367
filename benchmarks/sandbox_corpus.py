"""Hostile programs: what code in a sandbox may try.

What: reads `sandbox_corpus.yaml`, which says what each tries and how it is known to have got it.
Invariant: titles are unique. None of them does harm where it is run outside of a sandbox, where `bare` is set.
Interface: `SNIPPETS`, `KINDS`; `Snippet`; `PRELUDE`, what stands before each program in Python.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

PRELUDE = """
import ctypes, errno, json, mmap, os, resource, signal, socket, struct, subprocess, sys, tempfile, threading, time
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(number, *arguments):
    return libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
def got(what, result):
    if result is not None and result >= 0: print("ESCAPED:", what, result)
def attempt(work):
    try: return work()
    except OSError: return None
"""


@dataclass(frozen=True, slots=True)
class Snippet:
    """One program; `bare`: root gets what it wants by it, without harm, where there is no sandbox."""

    kind: str
    name: str
    language: str
    code: str
    bare: bool

    @property
    def title(self) -> str:
        """Kind and name."""
        return f"{self.kind}: {self.name}"


def _read() -> Iterator[Snippet]:
    for kind, programs in yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text()).items():
        for name, program in programs.items():
            language = "bash" if "bash" in program else "python"
            yield Snippet(kind, name, language, program[language], program.get("bare", False))


SNIPPETS = tuple(_read())
KINDS = tuple(dict.fromkeys(snippet.kind for snippet in SNIPPETS))
