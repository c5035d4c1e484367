"""What a machine's processes read from: its volumes and its notes.

What: opens each when it is first wanted, over one encoder.
Invariant: a volume is open once, whoever mounted it. Mounting may fetch the encoder; asking never does.
Interface: `Library(config, progress)`: `mount`, `search`, `likely`, `size`, `passages`, `named`,
    `notes`, `encoder`, `encode`, `close`.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from llmos.abi.errors import LLMOSError
from llmos.abi.mount import Mount
from llmos.abi.progress import Progress, silent

if TYPE_CHECKING:
    from llmos.abi.config import Config
    from llmos.memory.embedding import Encoder
    from llmos.memory.history import Encode
    from llmos.memory.notes import Notes
    from llmos.memory.together import Together
    from llmos.memory.volume import Passage, Volume


LOOKED_AT = 256  # passages that are read together


class Library:
    """Of one kernel; closed with it."""

    def __init__(self, config: Config, progress: Progress = silent) -> None:
        self._config, self._progress = config, progress
        self._volumes: dict[Path, Volume] = {}
        self._asked: WeakValueDictionary[tuple[tuple[Volume, ...], int], Together[str, list[Passage]]]
        self._asked = WeakValueDictionary()
        self._lock = threading.Lock()

    @cached_property
    def encoder(self) -> Encoder:
        """The sentence encoder; loaded, and fetched, on first use."""
        return self._encoder(fetch=True)

    @cached_property
    def encode(self) -> Encode | None:
        """Vectors of short texts, where the encoder is on this machine: nobody waits for a download."""
        try:
            if "encoder" not in self.__dict__:
                self.__dict__["encoder"] = self._encoder(fetch=False)
            return self.encoder.encode
        except LLMOSError:
            return None

    @cached_property
    def notes(self) -> Notes:
        """What processes keep for later ones."""
        from llmos.memory.notes import Notes

        return Notes(self._config.machine.state / "notes.sqlite", lambda: self.encode)

    def mount(self, mount: Mount, progress: Progress | None = None) -> Volume:
        """The volume of `mount`, brought up to date with its files."""
        from llmos.memory.volume import Volume

        path = mount.path.resolve()
        with self._lock:
            volume = self._volumes.get(path)
            if volume is None:
                volume = Volume.open(self._config.machine.state / "volumes" / volume_name(path), self.encoder)
                self._volumes[path] = volume
        volume.mount(path, label=mount.label, progress=progress or self._progress)
        return volume

    def search(self, question: str, mounts: Sequence[Mount], k: int) -> list[Passage]:
        """The `k` best passages of what is mounted there. Questions that come together are asked together."""
        from llmos.memory.together import Together
        from llmos.memory.volume import search

        volumes = tuple(self._volume(mount) for mount in mounts)
        with self._lock:  # it lives as long as somebody asks there
            together = self._asked.setdefault((volumes, k), Together(lambda some: search(volumes, some, k=k)))
        return together.ask(question)

    def likely(self, mounts: Sequence[Mount], questions: Sequence[str], k: int) -> Iterator[Passage]:
        """All passages of these mounts, each once: those that questions like these find, by how often and how early;
        then the beginnings of the documents, then what follows."""
        from llmos.memory.volume import search

        volumes = [self._volume(mount) for mount in mounts]
        found: dict[tuple[int, int], Passage] = {}
        worth: dict[tuple[int, int], float] = {}
        for answers in search(volumes, questions, k=k):
            for place, p in enumerate(answers):
                key = p.volume, p.chunk_id
                found[key], worth[key] = p, worth.get(key, 0.0) + 1 / (place + 1)
        yield from (found[key] for key in sorted(found, key=lambda key: (-worth[key], key)))
        for number, volume in enumerate(volumes):
            for start in range(0, len(volume), LOOKED_AT):
                for passage in volume.beginnings(start, LOOKED_AT):
                    if (number, passage.chunk_id) not in found:
                        yield replace(passage, volume=number)

    def size(self, mount: Mount) -> int:
        """Passages of a mount."""
        return len(self._volume(mount))

    def passages(self, mount: Mount, ids: Sequence[int]) -> list[Passage]:
        """Passages of a mount by their numbers there."""
        return self._volume(mount).passages(ids)

    def named(self, mounts: Sequence[Mount], reference: str) -> list[Passage]:
        """The passages of a document by its name, or the one at a position of it: `leave.md, lines 3-9`."""
        return [p for mount in mounts for p in self._volume(mount).named(reference)]

    def close(self) -> None:
        """Let go of the files. Idempotent."""
        for volume in self._volumes.values():
            volume.close()
        self._volumes.clear()
        if "notes" in self.__dict__:
            self.notes.close()

    def _volume(self, mount: Mount) -> Volume:
        return self._volumes.get(mount.path.resolve()) or self.mount(mount, silent)

    def _encoder(self, fetch: bool) -> Encoder:
        from llmos.drivers.weights import find
        from llmos.memory.embedding import Encoder

        name, cache = self._config.memory.encoder, self._config.machine.cache
        files = find(name, fetch=fetch, progress=self._progress, cache=cache)
        return Encoder.load(files.path, files.folder / "tokenizer.json")


def volume_name(path: Path) -> str:
    """The folder of a volume: readable, and one for each path."""
    slug = re.sub(r"[^a-z0-9]+", "-", path.name.lower()).strip("-")[:40] or "root"
    return f"{slug}-{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
