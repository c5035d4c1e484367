"""Files that pages hand out, in the caller's working volume.

What: bytes under a name of the web's choosing, made safe; what Chromium has downloaded.
Invariant: a file goes to the working volume, under a name that leads nowhere and that nothing had, or nowhere.
Interface: `keep(volume, name, data)`, `await downloaded(tab, volume)`, `safe_name`, `last_name`; `MAX_FILE`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from itertools import islice
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from llmos.abi.errors import AppError
from llmos.drivers.beneath import Beneath, numbered
from llmos.drivers.web.errors import DownloadFailed
from llmos.drivers.web.pages import Tab

MAX_FILE = 64 << 20  # bytes of a file that is kept


def last_name(url: str) -> str:
    return unquote(PurePosixPath(urlsplit(url).path).name) or "download"


def safe_name(name: str) -> str:
    """A file's name that leads nowhere: letters, digits and little else, not hidden, not too long."""
    name = re.sub(r"[^\w .()+-]", "_", name.replace("\\", "/").rpartition("/")[2]).strip(" .")
    stem, dot, suffix = name.rpartition(".")
    name = f"{stem[:80]}{dot}{suffix[:16]}" if dot else name[:96]
    return name or "download"


def keep(volume: Path | None, name: str, data: bytes) -> str:
    """Put a file into the working volume under a name that is free."""
    if volume is None:
        raise DownloadFailed(f"{name} cannot be kept", why="this process has no working volume")
    name = safe_name(name)
    with Beneath(volume) as files:
        for free in islice(numbered(name, "{stem} ({n}){suffix}"), 999):
            if files.look(free) is None:
                files.write(free, data)
                return free
    raise DownloadFailed(f"{name} cannot be kept", why="a thousand files of that name are there")


async def downloaded(tab: Tab, volume: Path | None) -> list[str]:
    """What the page in a tab handed out, put into the working volume: a line on each."""
    said = []
    for download in tab.downloads[:4]:
        name = download.suggested_filename
        try:
            async with asyncio.timeout(30):
                path = await download.path()
            size = Path(path).stat().st_size
            if size > MAX_FILE:
                raise DownloadFailed(f"{name} has {size} bytes", why=f"at most {MAX_FILE} are kept")
            kept = keep(volume, name, await asyncio.to_thread(Path(path).read_bytes))
            said.append(f"a file was kept in the working volume as {kept} ({size} bytes)")
        except (AppError, TimeoutError) as error:
            said.append(f"the file {name!r} was not kept: {error or 'it did not finish in time'}")
        except Exception as error:  # Playwright's own: cancelled, failed, gone
            said.append(f"the file {name!r} was not kept: {str(error).splitlines()[0][:100]}")
        with contextlib.suppress(Exception):
            await download.delete()
    tab.downloads.clear()
    return said
