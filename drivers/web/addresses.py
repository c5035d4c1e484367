"""Where one may go: addresses as they are written, and the machines that they lead to.

What: reads a URL so that every other reader would read it the same way, and judges the IP addresses that its host
    resolves to. Only the public internet is gone to, on the web's ports, but for what the owner allows.
Invariant: the decision is about IP addresses, after resolution, and whoever connects takes an address out of
    `Gate.addresses` and none other: there is no second resolution that could give another answer (rebinding). What
    is not known to be public is refused: IPv6 is a list of what is allowed, not of what is forbidden.
Interface: `parse(url) -> Address`; `Gate(allow)`, `await gate.addresses(host, port)`. Errors: AddressRefused,
    PageFailed (a name that does not resolve).
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit, urlunsplit

from llmos.drivers.web.errors import AddressRefused, PageFailed

IP = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

PORTS = {"http": 80, "https": 443}
OPEN_PORTS = frozenset({80, 443, 8080, 8443})  # what the web is served on; others are other services
MAX_URL = 4096  # characters
MAX_RESOLVED = 16  # addresses of one name that are looked at
RESOLVE_SECONDS = 10.0

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_HOST = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*"
)
_NUMERIC = re.compile(r"\d+|0x[0-9a-f]*")  # a last label like this makes a host an IPv4 address, in browsers

_PUBLIC6 = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC6 = [
    (ipaddress.IPv6Network(net), why)
    for net, why in (
        ("2001::/23", "is for protocols (Teredo, ORCHID, benchmarks)"),
        ("2001:db8::/32", "is for documentation"),
        ("3fff::/20", "is for documentation"),
        ("2002::/16", "is a 6to4 address, which carries an IPv4 address in it"),
    )
]
_NOT_PUBLIC4 = [
    (ipaddress.IPv4Network(net), why)
    for net, why in (
        ("0.0.0.0/8", "means this machine"),
        ("127.0.0.0/8", "is this machine itself"),
        ("169.254.0.0/16", "is link-local, where clouds keep their metadata"),
        ("168.63.129.16/32", "is a cloud's own service"),
        ("100.64.0.0/10", "is a carrier's private network"),
        ("192.0.0.0/24", "is for protocols"),
        ("192.88.99.0/24", "is a 6to4 relay"),
        ("198.18.0.0/15", "is for benchmarks"),
        ("224.0.0.0/4", "is multicast"),
        ("240.0.0.0/4", "is reserved"),
    )
]


@dataclass(frozen=True, slots=True)
class Address:
    """A URL that has one reading. `host` is in lower case, ASCII, without brackets or a last dot; `url` is written
    anew from the parts and has no fragment; `fragment` is what stood after `#`."""

    scheme: str
    host: str
    port: int
    url: str
    fragment: str = ""

    @property
    def origin(self) -> str:
        """Scheme, host and, where it is not the usual one, port."""
        return self.url[: self.url.index("/", self.url.index("://") + 3)]


def parse(url: str, base: str = "") -> Address:
    """A URL, or one relative to `base`; AddressRefused where it has no reading, or more than one.

    Backslashes, control characters, user names, percent signs in the host and numbers that only some programs take
    for an IPv4 address are refused: what was checked, approved or allowed by its look must be what is gone to.
    """
    text = url.strip()
    if len(text) > MAX_URL:
        raise _refused(text[:80] + "…", f"it has {len(text)} characters, at most {MAX_URL} are taken")
    if not text.isprintable() or " " in text or "\\" in text:
        raise _refused(
            text, "it holds blanks, backslashes or control characters, which programs read differently"
        )
    scheme = _SCHEME.match(text)
    if scheme and scheme[1].lower() not in PORTS and not base:
        raise _refused(text, f"{scheme[1].lower()}: is not gone to, only http: and https:")
    if base:
        text = urljoin(base, text)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise _refused(text, str(error)) from None
    if parts.scheme not in PORTS:
        known = f"{parts.scheme}: is not gone to" if parts.scheme else "it has no scheme"
        raise _refused(text, f"{known}, only http: and https:", "begin with http:// or https://")
    if "@" in parts.netloc:
        raise _refused(
            text, "it holds a user name, behind which the real host hides", "leave out what stands before @"
        )
    host = _host(host, text)
    port = PORTS[parts.scheme] if port is None else port
    if port == 0:
        raise _refused(text, "there is no port 0")
    shown = f"[{host}]" if ":" in host else host
    netloc = shown if port == PORTS[parts.scheme] else f"{shown}:{port}"
    whole = urlunsplit((parts.scheme, netloc, parts.path or "/", parts.query, ""))
    return Address(parts.scheme, host, port, whole, parts.fragment)


def _host(host: str, url: str) -> str:
    """The host in one form."""
    if not host:
        raise _refused(url, "it names no host")
    if ":" in host:
        if "%" in host:
            raise _refused(url, "it names a network interface")
        try:
            return str(ipaddress.IPv6Address(host))
        except ValueError:
            raise _refused(url, f"{host} is no IPv6 address") from None
    if not host.isascii():
        host = _ascii(host, url)
    host = host.removesuffix(".").lower()
    if not _HOST.fullmatch(host):
        raise _refused(url, f"{host!r} is no name of a host")
    if _NUMERIC.fullmatch(host.rpartition(".")[2]):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            why = f"{host} is a number that some programs read as an IP address, each as another"
            raise _refused(url, why, "write it as four numbers") from None
    return host


def _ascii(host: str, url: str) -> str:
    import idna

    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except idna.IDNAError as error:
        raise _refused(url, f"{host!r} is no name of a host ({error})") from None


def _refused(url: str, why: str, do: str = "give a plain http:// or https:// address") -> AddressRefused:
    return AddressRefused(f"{url[:200]!r} is not opened", why=why, do=do)


def why_not_public(ip: IP) -> str:
    """Why an address is not on the public internet, or "". IPv4 inside of IPv6 is judged as what it is."""
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return why_not_public(ip.ipv4_mapped) or "is an IPv4 address in the clothes of IPv6"
        if ip not in _PUBLIC6:
            return "is not of the public IPv6 internet"
        return next((why for net, why in _NOT_PUBLIC6 if ip in net), "")
    for net, why in _NOT_PUBLIC4:
        if ip in net:
            return why
    return "" if ip.is_global else "is a private address"


def is_own(ip: IP) -> bool:
    """Whether an address is one of this machine's own, whatever range it is of: one can bind to it."""
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(ip), 0))
            return True
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class Allowed:
    """One entry of `allow`: a network or a name, and a port, or any."""

    network: Network | None
    name: str
    port: int | None

    @classmethod
    def read(cls, text: str) -> Allowed:
        """From `127.0.0.1:8000`, `10.0.0.0/8`, `[::1]:8000`, `intranet.example` or `host:3000`; ValueError."""
        match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:\[\]]+))(?::(\d{1,5}))?", text.strip())
        bare6 = None if match else text.strip()
        host, port = (match[1] or match[2], match[3]) if match else (bare6 or "", None)
        number = None if port is None else int(port)
        if number is not None and not 0 < number < 65536:
            raise ValueError(f"{text!r}: there is no port {number}")
        try:
            return cls(ipaddress.ip_network(host, strict=False), "", number)
        except ValueError:
            name = host.removesuffix(".").lower()
            if not _HOST.fullmatch(name) or _NUMERIC.fullmatch(name.rpartition(".")[2]):
                raise ValueError(f"{text!r} is none of host, IP or network, with or without :port") from None
            return cls(None, name, number)

    def admits(self, host: str, ip: IP, port: int) -> bool:
        """Whether this entry lets a call to `host`, which resolved to `ip`, pass."""
        if self.port is not None and self.port != port:
            return False
        if self.network is None:
            return self.name == host
        return ip.version == self.network.version and ip in self.network


async def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses that this machine's resolver gives for a host."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Gate:
    """The one way out.

    Args:
        allow: what may be reached although it is not public, or not on a port of the web: `127.0.0.1:8000`.
        resolve: from (host, port) to IP addresses; the machine's resolver where it is not given.
    """

    def __init__(self, allow: Sequence[str] = (), resolve: Resolve = resolve) -> None:
        self.allow = tuple(allow)
        self._allowed = [Allowed.read(entry) for entry in allow]
        self._resolve = resolve

    def also(self, *allow: str) -> Gate:
        """A gate that lets these pass as well."""
        return Gate((*self.allow, *allow), self._resolve)

    async def addresses(self, host: str, port: int) -> tuple[str, ...]:
        """The IP addresses to connect to; nothing else may be connected to for this host.

        Raises:
            AddressRefused: one of its addresses, or the port, is not gone to. One is enough: a name that leads to
                the public and to a private network at once is a trick.
            PageFailed: the name does not resolve.
        """
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):
                found = (await self._resolve(host, port))[:MAX_RESOLVED]
        except (OSError, UnicodeError, TimeoutError) as error:
            why = getattr(error, "strerror", "") or str(error) or "the resolver did not answer"
            raise PageFailed(f"{host} was not found", why=why, do="check the name") from None
        good = [self._judge(host, ipaddress.ip_address(text.partition("%")[0]), port) for text in found]
        if not good:
            raise PageFailed(f"{host} was not found", why="it has no address")
        return tuple(good)

    def _judge(self, host: str, ip: IP, port: int) -> str:
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            plain: IP = ip.ipv4_mapped
            if any(one.admits(host, plain, port) for one in self._allowed):
                return str(plain)
        if any(one.admits(host, ip, port) for one in self._allowed):
            return str(ip)
        where = host if host == str(ip) else f"{host} ({ip})"
        do = f"the machine's owner can allow it: apps: {{browser: {{allow: ['{_entry(host, port)}']}}}}"
        if why := why_not_public(ip):
            raise AddressRefused(f"{where} is not gone to", why=f"{ip} {why}", do=do)
        if port not in OPEN_PORTS:
            raise AddressRefused(
                f"port {port} of {host} is not gone to", why="it is no port of the web", do=do
            )
        if is_own(ip):
            raise AddressRefused(f"{where} is not gone to", why=f"{ip} is this machine itself", do=do)
        return str(ip)


def _entry(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
