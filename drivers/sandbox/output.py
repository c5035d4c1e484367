"""What a program prints, kept within bounds and harmless to look at.

What: keeps head and tail of a stream, and makes text that cannot mislead its reader.
Invariant: memory does not grow with what is printed; what is left out is counted and said. Text that comes from here
    has no control characters but newline and tab, no surrogates, no signs that turn the direction of writing.
Interface: `Clip(limit)`: `feed`, `text`; `clean(text)`.
"""

from __future__ import annotations

from llmos.drivers.terminal import neutralise


def clean(text: str) -> str:
    """`text` as a reader may see it: controls made visible, what is not Unicode replaced."""
    whole = text.encode("utf-8", "replace").decode()
    return neutralise(whole.replace("\r\n", "\n").replace("\r", "\n"))


class Clip:
    """The head and the tail of a stream of bytes: at most `limit` bytes, half of them each."""

    def __init__(self, limit: int) -> None:
        self.size = 0
        self._half = max(limit // 2, 1)
        self._head, self._tail = bytearray(), bytearray()

    def feed(self, data: bytes) -> None:
        """What was printed next."""
        self.size += len(data)
        room = self._half - len(self._head)
        self._head += data[:room]
        self._tail += data[room:] if room > 0 else data
        del self._tail[: -self._half]

    @property
    def left_out(self) -> int:
        """Bytes that were printed and are not kept."""
        return self.size - len(self._head) - len(self._tail)

    @property
    def text(self) -> str:
        """What is kept, with a line in the middle that says how much is not."""
        if not self.left_out:
            return clean((self._head + self._tail).decode(errors="replace"))
        head, tail = (part.decode(errors="replace") for part in (self._head, self._tail))
        return clean(f"{head}\n[{self.left_out} bytes left out]\n{tail}")
