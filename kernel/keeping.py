"""What becomes of the pictures and files that a call returns: they are kept in the caller's working volume.

What: writes them there, and says in words what was kept, under which name.
Invariant: nothing outside of the working volume is written, and nothing in it is replaced: a name that is taken gets
    a number. What a model or an app calls a file is a wish; what the file is called is said in the result.
Interface: `keep(parts, folder, call) -> (text, names)`; blocks.
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from llmos.abi.app import File, Image, Part, Text
from llmos.abi.errors import AppError, DiskFull
from llmos.drivers.beneath import Beneath, numbered

_UNSAFE = re.compile(r"[^\w.+ -]+")


def keep(parts: Sequence[Part], folder: Path, call: int) -> tuple[str, tuple[str, ...]]:
    """The words of a result, and the names, in `folder`, of what was kept of it; what could not be is told in words."""
    words, names = list[str](), list[str]()
    with Beneath(folder) as volume:
        for part in parts:
            if isinstance(part, Text):
                words.append(part.text)
                continue
            kind = "image" if isinstance(part, Image) else "file"
            about = f"{part.mime}, {len(part.data)} bytes"
            try:
                tries = numbered(_wished(part, call), "{stem}-{n}{suffix}")
                name = next(tried for tried in tries if volume.look(tried) is None)
                volume.write(name, part.data)
            except (AppError, DiskFull) as error:
                words.append(f"[{kind} lost: {about}; {error}]")
            else:
                words.append(f"[{kind} saved as {name}: {about}]")
                names.append(name)
    return "\n".join(words), tuple(names)


def _wished(part: Image | File, call: int) -> str:
    """What a part would be called, made harmless."""
    if isinstance(part, File):
        name = _UNSAFE.sub("_", PurePosixPath(part.name).name).strip(" .")[:100]
        return name or f"file-{call}"
    return f"image-{call}{mimetypes.guess_extension(part.mime) or '.bin'}"
