"""Documents of an expert that lie on the network.

What: fetches them into the state folder, and again when they are older than `refresh` says.
Invariant: what is fetched is anybody's words (`shared`), and it is fetched as the browser fetches: no address inside
    of the machine or its network is reached unless its owner allows it. What was fetched once is used while the
    network is away.
Interface: `fetched(knowledge, state, allow) -> folder`; `allowed(config)`, what the browser may reach beside the web.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llmos.abi.errors import LLMOSError
from llmos.apps.experts.errors import KnowledgeGone
from llmos.apps.experts.manifest import REFRESH_S
from llmos.drivers.whole import write_whole

if TYPE_CHECKING:
    from llmos.abi.config import Config
    from llmos.apps.experts.manifest import Knowledge

SUFFIXES = {
    "text/html": ".html", "application/xhtml+xml": ".html", "text/plain": ".txt", "text/markdown": ".md",
    "application/pdf": ".pdf", "text/csv": ".csv", "application/json": ".json", "application/epub+zip": ".epub",
}  # fmt: skip


def fetched(knowledge: Knowledge, state: Path, allow: Sequence[str] = ()) -> Path:
    """The folder that holds the document of that address.

    Raises:
        KnowledgeGone: it was never fetched, and cannot be now.
    """
    folder = state / "fetched" / hashlib.sha256(knowledge.path.encode()).hexdigest()[:16]
    kept = sorted(folder.glob("page.*"))
    oldest = REFRESH_S[knowledge.refresh]
    if kept and (oldest is None or time.time() - kept[0].stat().st_mtime < oldest):
        return folder
    try:
        name, data = asyncio.run(_get(knowledge.path, allow))
    except (LLMOSError, ImportError) as error:
        if kept:
            return folder
        missing = isinstance(error, ImportError)
        raise KnowledgeGone(
            f"{knowledge.path} cannot be fetched", why=str(error),
            do="pip install 'llmos[browser]'" if missing else "try again later, or download it and name the file",
        ) from None  # fmt: skip
    write_whole(folder / name, data)
    for old in kept:
        if old.name != name:
            old.unlink()
    return folder


async def _get(url: str, allow: Sequence[str]) -> tuple[str, bytes]:
    from llmos.drivers.web.addresses import Gate
    from llmos.drivers.web.fetch import Client

    client = Client(Gate(allow))
    try:
        got = await client.get(url)
    finally:
        await client.aclose()
    return "page" + SUFFIXES.get(got.mime, Path(got.address.url).suffix[:8] or ".html"), got.data


def allowed(config: Config) -> tuple[str, ...]:
    """What the owner lets the browser reach beside the public web."""
    browser = config.apps.get("browser")
    return tuple(browser.settings.get("allow", ())) if browser is not None else ()
