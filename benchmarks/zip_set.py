"""Files to zip: English text, and a thousand small files of every kind.

What: `texts(quick)`, stretches of prose by name; `files(count)`, small files among which are programs, pictures, packed
    and broken ones, other encodings, and texts that spell a model's control tokens.
Invariant: both are functions of the documents and of a seed.
Interface: as above. What the texts need is in `benchmarks.texts`.
"""

from __future__ import annotations

import gzip
import json
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from benchmarks.figures import Progress
from benchmarks.texts import texts as corpora
from llmos.drivers import cpu
from llmos.drivers.cpu.build import library_path

ROOT = Path(__file__).resolve().parents[1]
QUICK, FULL = 6 << 10, 64 << 10  # bytes of each text
SPELLED = "<|im_end|>\n<|im_start|>system\n<tool_call>{}</tool_call><|endoftext|> 日本語 café cafe\u0301 👩‍👩‍👧‍👦\r\n\t"


def texts(quick: bool, progress: Progress) -> dict[str, bytes]:
    """Prose by name: a manual and an encyclopaedia, which models may have read, and our own, which they have not.

    Raises:
        DocumentError: a package of documents is not installed, or cannot be fetched.
    """
    size = QUICK if quick else FULL
    _, policy, summaries = (Path(path) for path in corpora(progress))
    own = "\n\n".join(p.read_text() for p in sorted((ROOT / "docs").glob("*.md")))
    whole = {"manual": _texts(policy), "wiki": _texts(summaries), "own": [own]}
    return {name: "\n\n".join(parts).encode()[:size] for name, parts in whole.items()}


def _texts(file: Path) -> list[str]:
    """The documents of a file in an order of chance: the first are much alike."""
    found = [json.loads(line)["text"] for line in file.read_text().splitlines()]
    random.Random(0).shuffle(found)
    return found


def files(count: int) -> list[bytes]:
    """Small files: some bytes to some thousand."""
    random_ = random.Random(20240607)
    source = b"\n".join(p.read_bytes() for p in sorted((ROOT / "kernel").glob("*.py")))
    prose = b"\n".join(p.read_bytes() for p in sorted((ROOT / "docs").glob("*.md")))
    program = library_path().read_bytes() if cpu.available() else zlib.compress(source)

    def cut(data: bytes, size: int) -> bytes:
        at = random_.randrange(max(1, len(data) - size))
        return data[at : at + size]

    def picture(size: int) -> bytes:
        width = max(1, int((size / 3) ** 0.5))
        rows = b"".join(b"\0" + bytes(x * y % 256 for x in range(width * 3)) for y in range(width))
        chunks = [
            (b"IHDR", struct.pack(">2I5B", width, width, 8, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(rows)),
        ]
        made = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
        return b"\x89PNG\r\n\x1a\n" + b"".join(made)

    def damaged(size: int) -> bytes:
        data = bytearray(cut(prose, size))
        for _ in range(1 + len(data) // 200):
            data[random_.randrange(len(data))] = random_.randrange(256)
        return bytes(data)

    kinds: list[Callable[[int], bytes]] = [
        lambda size: cut(prose, size),
        lambda size: cut(prose, size),
        lambda size: cut(source, size),
        lambda size: cut(program, size),
        damaged,
        picture,
        random_.randbytes,
        lambda size: gzip.compress(cut(prose, size), mtime=0),
        lambda size: cut(prose, size).decode("utf-8", "ignore").encode("utf-16"),
        lambda size: cut(prose, size).decode("utf-8", "ignore").encode("latin-1", "replace"),
        lambda size: (SPELLED * (1 + size // len(SPELLED))).encode()[:size],
        lambda size: bytes((random_.randrange(256),)) * size,
        lambda size: json.dumps([random_.random() for _ in range(size // 20)]).encode(),
        lambda size: cut(source, size) + cut(program, size // 2) + cut(prose, size // 4),
    ]
    sizes = [0, 1, 2, 3, *(int(random_.lognormvariate(5.6, 1.0)) + 1 for _ in range(count))]
    return [kinds[i % len(kinds)](min(size, 8192)) if size else b"" for i, size in enumerate(sizes[:count])]
