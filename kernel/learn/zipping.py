"""Lossless compression by a model: what it expects costs nothing to say.

What: `zip` and `unzip` of any bytes. Text is cut into the model's tokens, and each is coded in as many bits as the
    model is surprised by it; what is no text, and text that LZMA packs better, is stored as bytes (`plainbytes`).
Invariant: `unzip` gives the very bytes (their sha256 is in the file) or raises ZipError. A file says which weights,
    numeric mode and kernels it was made with; others would expect something else, and are refused. Long texts are
    coded in stretches that do not see each other, so that they are read side by side; many files are too.
Interface: `Zipper(reader, tokenizer, name)`: `.zip(contents)`, `.unzip(files)`; `zipper(config, …)`; `about(file)`.

The file: `LLMZ`, a byte of version; then, numbers in 7-bit groups and texts behind their lengths, the model's name, the
identity, window, overlap, size, sha256, and the blocks: a byte for the way, the size, and what is stored; for a way of
the model, how many stretches, each one's tokens and coded bytes. Last a CRC-32 of all before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from typing import TYPE_CHECKING
from zlib import crc32

from llmos.abi.errors import ZipError
from llmos.abi.limits import MAX_EXPANDED_BYTES
from llmos.abi.progress import Progress, silent
from llmos.kernel.learn import plainbytes
from llmos.kernel.learn.blocks import Block, cut, spelled, start
from llmos.kernel.learn.stretches import Plan, Reader, Reading, Writing

if TYPE_CHECKING:
    from llmos.abi.config import Config
    from llmos.drivers.weights import Tokenizer

MAGIC, VERSION = b"LLMZ", 1
MODEL = 3  # the way of a block beside those of `plainbytes`
WINDOW = 1024  # tokens that the model sees
OVERLAP = 512  # of which so many stay when a window is full
STRETCH = 2048  # tokens, about: text is cut into stretches of this length


@dataclass(frozen=True, slots=True)
class About:
    """What a file says of itself."""

    model: str
    identity: str
    window: int
    overlap: int
    size: int
    sha256: bytes


class Zipper:
    """Zips with one model."""

    def __init__(
        self, reader: Reader, tokenizer: Tokenizer, name: str, *, window: int = WINDOW, overlap: int = OVERLAP,
        stretch: int = STRETCH,
    ) -> None:  # fmt: skip
        """`name` is for people: what the model is called. The reader holds windows of `window` tokens or more."""
        self._reader, self._tokenizer, self._name = reader, tokenizer, name
        self._plan = Plan(start(tokenizer), window, overlap)
        self._stretch = stretch

    @property
    def identity(self) -> str:
        """Of weights, numeric mode and kernels: what a file must be read with."""
        return self._reader.identity

    def zip(self, contents: Sequence[bytes], progress: Progress = silent) -> list[bytes]:
        """A file for each of `contents`.

        Raises:
            ZipError: one is too large.
        """
        for data in contents:
            if len(data) > MAX_EXPANDED_BYTES:
                raise _too_large(len(data))
        cuts = [cut(data, self._tokenizer) for data in contents]
        writings = [[self._writings(block) for block in blocks] for blocks in cuts]
        flat = [w for blocks in writings for block in blocks for w in block]
        self._reader.read(flat, _watched(progress, "zipping", sum(w.count for w in flat)))
        return [
            self._file(data, blocks, written)
            for data, blocks, written in zip(contents, cuts, writings, strict=True)
        ]

    def unzip(self, files: Sequence[bytes], progress: Progress = silent) -> list[bytes]:
        """What each of `files` was made of.

        Raises:
            ZipError: one is damaged, no such file, or made with other weights, numerics or kernels.
        """
        opened = [self._open(file) for file in files]
        flat = [r for _, blocks in opened for block in blocks for r in block.readings]
        self._reader.read(flat, _watched(progress, "unzipping", sum(r.count for r in flat)))
        return [self._content(about, blocks) for about, blocks in opened]

    # -- writing -----------------------------------------------------------------------------------------------

    def _writings(self, block: Block) -> list[Writing]:
        tokens = block.tokens
        count = max(1, round(len(tokens) / self._stretch))
        ends = [len(tokens) * i // count for i in range(count + 1)]
        return [Writing(list(tokens[a:b]), self._plan) for a, b in pairwise(ends) if a < b]

    def _file(self, data: bytes, blocks: Sequence[Block], written: Sequence[Sequence[Writing]]) -> bytes:
        out = bytearray(MAGIC)
        out.append(VERSION)
        for text in (self._name, self.identity):
            encoded = text.encode()
            out += _number(len(encoded)) + encoded
        out += _number(self._plan.window) + _number(self._plan.overlap) + _number(len(data))
        out += sha256(data).digest() + _number(len(blocks))
        for block, writings in zip(blocks, written, strict=True):
            way, stored = plainbytes.pack(block.data)
            stored = _number(len(stored)) + stored
            if writings:
                coded = [(w.count, w.finish()) for w in writings]
                by_model = _number(len(coded)) + b"".join(
                    _number(count) + _number(len(c)) + c for count, c in coded
                )
                if len(by_model) < len(stored):
                    way, stored = MODEL, by_model
            out += bytes((way,)) + _number(len(block.data)) + stored
        return bytes(out + crc32(out).to_bytes(4))

    # -- reading -----------------------------------------------------------------------------------------------

    def _open(self, file: bytes) -> tuple[About, list[_Stored]]:
        fields = _Fields(file)
        about = fields.about()
        if about.identity != self.identity:
            raise ZipError(
                f"it was zipped with other weights or kernels: {about.model} ({about.identity})",
                why=f"what runs here is {self._name} ({self.identity}), which expects other words",
                do=f"unzip it with --model {about.model}, the same `kernel.numerics`, and the same kind of processor",
            )
        plan = Plan(self._plan.start, about.window, about.overlap)
        if plan.window > self._reader.window:
            raise ZipError(f"it wants windows of {plan.window} tokens", why=f"here is {self._reader.window}")
        blocks, left = [], about.size
        for _ in range(fields.number(len(file))):
            block = fields.block(left, plan)
            blocks.append(block)
            left -= block.size
        if left or fields.left:
            raise _damaged("its blocks do not add up to its size")
        return about, blocks

    def _content(self, about: About, blocks: Sequence[_Stored]) -> bytes:
        data = bytearray()
        for block in blocks:
            if block.readings:
                data += spelled([t for r in block.readings for t in r.tokens], self._tokenizer)
            else:
                data += plainbytes.unpack(block.way, block.stored, block.size)
        if sha256(data).digest() != about.sha256:
            raise ZipError(
                "what came out is not what went in",
                why="the file is whole, so the model's figures are not those that it was zipped with: another "
                "processor, or another version of a library",
                do="unzip it on a machine like the one that zipped it",
            )
        return bytes(data)


@dataclass(frozen=True, slots=True)
class _Stored:
    """A block of a file."""

    way: int
    size: int
    stored: bytes
    readings: Sequence[Reading]


class _Fields:
    """A file's bytes, taken from the front; ZipError where they are not what was written."""

    def __init__(self, file: bytes) -> None:
        if not file.startswith(MAGIC):
            raise ZipError("it is no file of `llmos zip`", why="it begins otherwise")
        if len(file) < len(MAGIC) + 5 or crc32(file[:-4]) != int.from_bytes(file[-4:]):
            raise _damaged("its checksum is wrong")
        if file[len(MAGIC)] != VERSION:
            raise ZipError(
                f"it is of format {file[len(MAGIC)]}", why=f"this version of llmos reads {VERSION}",
                do="unzip it with the version of llmos that made it",
            )  # fmt: skip
        self._file, self._at = memoryview(file)[:-4], len(MAGIC) + 1

    @property
    def left(self) -> int:
        """How many bytes have not been taken."""
        return len(self._file) - self._at

    def number(self, most: int) -> int:
        """A number that is not larger than `most`."""
        value = 0
        for shift in range(0, 63, 7):
            byte = self.bytes(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
        if value > most:
            raise _damaged(f"it says {value} where {most} is the most")
        return value

    def bytes(self, count: int) -> bytes:
        """The next so many bytes."""
        if count > self.left:
            raise _damaged("it ends too early")
        self._at += count
        return bytes(self._file[self._at - count : self._at])

    def text(self) -> str:
        """A text behind its length."""
        return self.bytes(self.number(self.left)).decode("utf-8", "replace")

    def about(self) -> About:
        """The header."""
        model, identity = self.text(), self.text()
        window, overlap, size = self.number(1 << 24), self.number(1 << 24), self.number(1 << 62)
        if size > MAX_EXPANDED_BYTES:
            raise _too_large(size)
        return About(model, identity, window, overlap, size, self.bytes(32))

    def block(self, most: int, plan: Plan) -> _Stored:
        """The next block, of at most so many bytes when it is read."""
        (way,), size = self.bytes(1), self.number(most)
        if way != MODEL:
            return _Stored(way, size, self.bytes(self.number(self.left)), ())
        readings: list[Reading] = []
        left = size  # a token spells a byte at least
        for _ in range(self.number(size)):
            count = self.number(left)
            readings.append(Reading(self.bytes(self.number(self.left)), count, plan))
            left -= count
        return _Stored(way, size, b"", readings)


def about(file: bytes) -> About:
    """What a file says of itself, before a model is loaded.

    Raises:
        ZipError: it is damaged, or no file of ours.
    """
    return _Fields(file).about()


def zipper(config: Config, progress: Progress = silent) -> Zipper:
    """A zipper with the model, numerics and pool that a configuration names.

    Raises:
        WeightsError: the model cannot be found, fetched or read.
        EngineError: its windows do not fit, or this device is not suited.
    """
    from llmos.drivers.weights import find, open_weights
    from llmos.kernel.boot import prepare_jax
    from llmos.kernel.model.load import load_model

    weights = open_weights(find(config.kernel.model, progress=progress, cache=config.machine.cache))
    prepare_jax(config)

    def loading(done: int, total: int) -> None:
        progress("loading weights", done, total, "bytes")

    model = load_model(weights, mode=config.kernel.numerics, window=WINDOW, progress=loading)
    window = min(WINDOW, model.config.context)
    reader = Reader(model, window=window, pool=config.kernel.pool)
    return Zipper(
        reader, weights.tokenizer(), weights.files.name, window=window, overlap=min(OVERLAP, window // 2)
    )


def _watched(progress: Progress, task: str, total: int) -> Callable[[int], None]:
    """Tells `progress` how many of `total` tokens are coded."""
    done = 0

    def coded(count: int) -> None:
        nonlocal done
        done += count
        progress(f"{task} (tokens)", done, total)

    return coded


def _number(value: int) -> bytes:
    """A number in groups of 7 bits, the lowest first, each but the last with its high bit set."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _damaged(why: str) -> ZipError:
    return ZipError("the file is damaged", why=why, do="get it again")


def _too_large(size: int) -> ZipError:
    return ZipError(
        f"{size >> 20} MiB are too much", why=f"at most {MAX_EXPANDED_BYTES >> 20} MiB are zipped by a model",
        do="use another program: a model reads a thousand bytes a second, or a few",
    )  # fmt: skip
