"""Documents of an expert that lie on the network.

What: fetches them into the state folder, and again when they are older than `refresh` says.
Invariant: what is fetched is anybody's words (`shared`), and it is fetched as the browser fetches: no address inside
    of the machine or its network is reached. What was fetched once is used while the network is away.
Interface: `fetched(knowledge, state) -> folder`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llmos.apps.experts.errors import KnowledgeGone

if TYPE_CHECKING:
    from llmos.apps.experts.manifest import Knowledge


def fetched(knowledge: Knowledge, state: Path) -> Path:
    """The folder that holds the document of that address.

    Raises:
        KnowledgeGone: it was never fetched, and cannot be now.
    """
    raise KnowledgeGone(
        f"{knowledge.path} cannot be fetched", why="this version has no fetcher",
        do="download it, and name the file under `knowledge:`",
    )  # fmt: skip
