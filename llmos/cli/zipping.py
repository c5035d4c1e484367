"""`llmos zip` and `llmos unzip`: files made small by a model that expects what they say.

What: packs each file into one beside it, and back.
Invariant: a file appears whole or not at all, and nothing is replaced unless `--force` says so; what is packed stays.
Interface: `add`. What is in such a file, and why it comes back exactly, is in `llmos.kernel.learn.zipping`.
"""

from __future__ import annotations

import argparse
import json
import stat
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llmos.abi.errors import ZipError
from llmos.abi.limits import MAX_EXPANDED_BYTES
from llmos.cli import parser as options
from llmos.drivers.terminal import Bar, neutralise

if TYPE_CHECKING:
    from llmos.kernel.learn.zipping import Zipper

SUFFIX = ".llmz"
ZIP = """\
examples:
  llmos zip letter.txt --model smollm2-135m
  llmos zip chapters/*.md -o packed/

Text comes out at half of what xz makes of it, or less; a model reads a thousand bytes a second, or a few. The rest is
packed without the model. Unpacking needs the same model, on a processor of the same kind.
"""
UNZIP = """\
examples:
  llmos unzip letter.txt.llmz
  llmos unzip letter.txt.llmz -o copy.txt

The file says which model packed it; it is fetched if it is one of `llmos models list`.
"""


def add(verbs: options.Verbs[argparse.ArgumentParser]) -> None:
    """Registers the verbs."""
    parser = options.verb(verbs, "zip", "Make files small by what a model expects them to say.", ZIP)
    _shared(parser, f"where it goes, or a folder for several (default: FILE{SUFFIX})")
    parser.set_defaults(run=pack)
    parser = options.verb(verbs, "unzip", "Bring files back that `llmos zip` made small.", UNZIP)
    _shared(parser, f"where it goes, or a folder for several (default: FILE without {SUFFIX})")
    parser.set_defaults(run=unpack)


def _shared(parser: argparse.ArgumentParser, where: str) -> None:
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path, help="what to read")
    parser.add_argument("-o", "--out", metavar="OUT", type=Path, help=where)
    parser.add_argument("--force", action="store_true", help="replace what is there")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options.common(parser)


def pack(arguments: argparse.Namespace) -> int:
    """`llmos zip`."""
    targets = _targets(arguments, lambda file: file.with_name(file.name + SUFFIX))
    contents = [_read(file) for file in arguments.files]
    started, bar = time.monotonic(), Bar(sys.stderr)
    made = _zipper(arguments, None, bar).zip(contents, bar)
    bar.close()
    return _write(arguments, targets, contents, made, started)


def unpack(arguments: argparse.Namespace) -> int:
    """`llmos unzip`."""
    from llmos.kernel.learn.zipping import about

    targets = _targets(arguments, _without_suffix)
    files = [_read(file) for file in arguments.files]
    names = set()
    for path, file in zip(arguments.files, files, strict=True):
        try:
            names.add(about(file).model)
        except ZipError as error:
            raise ZipError(f"{path}: {error.what}", why=error.why, do=error.do) from None
    started, bar = time.monotonic(), Bar(sys.stderr)
    contents = _zipper(arguments, names.pop() if len(names) == 1 else None, bar).unzip(files, bar)
    bar.close()
    return _write(arguments, targets, files, contents, started)


def _zipper(arguments: argparse.Namespace, made_with: str | None, bar: Bar) -> Zipper:
    """With the model that the user names, else the one that a file names if the catalogue has it, else the
    configured one."""
    from llmos.connect import load_config
    from llmos.drivers.weights.catalogue import catalogue
    from llmos.kernel.learn.zipping import zipper

    model = arguments.model or (made_with if made_with in catalogue() else None)
    return zipper(load_config(arguments.config, model=model), bar)


def _targets(arguments: argparse.Namespace, beside: Callable[[Path], Path]) -> list[Path]:
    """Where each file's result goes; nothing is read before all of them are free."""
    out: Path | None = arguments.out
    if out is None:
        targets = [beside(file) for file in arguments.files]
    elif out.is_dir():
        targets = [out / beside(file).name for file in arguments.files]
    elif len(arguments.files) > 1:
        raise ZipError(
            f"{out} is no folder", why=f"{len(arguments.files)} files cannot go into one", do=f"mkdir {out}"
        )
    else:
        targets = [out]
    for target in targets:
        if targets.count(target) > 1:
            raise ZipError(f"two files would go to {target}", do="pack them one by one")
        if not target.parent.is_dir():
            raise ZipError(f"there is no folder {target.parent}", do="make it, or choose another")
        if target.exists() and not (arguments.force and target.is_file()):
            raise ZipError(
                f"{target} is there already",
                why="nothing is replaced unasked",
                do="name another with -o, or --force",
            )
    return targets


def _without_suffix(file: Path) -> Path:
    if file.suffix != SUFFIX or file.name == SUFFIX:
        raise ZipError(
            f"{file} does not end in {SUFFIX}", why="so its own name is not known", do="say where: -o OUT"
        )
    return file.with_suffix("")


def _read(file: Path) -> bytes:
    try:
        state = file.stat()
        if not stat.S_ISREG(state.st_mode):
            raise ZipError(
                f"{file} is no file", why="folders and devices are not packed", do="pack them with tar first"
            )
        if state.st_size > 2 * MAX_EXPANDED_BYTES:
            raise ZipError(
                f"{file} has {state.st_size >> 20} MiB", why="a model would read for days", do="use xz"
            )
        return file.read_bytes()
    except OSError as error:
        raise ZipError(
            f"{file} cannot be read", why=error.strerror or str(error), do="check the path"
        ) from None


def _write(
    arguments: argparse.Namespace,
    targets: Sequence[Path],
    read: Sequence[bytes],
    made: Sequence[bytes],
    started: float,
) -> int:
    """The results into their places, and what they came to onto stdout."""
    from llmos.drivers.whole import write_whole

    rows = []
    for source, target, before, after in zip(arguments.files, targets, read, made, strict=True):
        write_whole(target, after)
        target.chmod(stat.S_IMODE(source.stat().st_mode))
        rows.append({"file": str(source), "out": str(target), "bytes": len(before), "made": len(after)})
    if arguments.json:
        print(json.dumps({"files": rows, "seconds": round(time.monotonic() - started, 3)}))
        return 0
    for row, before, after in zip(rows, read, made, strict=True):
        share = f" ({len(after) / len(before):.1%})" if before else ""
        print(neutralise(f"{row['out']}: {len(before):,} bytes became {len(after):,}{share}"))
    return 0
