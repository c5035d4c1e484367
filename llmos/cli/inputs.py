"""What the command line takes in: the question, what is piped, the mounts.

What: checks them before anything heavy is loaded, so that a typing mistake is told at once.
Invariant: text is valid UTF-8 from here on; a mount exists.
Interface: `full_question(text)`, `mount_list(paths, trust, config)`.
"""

from __future__ import annotations

import dataclasses
import os
import stat
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmos.abi.errors import DocumentError, TurnRefused
from llmos.abi.limits import MAX_DOCUMENT_BYTES
from llmos.abi.mount import Mount, Trust

if TYPE_CHECKING:
    from llmos.abi.config import Config


def full_question(question: str) -> str:
    """The question, with what was piped in below it."""
    question = clean_text(question)
    piped = _piped()
    if question == "-":
        question, piped = piped, ""
    if not question.strip():
        raise TurnRefused("the question is empty", do='write it in quotes: llmos ask "..."')
    return f"{question}\n\n{piped}" if piped.strip() else question


def clean_text(text: str) -> str:
    """`text`, if the shell handed over valid UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise TurnRefused(
            "the question is not UTF-8",
            why="it holds bytes that are not text",
            do="check the terminal's encoding",
        ) from None
    return text


def _piped() -> str:
    """What a pipe or a file on stdin holds; a terminal, /dev/null or a closed stdin holds nothing."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError):  # no stdin, or one that a program has replaced
        return ""
    if not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)):
        return ""
    data = sys.stdin.buffer.read(MAX_DOCUMENT_BYTES + 1)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise DocumentError(
            f"more than {MAX_DOCUMENT_BYTES >> 20} MiB were piped in",
            why="that does not fit any window",
            do="put it into a file and --mount it",
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DocumentError(
            "what was piped in is not UTF-8",
            why=f"byte 0x{data[error.start]:02x} at offset {error.start} cannot be decoded",
            do="convert it to text first",
        ) from None


def mount_list(paths: Sequence[str], trust: Trust | None, config: Config) -> list[Mount]:
    """The mounts of the command line: names of configured volumes first, then paths."""
    mounts = []
    for path in paths:
        volume = config.memory.volumes.get(path)
        mount = volume.mount() if volume else Mount(path)  # type: ignore[arg-type]  # Mount makes it a Path
        if trust:
            mount = dataclasses.replace(mount, trust=trust)
        if not mount.path.exists():
            names = ", ".join(config.memory.volumes) or "none"
            raise DocumentError(
                f"nothing to mount at {mount.path}",
                why="there is no such file or folder",
                do=f"check the path; the volumes of llmos.yaml are: {names}",
            )
        mounts.append(mount)
    return mounts
