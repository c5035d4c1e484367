"""Parsing outside the kernel: one child process reads the files, bounded in time and memory.

What: documents come from strangers and PDF needs a native library, so files are parsed in a child with hard
    limits; parent and child speak JSON lines over two pipes (a path in, a document or an error out).
Invariant: whatever a file does to its parser (loops, eats memory, crashes it), the parent gets a DocumentError
    and the next file is parsed by a fresh child. A child lives for one mount: its start costs about 0.1 s.
Interface: `with DocumentReader() as reader: document = reader.read(path)`.
    Run as a module it is the child. Not thread-safe: one reader a thread.
"""

from __future__ import annotations

import json
import os
import resource
import select
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from llmos.abi.errors import DocumentError
from llmos.abi.limits import MAX_EXPANDED_BYTES, MAX_PARSE_BYTES, MAX_PARSE_SECONDS
from llmos.drivers.documents.document import Document, from_json, to_json

_MAX_REPLY = 4 * MAX_EXPANDED_BYTES  # bytes of JSON that the parent accepts


class DocumentReader:
    """Parses files one after another in a child process that is replaced whenever it fails."""

    def __init__(self, *, seconds: float = MAX_PARSE_SECONDS) -> None:
        self._seconds = seconds
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> DocumentReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()

    def read(self, path: Path) -> Document:
        """The document in the file; DocumentError for anything that is wrong with it."""
        try:
            reply = json.loads(self._ask(str(path.absolute()), path.name))
            if "error" in reply:
                what, why, do = reply["error"]
                raise DocumentError(what, why=why, do=do)
            return from_json(reply["document"])
        except (ValueError, TypeError, KeyError) as error:
            self.close()
            raise DocumentError(f"{path.name} broke its parser", why=f"a garbled answer ({error})") from None
        except BaseException as error:
            if not isinstance(error, DocumentError):
                self.close()  # an interrupted exchange must not be answered to the next file
            raise

    def _ask(self, request: str, name: str) -> bytes:
        child = self._child
        if child is None:
            child = self._child = _start()
        assert child.stdin is not None and child.stdout is not None
        out = child.stdout.fileno()
        deadline = time.monotonic() + self._seconds
        parts: list[bytes] = []
        size = 0
        try:
            child.stdin.write(json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            raise self._failed(name, "the parser process ended") from None
        while not (parts and parts[-1].endswith(b"\n")):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([out], [], [], left)[0]:
                raise self._failed(name, f"its parser ran longer than {self._seconds:.0f} s")
            part = os.read(out, 1 << 20)
            size += len(part)
            if not part:
                code = child.wait()
                raise self._failed(name, f"its parser ended with status {code}")
            if size > _MAX_REPLY:
                raise self._failed(name, "it holds too much text")
            parts.append(part)
        return b"".join(parts)

    def _failed(self, name: str, why: str) -> DocumentError:
        self.close()
        return DocumentError(
            f"{name} cannot be parsed", why=why, do="leave it out, or save it in another format"
        )


def _start() -> subprocess.Popen[bytes]:
    root = str(Path(__file__).parents[3])  # where `llmos` was imported from
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "llmos.drivers.documents.worker"],  # -P: no code from the current folder
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,  # a path is written at once, or the child is gone
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        start_new_session=True,  # Ctrl-C belongs to the parent, which then ends the child
    )


def _bound() -> None:
    """Hard limits of the child: memory, no files written, no core dump."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_PARSE_BYTES, MAX_PARSE_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """The child: a path a line on stdin, a JSON object a line on stdout, until stdin ends."""
    from llmos.drivers.documents.reading import read_document

    _bound()
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not become part of a reply
    for line in sys.stdin.buffer:
        path = Path(json.loads(line))
        reply: dict[str, object]
        try:
            reply = {"document": to_json(read_document(path))}
            data = json.dumps(reply).encode()
        except DocumentError as error:
            data = json.dumps({"error": [error.what, error.why, error.do]}).encode()
        except MemoryError:
            why = f"its parser needs more than {MAX_PARSE_BYTES >> 20} MiB"
            data = json.dumps({"error": [f"{path.name} cannot be parsed", why, "split the file"]}).encode()
        except Exception as error:  # any bug of any parser: the parent reports it
            why = f"its parser failed ({type(error).__name__}: {error})"
            data = json.dumps({"error": [f"{path.name} cannot be parsed", why, "leave it out"]}).encode()
        replies.write(data + b"\n")
        replies.flush()


if __name__ == "__main__":
    main()
