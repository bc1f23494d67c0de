"""Where webhooks may go: the form of a URL, and the addresses behind its host.

Who registers a URL chooses where our servers send a request (server-side request forgery). So only public
addresses are allowed, and a request goes to the very address that was looked at.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import httpx

from shared import limits
from shared.errors import AddressRefused

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Sequence[str]]
"""Gives the addresses of a host and port. Raises `OSError` or `UnicodeError` if there are none."""

_DEFAULT_PORTS = {"https": 443, "http": 80}
_NAT64 = IPv6Network("64:ff9b::/96")
_IPV4_MASK = 0xFFFF_FFFF


def resolve_with_system(host: str, port: int) -> list[str]:
    """Ask the operating system, which also reads the unusual forms of an address (decimal, octal)."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def read_url(text: str, *, allow_private: bool) -> httpx.URL:
    """The URL of a target, read as the client reads it that sends to it.

    Raises:
        AddressRefused: its form is not allowed; says why.
    """
    schemes = ("https", "http") if allow_private else ("https",)
    try:
        url = httpx.URL(text)
        host = url.host
    except (httpx.InvalidURL, UnicodeError) as error:
        raise AddressRefused(f"it is not a URL: {error}") from error
    if url.scheme not in schemes:
        raise AddressRefused(f"it must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    if not host or "%" in host:
        raise AddressRefused("it names no host")
    if url.userinfo or url.fragment:
        raise AddressRefused("it must have no user, password or fragment (#)")
    if url.port is not None and not 0 < url.port < 65_536:
        raise AddressRefused("its port must be between 1 and 65535")
    return url


def port_of(url: httpx.URL) -> int:
    """The port that is connected to."""
    return url.port or _DEFAULT_PORTS[url.scheme]


def checked_addresses(found: Sequence[str], *, allow_private: bool) -> list[Address]:
    """The addresses of a host, if webhooks may go to every one of them.

    Raises:
        AddressRefused: one of them is not public.
    """
    addresses = [ip_address(text) for text in found]
    if not allow_private and not all(is_public(address) for address in addresses):
        raise AddressRefused("its host has an address that is not public")
    return addresses[: limits.WEBHOOK_ADDRESSES_TRIED_MAX]


def is_public(address: Address) -> bool:
    """Whether an address is one of the internet, also where an IPv6 address only wraps one of IPv4."""
    return all(_is_public(each) for each in _wrapped_addresses(address) or (address,))


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and address.is_site_local:
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _wrapped_addresses(address: Address) -> list[IPv4Address]:
    """The IPv4 addresses that a gateway may make of an IPv6 address."""
    if isinstance(address, IPv4Address):
        return []
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    if address.sixtofour is not None:
        return [address.sixtofour]
    if address.teredo is not None:
        return list(address.teredo)
    if address in _NAT64:
        return [IPv4Address(int(address) & _IPV4_MASK)]
    return []
