"""Who is let in, and how many.

What: keys, the check of callers where there are none, and the places that requests take.
Invariant: whoever passes speaks for the owner of the machine. Without keys that is a program on this machine: the
    server listens on loopback alone, and a web page that the owner happens to look at is kept out, whether it
    sends requests across (it carries an Origin) or has its own name point here (it carries a strange Host).
Interface: `Keys(texts)`, `read_keys(path)`, `Keys.check(headers)`; `Places(running, waiting, seconds)`, an async
    context manager; `is_loopback(host)`.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

from llmos.abi.errors import ConfigError
from llmos.serve.refusal import Refusal, too_many

MIN_KEY = 16  # characters: shorter ones are guessed


class Keys:
    """The keys that open the door; none of them where only this machine can knock."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._keys = [key.encode() for key in keys]
        if any(len(key) < MIN_KEY or not key.isascii() or b" " in key for key in self._keys):
            raise ConfigError(
                f"a key of the server is shorter than {MIN_KEY} characters, or has others than ASCII",
                do="make one: python -c 'import secrets; print(secrets.token_urlsafe())'",
            )

    def __bool__(self) -> bool:
        return bool(self._keys)

    def check(self, headers: Mapping[str, str]) -> None:
        """Let the caller in, or refuse it."""
        if not self._keys:
            _check_local(headers)
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not given.strip():
            raise _unknown("You didn't provide an API key: send it as `Authorization: Bearer KEY`.", None)
        found = [hmac.compare_digest(given.strip().encode(), key) for key in self._keys]
        if not any(found):
            raise _unknown("Incorrect API key provided.", "invalid_api_key")


def read_keys(path: Path) -> list[str]:
    """The keys of a file, one a line.

    Raises:
        ConfigError: it cannot be read, others may read it too, or it holds none.
    """
    try:
        mode, text = path.stat().st_mode, path.read_text(encoding="utf-8")
    except (OSError, ValueError) as e:
        reason = getattr(e, "strerror", None) or "it is not UTF-8"
        raise ConfigError("the key file cannot be read", why=reason, file=str(path)) from None
    if mode & 0o077:
        raise ConfigError("others may read the key file", do=f"chmod 600 {path}", file=str(path))
    keys = [line.strip() for line in text.splitlines() if line.strip()]
    if not keys:
        raise ConfigError("the key file holds no key", do="write one a line", file=str(path))
    return keys


def is_loopback(host: str) -> bool:
    """Whether a name or an address of a host can only mean this machine."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _check_local(headers: Mapping[str, str]) -> None:
    for name, url in (("Host", f"//{headers.get('host', '')}"), ("Origin", headers.get("origin", ""))):
        if name == "Origin" and "origin" not in headers:
            continue
        try:
            host = urlsplit(url).hostname or ""
        except ValueError:
            host = ""
        if not is_loopback(host):
            raise Refusal(
                403,
                f"{name} is not this machine: without a key, only programs on it are served.",
                code="forbidden",
            )


def _unknown(message: str, code: str | None) -> Refusal:
    return Refusal(401, message, code=code, headers={"www-authenticate": "Bearer"})


class Places:
    """So many requests at once, so many in the queue, and none for ever: `async with places: ...`."""

    def __init__(self, running: int, waiting: int, seconds: float) -> None:
        self._free, self._seats, self._seconds = asyncio.Semaphore(running), waiting, seconds

    async def __aenter__(self) -> None:
        if self._free.locked() and self._seats < 1:
            raise too_many("Too many requests at once, and too many that wait already. Come again soon.")
        self._seats -= 1
        try:
            async with asyncio.timeout(self._seconds):
                await self._free.acquire()
        except TimeoutError:
            raise too_many(f"No place became free within {self._seconds:g} s. Come again later.") from None
        finally:
            self._seats += 1

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._free.release()
