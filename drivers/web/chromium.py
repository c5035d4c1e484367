"""Chromium, confined: started without rights or network, driven through Playwright, its pages read and acted upon.

What: finds Debian's (or another) Chromium, starts it by `jail.py` with its own sandbox on, lets it out through a
    `Relay` only, and gives pages to `drivers.web.pages`.
Invariant: it never runs without its sandbox, as root, or with a network of its own: where that cannot be had,
    ChromiumMissing says what is missing. Cookies, storage and files lie in a folder of this one browser, which goes
    with it. No call waits longer than it says: what hangs is ended with the browser.
Interface: `find_chromium()`; `await Chromium.start(gate, ...)`, `.page`, `.new_page()`, `.relay`, `.close()`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shlex
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmos.drivers.web import jail
from llmos.drivers.web.addresses import Gate
from llmos.drivers.web.errors import ChromiumMissing
from llmos.drivers.web.relay import Relay
from llmos.drivers.web.sheets import HEIGHT, WIDTH

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, Playwright

# The headless shell first: the same engine, half the start-up, no updater that calls home.
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
START_SECONDS = 60.0  # on a loaded machine; a second is usual
CLOSE_SECONDS = 5.0
PREFIX = "llmos-browser-"  # of the folders in which browsers keep what they keep
STALE_SECONDS = 60.0  # that a folder without a living owner is left alone
GET_IT = "apt-get install chromium chromium-headless-shell, or whatever gives this system a Chromium"
_USERS = range(61184, 65520)  # ids that systemd keeps for services that come and go: nobody's files
_ARGUMENTS = (
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-gpu",
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    f"--window-size={WIDTH},{HEIGHT}",
)


def find_chromium(path: str = "") -> Path:
    """The program; never downloaded. ChromiumMissing says how to get it.

    Args:
        path: the owner's choice; what is installed where it is "".
    """
    if path:
        if not os.access(path, os.X_OK):
            raise ChromiumMissing(f"{path} is no program", do="correct `chromium:` of the browser's settings")
        return Path(path)
    for name in NAMES:
        if found := shutil.which(name):
            real = Path("/usr/lib/chromium") / name  # Debian's are scripts around these
            return real if real.is_file() and os.access(real, os.X_OK) else Path(found)
    raise ChromiumMissing("there is no Chromium on this machine", why="the page needs one", do=GET_IT)


class Chromium:
    """One running browser with one context: cookies and storage are those of whoever started it."""

    def __init__(
        self, playwright: Playwright, browser: Browser, context: BrowserContext, relay: Relay, folder: Path
    ) -> None:
        self._playwright, self._folder = playwright, folder
        self.browser, self.context, self.relay = browser, context, relay

    @classmethod
    async def start(cls, gate: Gate, *, program: str = "") -> Chromium:
        """Start one; ChromiumMissing where it is not there, or cannot be confined."""
        found = find_chromium(program)
        try:
            from playwright.async_api import async_playwright
        except ImportError:
            raise ChromiumMissing("Playwright is not installed", do="pip install 'llmos[browser]'") from None
        folder = _folder()
        async with contextlib.AsyncExitStack() as undo:
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            playwright = await async_playwright().start()
            undo.push_async_callback(playwright.stop)
            browser, door = await _launch(playwright, found, folder)
            undo.push_async_callback(browser.close)
            relay = await undo.enter_async_context(Relay(door, gate))
            context = await browser.new_context(
                viewport={"width": WIDTH, "height": HEIGHT}, service_workers="block", accept_downloads=True,
                permissions=[], locale="en-US",
            )  # fmt: skip
            undo.pop_all()
        return cls(playwright, browser, context, relay, folder)

    @property
    def alive(self) -> bool:
        """Whether the browser still runs."""
        return self.browser.is_connected()

    def forget(self) -> None:
        """Remove what it kept, without waiting for its end: for a program that ends itself."""
        shutil.rmtree(self._folder, ignore_errors=True)

    async def close(self) -> None:
        """End it and all it kept; never waits long."""
        with contextlib.suppress(Exception):  # it may be gone, or hang: the program below ends it then
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.browser.close()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._playwright.stop()  # its driver ends Chromium with it
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.relay.__aexit__(None, None, None)
        self.forget()


def _folder() -> Path:
    """A folder of this browser's own; those of browsers whose program was killed are removed."""
    mine = Path(tempfile.mkdtemp(prefix=PREFIX))
    for other in mine.parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if other != mine and time.time() - other.stat().st_mtime > STALE_SECONDS and _abandoned(other):
                shutil.rmtree(other, ignore_errors=True)
    (mine / "owner").write_text(str(os.getpid()))
    return mine


def _abandoned(folder: Path) -> bool:
    """Whether the program that made a folder of ours has ended."""
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        return False
    try:
        os.kill(int((folder / "owner").read_text()), 0)
    except (ProcessLookupError, FileNotFoundError, ValueError):
        return True
    return False


async def _launch(playwright: Playwright, program: Path, folder: Path) -> tuple[Browser, socket.socket]:
    """The browser, and the socket in its network namespace at which it asks to be let out."""
    from playwright.async_api import Error

    user = random.choice(_USERS) if os.getuid() == 0 else os.getuid()
    folder.chmod(0o711)
    home, downloads = folder / "home", folder / "downloads"
    for inner in (home, downloads):
        inner.mkdir(mode=0o700)
        if os.getuid() == 0:
            os.chown(inner, user, user)
    meeting, wrapper = folder / "door", folder / "chromium"
    words = (sys.executable, "-I", "-S", jail.__file__, str(meeting), str(user), str(program))
    wrapper.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    wrapper.chmod(0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as waiting:
        waiting.bind(str(meeting))
        waiting.listen(1)
        waiting.setblocking(False)
        door = asyncio.create_task(_door(waiting))
        launch = asyncio.create_task(
            playwright.chromium.launch(
                executable_path=str(wrapper), args=list(_ARGUMENTS), chromium_sandbox=True, headless=True,
                proxy={"server": f"socks5://127.0.0.1:{jail.PORT}"}, downloads_path=str(downloads),
                env=_environment(home), timeout=START_SECONDS * 1000,
                handle_sigint=False, handle_sigterm=False, handle_sighup=False,
            )
        )  # fmt: skip
        try:
            await asyncio.wait((door, launch), return_when=asyncio.FIRST_COMPLETED)
            if not door.done():
                launch.result()  # it has failed, for the door comes first
            listening = await door
            return await launch, listening
        except Error as error:
            why = next((line for line in str(error).splitlines() if line.strip()), "")
            raise ChromiumMissing(f"{program.name} does not start", why=why[:300], do=GET_IT) from None
        except BaseException:
            for task in (door, launch):
                task.cancel()
            await asyncio.gather(door, launch, return_exceptions=True)
            raise


async def _door(waiting: socket.socket) -> socket.socket:
    """What the launcher passes; ChromiumMissing with the reason where it could not confine itself."""
    loop = asyncio.get_running_loop()
    connection, _ = await loop.sock_accept(waiting)
    with connection:
        connection.setblocking(True)
        connection.settimeout(START_SECONDS)
        message, descriptors, _, _ = await asyncio.to_thread(socket.recv_fds, connection, 4096, 1)
    if message != b"ok" or not descriptors:
        raise ChromiumMissing(
            "Chromium cannot be confined here",
            why=message.decode("utf-8", "replace") or "its launcher ended",
            do="run as root, or allow user namespaces to ordinary users (sysctl user.max_user_namespaces)",
        )
    listening = socket.socket(fileno=descriptors[0])
    listening.setblocking(False)
    return listening


def _environment(home: Path) -> dict[str, Any]:
    """Nothing of ours: no secrets, no display, no bus."""
    return {
        "PATH": "/usr/bin:/bin", "HOME": str(home), "TMPDIR": str(home), "XDG_CONFIG_HOME": str(home),
        "XDG_CACHE_HOME": str(home), "LANG": "C.UTF-8",
    }  # fmt: skip
