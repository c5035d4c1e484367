"""Where one may go: every form of an address that must not be reached is refused, public ones are not."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.browser_set import ADDRESSES, NAMES
from llmos.drivers.web.addresses import Allowed, Gate, parse, why_not_public
from llmos.drivers.web.errors import AddressRefused, PageFailed


def reached(url: str, *allow: str, names: dict[str, list[str]] | None = None) -> tuple[str, ...]:
    """The addresses that would be connected to."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        try:
            return [str(ipaddress.ip_address(host))]
        except ValueError:
            if host == "localhost":
                return ["127.0.0.1", "::1"]
            return (names or {}).get(host, ["93.184.216.34"])

    address = parse(url)
    return asyncio.run(Gate(allow, resolve).addresses(address.host, address.port))


@pytest.mark.parametrize("form", ADDRESSES)
def test_an_address_that_must_not_be_reached_is_refused(form: str) -> None:
    with pytest.raises(AddressRefused) as refused:
        reached(form.replace("{port}", "8765"))
    assert refused.value.why and refused.value.do


@pytest.mark.parametrize("name", NAMES)
def test_what_a_name_resolves_to_decides(name: str) -> None:
    with pytest.raises(AddressRefused):
        reached(f"http://{name}/", names={name: NAMES[name][0]})


def test_public_addresses_are_gone_to_as_they_were_resolved() -> None:
    names = {"docs.example": ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"]}
    assert reached("https://docs.example/", names=names) == tuple(names["docs.example"])
    assert reached("http://8.8.8.8:8080/") == ("8.8.8.8",)


def test_one_resolution_is_judged_and_used() -> None:
    """A resolver that answers otherwise when it is asked again (rebinding) has no second chance."""
    asked = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["93.184.216.34"] if len(asked) == 1 else ["127.0.0.1"]

    assert asyncio.run(Gate((), resolve).addresses("rebinding.example", 80)) == ("93.184.216.34",)
    assert asked == ["rebinding.example"]


@pytest.mark.parametrize(
    ("allow", "url"),
    [
        ("127.0.0.1:8765", "http://127.0.0.1:8765/"),
        ("127.0.0.0/8", "http://127.3.2.1:9/"),
        ("[::1]:8765", "http://[::1]:8765/"),
        ("10.0.0.0/8", "http://intranet.example/"),
        ("intranet.example:3000", "http://intranet.example:3000/"),
        ("127.0.0.1:8765", "http://[::ffff:127.0.0.1]:8765/"),
    ],
)
def test_what_the_owner_allows(allow: str, url: str) -> None:
    assert reached(url, allow, names={"intranet.example": ["10.9.8.7"]})


@pytest.mark.parametrize(
    ("allow", "url"),
    [
        ("127.0.0.1:8765", "http://127.0.0.1:8766/"),
        ("127.0.0.1:8765", "http://127.0.0.2:8765/"),
        ("intranet.example", "http://other.example/"),
        ("10.0.0.0/8", "http://[::ffff:192.168.0.1]/"),
    ],
)
def test_and_nothing_beside_it(allow: str, url: str) -> None:
    with pytest.raises(AddressRefused):
        reached(url, allow, names={"other.example": ["10.9.8.7"] if "10" not in allow else ["127.0.0.1"]})


@pytest.mark.parametrize("entry", ["", "http://x/", "127.0.0.1:99999", "300.1.1.1", "a b", "10.0.0.0/99"])
def test_an_entry_that_means_nothing_is_an_error(entry: str) -> None:
    with pytest.raises(ValueError):
        Allowed.read(entry)


def test_addresses_have_one_form() -> None:
    assert parse("HTTP://Example.ORG:80?q=1#top").url == "http://example.org/?q=1"
    assert parse("https://bücher.example./x").url == "https://xn--bcher-kva.example/x"
    assert parse("/y?z", "http://a.example:8080/b/c").url == "http://a.example:8080/y?z"
    assert parse("http://[2606:2800:0220:0001::1]/").host == "2606:2800:220:1::1"
    assert parse("https://a.example:8443/p").origin == "https://a.example:8443"


def test_a_name_that_does_not_resolve() -> None:
    with pytest.raises(PageFailed, match="was not found"):
        reached("http://nowhere.example/", names={"nowhere.example": []})


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_no_more_public_in_the_clothes_of_ipv6(ip: ipaddress.IPv4Address) -> None:
    for dressed in (f"::ffff:{ip}", f"64:ff9b::{ip}", f"::{ip}"):
        assert why_not_public(ipaddress.ip_address(dressed))
    assert bool(why_not_public(ip)) or ip.is_global


@given(st.text(max_size=60))
def test_whatever_is_written_is_an_address_or_refused(text: str) -> None:
    for url in (text, "http://" + text, f"http://{text}@example.org/", f"http://example.org/{text}"):
        try:
            address = parse(url)
        except AddressRefused:
            continue
        assert parse(address.url) == address.__class__(
            address.scheme, address.host, address.port, address.url
        )
