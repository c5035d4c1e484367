"""Whether Chromium starts on this machine, and if not why: found out once, by starting it."""

from __future__ import annotations

import asyncio
from functools import cache

from llmos.drivers.web.addresses import Gate
from llmos.drivers.web.chromium import Chromium
from llmos.drivers.web.errors import WebError


@cache
def missing_chromium() -> str:
    """Why there is none; "" where there is."""

    async def start() -> None:
        await (await Chromium.start(Gate())).close()

    try:
        asyncio.run(asyncio.wait_for(start(), 60))
    except WebError as error:
        return str(error)
    return ""
