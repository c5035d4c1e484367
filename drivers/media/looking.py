"""What a model that sees pictures has to do, wherever it runs.

What: the interface between `eyes.ask` and a vision-language model.
Invariant: the picture goes to that model and nowhere else; what it answers is as untrusted as the picture.
Interface: `Looker`; a driver of remote models implements it, `Eyes(looker=...)` uses it.
"""

from __future__ import annotations

from typing import Protocol

from llmos.abi.app import Image


class Looker(Protocol):
    """A vision-language model."""

    @property
    def name(self) -> str:
        """What answers call it."""
        ...

    def look(self, image: Image, question: str) -> str:
        """The answer to a question about a picture; raises an AppError where there is none."""
        ...
